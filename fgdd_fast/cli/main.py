"""The command `fgdd-fast`, and how its errors are shown."""

from __future__ import annotations

import importlib
import traceback
from contextlib import nullcontext
from typing import IO, Any

import click
from click.shell_completion import CompletionItem

import fgdd_fast
from fgdd_fast.cli.renamed import with_new_spellings
from fgdd_fast.cli.sections import COMMANDS, SECTIONS
from fgdd_fast.cli.terminal import console, is_verbose, logged_to
from fgdd_fast.errors import FgddError
from fgdd_fast.output.folder import refusal

# The commands that go on where they were stopped; the others leave nothing half-written, and begin anew.
KEEPS_WORK = {"demo", "distill", "evaluate", "label", "measure", "stream"}
_KEPT = " Finished work is kept; the same command goes on from there."


class _Failure(click.ClickException):
    """An error shown in two lines: what was wrong, and what to do."""

    def __init__(self, error: FgddError) -> None:
        super().__init__(error.problem)
        self.advice = error.advice

    def show(self, file: IO[Any] | None = None) -> None:
        super().show(file)
        if self.advice:
            click.echo(self.advice, err=True)


class _Stopped(click.ClickException):
    """Ctrl-C."""

    exit_code = 130

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, err=True)


class _Commands(click.Group):
    """Loads a command's module when the command is named; turns the project's errors into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"fgdd_fast.cli.{COMMANDS[name][0]}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by task, without importing them."""
        widest = max(map(len, COMMANDS))
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(f"{name:{widest}}", text) for name, (_, text) in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name, without importing them."""
        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items()]
        return [item for item in found if item.value.startswith(incomplete)] + click.Command.shell_complete(
            self, ctx, incomplete
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # Importing a command takes a moment, in which a terminal is not to stay empty.
        shown = console().is_terminal and not ctx.resilient_parsing and not {"-q", "--quiet"} & {*args}
        with console().status("Starting") if shown else nullcontext():
            name, command, rest = super().resolve_command(ctx, args)
        return name, command, with_new_spellings(name or "", rest)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with logged_to(console()):
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # nobody reads any more
        except (FgddError, OSError, MemoryError) as error:
            if is_verbose():
                click.echo("".join(traceback.format_exception(error)), err=True)
            # The system may refuse what nothing foresaw, such as temporary files.
            raise _Failure(error if isinstance(error, FgddError) else refusal(error)) from error
        except KeyboardInterrupt as error:
            kept = ctx.invoked_subcommand in KEEPS_WORK
            raise _Stopped(f"Stopped.{_KEPT if kept else ''}") from error


@click.command(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(fgdd_fast.__version__, prog_name="fgdd-fast")
def main() -> None:
    """Foreground-aware dataset distillation: a folder of labelled images becomes a tiny data set.

    \b
    DATA is a folder with one folder of images for each class.
    Try it:             fgdd-fast demo
    On your own images: fgdd-fast models pull imagenet-efficientnet-lite0
                        fgdd-fast teacher fit DATA -o teacher.onnx
                        fgdd-fast distill DATA OUT --teacher teacher.onnx
    More of a command:  fgdd-fast COMMAND --help
    """
