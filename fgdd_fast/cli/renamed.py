"""Spellings of options that were renamed: accepted for one release, hidden, and warned about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

# The old and the new spelling of each option, by the command that has it; of a group, by its own name.
RENAMED: Mapping[str, Mapping[str, str]] = {
    "convert": {"--accept-parity": "--force"},
    "distill": {"--labels": "--label-epochs"},
    "evaluate": {"--val": "--validation", "--batch": "--student-batch", "--arithmetic": "--precision"},
    "engine": {"--accept-parity": "--force", "--batch": "--batch-profile"},
    "label": {"--view": "--label-view"},
}


def with_new_spellings(command: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with its old spellings replaced, each with a warning."""
    return list(_replaced(RENAMED.get(command, {}), arguments))


def _replaced(renamed: Mapping[str, str], arguments: Sequence[str]) -> Iterator[str]:
    for position, argument in enumerate(arguments):
        if argument == "--":
            yield from arguments[position:]
            return
        option, equals, value = argument.partition("=")
        new = renamed.get(option)
        if new is None:
            yield argument
        else:
            click.echo(f"Warning: {option} is called {new} now; its old name will go.", err=True)
            yield f"{new}{equals}{value}"
