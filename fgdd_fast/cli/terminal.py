"""What the terminal shows while a command runs: progress, what is logged, and lists of what was left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from fgdd_engines.progress import Progress, Task

if TYPE_CHECKING:
    from fgdd_fast.images.dataset import Skipped

LOGGERS = ("fgdd_engines", "fgdd_fast", "fgdd_export", "fgdd_bench")
LINE_EVERY = 30.0  # seconds, where output is no terminal
_CONSOLE = "fgdd-fast console"


def console() -> Console:
    """Return the console of the command that runs, which writes to standard error."""
    found = click.get_current_context().meta.setdefault(_CONSOLE, Console(stderr=True))
    assert isinstance(found, Console)
    return found


@contextmanager
def logged_to(target: Console) -> Iterator[None]:
    """Show what this project logs within the block, and nothing of it afterwards."""
    handler = _Handler(target)
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(level)


class _Handler(logging.Handler):
    """Prints each record as a line: dim, or yellow where it warns."""

    def __init__(self, target: Console) -> None:
        super().__init__(logging.INFO)
        self._console = target

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        self._console.print(printable(record.getMessage()), highlight=False, soft_wrap=True, style=style)


def console_progress(target: Console) -> Progress:
    """Return progress as bars on a terminal, and elsewhere as a line every half a minute."""
    return _OnTerminal(target) if target.is_terminal else _InLines(target)


class _OnTerminal:
    """One live display, for tasks within tasks as well."""

    def __init__(self, target: Console) -> None:
        self._console = target
        self._bars: Bars | None = None

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        outermost = self._bars is None
        bars = self._bars or _bars(self._console)
        if outermost:
            self._bars = bars
            bars.start()
        try:
            yield _Bar(bars, bars.add_task(name, total=total))
        finally:
            if outermost:
                bars.stop()
                self._bars = None


def _bars(target: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=target,
    )


class _Bar:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, steps: int = 1) -> None:
        self._bars.advance(self._task, steps)


class _InLines:
    def __init__(self, target: Console) -> None:
        self._console = target

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        yield _Lines(self._console, name, total)


class _Lines:
    """Says how far a task is now and then, with its rate and the time that is left."""

    def __init__(self, target: Console, name: str, total: int | None) -> None:
        self._console = target
        self._name = name
        self._total = total
        self._done = 0
        self._begin = self._said = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._said < LINE_EVERY:
            return
        self._said = now
        rate = self._done / (now - self._begin)
        if self._total is None:
            line = f"{self._name}: {self._done}, {rate:.3g} a second"
        else:
            left = (self._total - self._done) / rate / 60
            line = f"{self._name}: {self._done} of {self._total}, {rate:.3g} a second, {left:.0f} min left"
        self._console.print(line, highlight=False, soft_wrap=True, style="dim")


def report_skipped(skipped: Sequence[Skipped], target: Console, limit: int = 20) -> None:
    """List images that were left out, with the reasons."""
    if not skipped:
        return
    target.print(f"[yellow]{len(skipped)} skipped:[/yellow]")
    for item in skipped[:limit]:
        line = f"  {printable(item.source)}: {printable(item.reason)}"
        target.print(line, highlight=False, soft_wrap=True)
    if len(skipped) > limit:
        target.print(f"  … and {len(skipped) - limit} more")


def printable(text: str) -> str:
    """Return text that any terminal can show: bytes that are no UTF-8 and rich's markup are escaped."""
    return escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))
