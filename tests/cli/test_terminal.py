"""What the command line shows: logs as lines, progress where no terminal is, and old spellings."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from fgdd_fast.cli import main, renamed, terminal


def recorded(**options: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=200, **options), text


def test_logs_are_shown_within_the_block_alone() -> None:
    console, text = recorded()
    log = logging.getLogger("fgdd_fast.cli.main")
    with terminal.logged_to(console):
        log.info("a [bracket] and %d", 5)
    log.warning("later")
    assert text.getvalue() == "a [bracket] and 5\n"
    assert logging.getLogger("fgdd_fast").handlers == []


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    console, text = recorded()
    clock = iter([0.0, 10.0, 40.0, 50.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    with terminal.console_progress(console).task("Measuring", 100) as task:
        for _ in range(3):
            task.advance(10)
    assert text.getvalue() == "Measuring: 20 of 100, 0.5 a second, 3 min left\n"


def test_tasks_within_tasks_share_one_display() -> None:
    console, text = recorded(force_terminal=True)
    progress = terminal.console_progress(console)
    with progress.task("Outer", 2) as outer:
        with progress.task("Inner", 1) as inner:
            inner.advance()
        outer.advance(2)
    assert "Outer" in text.getvalue()
    assert "2/2" in text.getvalue()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Mapping[str, str]]:
    names = {"some": {"--old": "--new"}}
    monkeypatch.setattr(renamed, "RENAMED", names)
    return names


@pytest.mark.usefixtures("table")
def test_an_old_spelling_is_accepted_and_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--old", "1", "--old=2", "--", "--old"]
    assert renamed.with_new_spellings("some", given) == ["--new", "1", "--new=2", "--", "--old"]
    assert capsys.readouterr().err.count("--old is called --new now") == 2
    assert renamed.with_new_spellings("other", given) == given
    assert capsys.readouterr().err == ""


def test_json_is_printed_or_written_in_one_way_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    printed = CliRunner().invoke(main, ["cache", "list", "--json"])
    written = CliRunner().invoke(main, ["cache", "list", "--json", str(tmp_path / "cache.json")])
    assert printed.exit_code == written.exit_code == 0
    assert json.loads(printed.output) == json.loads((tmp_path / "cache.json").read_bytes())
    assert written.output == ""
