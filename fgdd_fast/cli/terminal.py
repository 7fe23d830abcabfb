"""What the terminal shows while a command runs: progress, what is logged, and lists of what was left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.progress import Task as Shown
from rich.text import Text

from fgdd_engines.progress import SILENT, Progress, Task

if TYPE_CHECKING:
    from fgdd_fast.images.dataset import Skipped

LOGGERS = ("fgdd_engines", "fgdd_fast", "fgdd_export", "fgdd_bench")
SAID_AFTER = 0.5  # seconds after which a step says that it is under way, where output is no terminal
LINE_EVERY = 10.0  # seconds, from then on
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
NARROW = 70  # columns, below which there is no room for a bar beside its figures
_CONSOLE, _VERBOSE, _JSON = "fgdd-fast console", "fgdd-fast verbose", "fgdd-fast json"


def console() -> Console:
    """Return the console of the command that runs, which writes to standard error; silent if asked to be."""
    found = click.get_current_context().meta.setdefault(_CONSOLE, Console(stderr=True))
    assert isinstance(found, Console)
    return found


def alerts() -> Console:
    """Return the console for what is shown even if asked to be quiet, such as warnings."""
    return _heard(console())


def say(text: str, *, always: bool = False) -> None:
    """Say a line on standard output, or on standard error where that is for JSON.

    Args:
        text: what was done, which is not said if asked to be quiet.
        always: whether it is what the command was asked for.
    """
    if always or not console().quiet:
        click.echo(text, err=json_is_printed())


def answers() -> Console:
    """Return the console for what a command was asked for: of standard output, where that is not for JSON."""
    return Console(stderr=json_is_printed(), highlight=False)


def keep_json_in(file: Path | None) -> None:
    """Have the result as JSON in a file; `-` keeps standard output for it."""
    click.get_current_context().meta[_JSON] = file


def json_file() -> Path | None:
    """Return where the result goes as JSON: see `keep_json_in`; None where nobody asked for it."""
    found: Path | None = click.get_current_context().meta.get(_JSON)
    return found


def json_is_printed() -> bool:
    """Return whether standard output is for the result as JSON alone."""
    return str(json_file()) == "-"


def is_verbose() -> bool:
    """Return whether the command was asked to say more."""
    return bool(click.get_current_context().meta.get(_VERBOSE))


def set_loudness(level: int) -> None:
    """Show of what is logged what has this level at least; above INFO nothing but that is shown."""
    console().quiet = level > logging.INFO
    click.get_current_context().meta[_VERBOSE] = level < logging.INFO
    for name in LOGGERS:
        logging.getLogger(name).setLevel(level)


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
    """Prints each record as a line: dim, or yellow where it warns; of debugging also when and where."""

    def __init__(self, target: Console) -> None:
        super().__init__(logging.DEBUG)
        self._console = target

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        line = printable(record.getMessage())
        if logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.name}: {line}"
        _heard(self._console).print(line, highlight=False, soft_wrap=True, style=style)


def _heard(target: Console) -> Console:
    """The console itself, or one beside it where it is silent."""
    return Console(stderr=True) if target.quiet else target


def console_progress(target: Console, *, at_steps_alone: bool = False) -> Progress:
    """Return progress as bars on a terminal, elsewhere as a line now and then; none if asked to be quiet.

    Args:
        target: where it is shown.
        at_steps_alone: whether bars are drawn when a step is done alone, because drawing takes time from it.
    """
    if target.quiet:
        return SILENT
    return _OnTerminal(target, at_steps_alone) if target.is_terminal else _InLines(target)


class _OnTerminal:
    """One live display, for tasks within tasks as well."""

    def __init__(self, target: Console, at_steps_alone: bool) -> None:
        self._console = target
        self._at_steps_alone = at_steps_alone
        self._bars: Bars | None = None

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        if total == 0:
            with SILENT.task(name) as nothing:
                yield nothing
            return
        outermost = self._bars is None
        bars = self._bars or _bars(self._console, auto_refresh=not self._at_steps_alone)
        if outermost:
            self._bars = bars
            bars.start()
        try:
            yield _Bar(bars, bars.add_task(name, total=total), self._at_steps_alone)
        finally:
            if outermost:
                bars.stop()
                self._bars = None


def _bars(target: Console, *, auto_refresh: bool) -> Bars:
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn(20), _Pace()]
    if target.width < NARROW:
        del columns[1]
    return Bars(*columns, console=target, auto_refresh=auto_refresh)


class _Bar:
    def __init__(self, bars: Bars, task: TaskID, refresh: bool) -> None:
        self._bars, self._task, self._refresh = bars, task, refresh

    def advance(self, steps: int = 1) -> None:
        self._bars.update(self._task, advance=steps, refresh=self._refresh)


class _Pace(ProgressColumn):
    """How much is done, the rate, and the time that is left; or that it took."""

    def render(self, task: Shown) -> Text:
        said = [] if task.total is None else [f"{task.completed:.0f}/{task.total:.0f}"]
        if speed := task.finished_speed or task.speed:
            said.append(rate_text(speed))
        if task.finished or task.total is None or task.time_remaining is None:
            return Text(", ".join([*said, clock(task.elapsed or 0)]))
        return Text(", ".join([*said, f"{clock(task.time_remaining)} left"]), style="cyan")


class _InLines:
    """Says of each step that takes more than a moment that it began, how far it is, and how long it took."""

    def __init__(self, target: Console) -> None:
        self._console = target

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        lines, ended = _Lines(self._console, name, total), Event()
        thread = Thread(target=lines.say_until, args=(ended,), daemon=True)
        thread.start()
        try:
            yield lines
        finally:
            ended.set()
            thread.join()


class _Lines:
    """Says how far a task is now and then, with its rate and the time that is left."""

    def __init__(self, target: Console, name: str, total: int | None) -> None:
        self._console = target
        self._name = name
        self._total = total
        self._done = 0
        self._begin = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self._done += steps

    def say_until(self, ended: Event) -> None:
        """Say it until the task has ended, and then how long it took; nothing if that was a moment."""
        if ended.wait(SAID_AFTER):
            return
        self._say([] if self._total is None else [f"{self._total} to do"])
        while not ended.wait(LINE_EVERY):
            self._say(self._figures())
        took = f"took {clock(time.monotonic() - self._begin)}"
        self._say([*self._figures(left=False), took])

    def _figures(self, *, left: bool = True) -> list[str]:
        done, seconds = self._done, time.monotonic() - self._begin
        if not done:
            return [f"for {clock(seconds)}"] * left
        said = [str(done) if self._total is None else f"{done} of {self._total}", rate_text(done / seconds)]
        if left and self._total is not None:
            said.append(f"{clock((self._total - done) * seconds / done)} left")
        return said

    def _say(self, figures: Sequence[str]) -> None:
        line = f"{self._name}: {', '.join(figures) or 'begun'}"
        with suppress(OSError):  # nobody reads any more
            self._console.print(printable(line), highlight=False, soft_wrap=True, style="dim")


def rate_text(speed: float) -> str:
    return f"{speed:.3g}/s" if speed >= 1 else f"{1 / speed:.3g} s each"


def clock(seconds: float) -> str:
    """Return a time as 1:05, or 1:01:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def readable_size(count: int) -> str:
    """Return the bytes in the largest unit of which there is at least one."""
    exponent = min(max(count.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{count} B" if exponent == 0 else f"{count / 1024**exponent:.1f} {_UNITS[exponent]}"


def report_skipped(skipped: Sequence[Skipped], limit: int = 20) -> None:
    """List images that were left out, with the reasons, even if asked to be quiet."""
    if not skipped:
        return
    target = alerts()
    target.print(f"[yellow]{len(skipped)} skipped:[/yellow]")
    for item in skipped[:limit]:
        line = f"  {printable(item.source)}: {printable(item.reason)}"
        target.print(line, highlight=False, soft_wrap=True)
    if len(skipped) > limit:
        target.print(f"  … and {len(skipped) - limit} more")


def printable(text: str) -> str:
    """Return text that any terminal can show: bytes that are no UTF-8 and rich's markup are escaped."""
    return escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))
