"""What the command line shows: logs as lines, progress where no terminal is, and old spellings."""

from __future__ import annotations

import io
import json
import logging
import re
import time
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
    monkeypatch.setattr(terminal, "SAID_AFTER", 0.01)
    monkeypatch.setattr(terminal, "LINE_EVERY", 0.05)
    progress = terminal.console_progress(console)
    with progress.task("Measuring", 100) as task:
        time.sleep(0.03)
        task.advance(10)
        time.sleep(0.2)
        task.advance(90)
    with progress.task("Opening"):  # of which nothing is known but that it goes on
        time.sleep(0.1)
    with progress.task("Done at once", 3):
        pass
    lines = text.getvalue().splitlines()
    assert lines[0] == "Measuring: 100 to do"
    assert re.fullmatch(r"Measuring: 10 of 100, [0-9.]+/s, 0:0\d left", lines[1])
    said = [line for line in lines if line.startswith("Measuring")]
    assert re.fullmatch(r"Measuring: 100 of 100, [0-9.]+/s, took 0:00", said[-1])
    assert lines[len(said) :][:2] == ["Opening: begun", "Opening: for 0:00"]
    assert lines[-1] == "Opening: took 0:00"


def test_bars_have_a_rate_and_the_time_left_at_any_width() -> None:
    for width in (50, 80):
        text = io.StringIO()
        console = Console(file=text, width=width, force_terminal=True)
        with terminal.console_progress(console).task("Drawing the report", 40) as task:
            for _ in range(4):
                time.sleep(0.12)
                task.advance()
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
        assert re.search(r"Drawing the report .*4/40, [0-9.]+/s, 0:0\d left", shown), shown


@pytest.mark.parametrize(("rate", "said"), [(3.14159, "3.14/s"), (0.25, "4 s each")])
def test_a_slow_rate_is_told_by_the_piece(rate: float, said: str) -> None:
    assert terminal.rate_text(rate) == said
    assert [terminal.clock(seconds) for seconds in (5, 65, 3665)] == ["0:05", "1:05", "1:01:05"]


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
