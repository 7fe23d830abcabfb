"""Every command that a page shows exists, and takes the options and values shown."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fgdd_fast.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    if page.name != "CHANGELOG.md"  # it names spellings that are gone
)
BLOCK = re.compile(r"^( *)```(?:sh|bash|console)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`((?:fgdd-fast|python -m (?:benchmarks|fgdd_\w+)[\w.]*) [^`]+)`")


def shown_in_blocks(page: str) -> Iterator[str]:
    """The commands of a page's shell blocks, continued lines joined."""
    for _, block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.split(r"&&|\|", line)


def find_command(line: str) -> tuple[click.Command, list[str]] | None:
    """Return the command of this project that a line of a shell runs, and its arguments; None for others."""
    words = shlex.split(line.partition(" > ")[0], comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):  # the environment
        words = words[1:]
    command: click.Command
    if words and Path(words[0]).name == "fgdd-fast":
        command, words = main, words[1:]
    elif words[:2] == ["python", "-m"] and words[2].startswith(("benchmarks.", "fgdd_bench.")):
        package = (ROOT / words[2].replace(".", "/")).is_dir()
        command, words = importlib.import_module(words[2] + ".__main__" * package).main, words[3:]
    else:
        return None
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found, f"no such command: {line}"
        command, words = found, words[1:]
    return command, words


def check(line: str, *, whole: bool) -> bool:
    """Parse a command with its options and their values; return whether it is one of this project.

    Args:
        line: a line of a shell.
        whole: whether all that the command needs must be there.
    """
    found = find_command(line)
    if found is None:
        return False
    command, words = found
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    hidden = {spelling for option in options if option.hidden for spelling in option.opts}
    assert not hidden & {word.partition("=")[0] for word in words}, f"an old spelling: {line}"
    if words and not isinstance(command, click.Group):
        try:
            command.make_context("command", words, resilient_parsing=not whole)
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.format_message()}")
    return True


def test_commands_in_blocks_are_whole() -> None:
    lines = [line for page in PAGES for line in shown_in_blocks(page)]

    assert sum(check(line, whole=True) for line in lines) > 20


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_sentences_exist(page: str) -> None:
    for line in SPAN.findall((ROOT / page).read_text(encoding="utf-8")):
        assert check(line, whole=False)


@pytest.mark.parametrize(
    "line",
    ["fgdd-fast distil DATA OUT", "fgdd-fast label OUT --no-such-option", "fgdd-fast doctor --device abacus"],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(line, whole=True)
