"""Settings from a TOML file: a table for each command, whose keys are the names of its options.

    [distill]
    teacher = "teacher.onnx"
    ipc = 10

    [teacher.fit]
    hold-out = 0.25

A file is read only where `--config` names it. Its values become what options are by default, so they are
checked, stored and overridden as if they had been given.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.sections import COMMANDS
from fgdd_fast.errors import SettingsError

_NEVER = {"config", "help"}


def take_configuration(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Let options have the values of a file's table by default; those of a preset, if it came first, stay.

    Raises:
        SettingsError: the file cannot be read, or is not what is told above.
    """
    if value is not None and not ctx.resilient_parsing:
        ctx.default_map = {**_settings(value, ctx), **(ctx.default_map or {})}


def _settings(file: Path, ctx: click.Context) -> dict[str, Any]:
    """What a file says of the options of the command that runs, by the names of their parameters."""
    table = read_toml(file)
    _check_names(file, table, COMMANDS, "command")
    for name, inner in table.items():
        if not isinstance(inner, Mapping):
            raise SettingsError(
                f"{file}: '{name}' stands in no table", f"Put it below a line with its command: [{name}]"
            )
    words = _path(ctx)
    for word in words:
        table = table.get(word, {})
        if not isinstance(table, Mapping):
            raise SettingsError(f"{file}: '{word}' has to be a table", f"Begin it as [{'.'.join(words)}]")
    options = {
        spelling.lstrip("-"): option
        for option in ctx.command.params
        if isinstance(option, click.Option) and not option.hidden
        for spelling in option.opts
        if spelling.startswith("--") and spelling.lstrip("-") not in _NEVER
    }
    given = {key.replace("_", "-"): value for key, value in table.items()}
    _check_names(file, given, options, f"option of '{' '.join(words)}'")
    return {str(options[key].name): _spelled(file, options[key], key, value) for key, value in given.items()}


def _path(ctx: click.Context) -> list[str]:
    """The words that name the command that runs, without the program's."""
    return [] if ctx.parent is None else [*_path(ctx.parent), str(ctx.info_name)]


def read_toml(file: Path) -> dict[str, Any]:
    """Read a file of settings; SettingsError where it cannot be read, or is no TOML."""
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}", "Name a TOML file with --config.") from error
    except (ValueError, RecursionError) as error:  # also of a number of too many digits
        raise SettingsError(
            f"{file} is no TOML: {error}", 'Settings look so: ipc = 10 or rule = "mean"'
        ) from error


def _check_names(file: Path, given: Iterable[str], known: Iterable[str], what: str) -> None:
    names = list(known)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            advice = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(sorted(names))}."
            raise SettingsError(f"{file}: '{name}' is no {what}", advice)


def _spelled(file: Path, option: click.Option, key: str, value: Any) -> Any:
    """A value as the command line would have it, so that it is checked as if it had been given there."""
    several = option.multiple or option.nargs != 1
    values = value if isinstance(value, list) and several else [value]
    wanted = "true or false" if option.is_flag else "a list" if several else "a text or a number"
    if any(isinstance(each, bool) != option.is_flag or isinstance(each, (list, Mapping)) for each in values):
        raise SettingsError(f"{file}: '{key}' is {value!r}", f"It has to be {wanted}.")
    spelled = values if option.is_flag else [str(each) for each in values]
    return spelled if several else spelled[0]
