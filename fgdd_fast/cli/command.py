"""What every command shares: how much it says, a file of settings, and a list of commands without gaps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.configuration import take_configuration
from fgdd_fast.cli.terminal import console, is_verbose, set_loudness

_JSON = "--json"


class Command(click.Command):
    """A command with the options that all have. Its docstring ends with an example of it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += _common_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, where `--json` stands alone too: what follows it may be an argument, and no file's name."""
        errors: list[click.UsageError] = []
        for way in _readings(args):
            try:
                ctx.params.clear()
                return super().parse_args(ctx, list(way))
            except click.UsageError as error:
                errors.append(error)
        raise errors[0]


class Group(click.Group):
    """Commands of one kind."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with whole sentences, which wrap where they are too long for the line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help(self.commands[name])) for name in self.list_commands(ctx)])


def short_help(command: click.Command) -> str:
    """Return the first sentence of a command's help, whole."""
    return command.get_short_help_str(limit=1_000)


def _readings(args: Sequence[str]) -> list[Sequence[str]]:
    """The arguments, and also with `--json` taken for itself; a folder that follows it is rather that."""
    options = args[: args.index("--")] if "--" in args else args
    if _JSON not in options[:-1] or options[options.index(_JSON) + 1].startswith("-"):
        return [args]
    place = options.index(_JSON)
    alone = [*args[:place], f"{_JSON}=-", *args[place + 1 :]]
    return [alone, args] if Path(args[place + 1]).is_dir() else [args, alone]


def _common_options() -> list[click.Parameter]:
    def loudness(level: int) -> Any:
        def take(ctx: click.Context, param: click.Parameter, value: bool) -> None:
            if value and console().quiet | is_verbose():
                raise click.UsageError("Name either --quiet or --verbose.")
            if value:
                set_loudness(level)

        return take

    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=loudness(logging.WARNING),
            help="Show warnings, errors and what was asked for, and nothing else.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=loudness(logging.DEBUG),
            help="Show when and where each line arises, and where an error does.",
        ),
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            is_eager=True,
            expose_value=False,
            callback=take_configuration,
            help="Take settings from this TOML file; options given besides come first.",
        ),
    ]
