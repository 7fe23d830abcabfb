"""A progress that is looked at, and may interrupt the work that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial


class Watched:
    """A progress that notes each task's steps, and interrupts the work when a task has come so far.

    Attributes:
        steps: of every call: the task's name, and how far it is.
        totals: the steps that each task announced, by its name.
    """

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[tuple[str, int]] = []
        self.totals: dict[str, int | None] = {}
        self._stop_at = stop_at

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[WatchedTask]:
        self.totals[name] = total
        yield WatchedTask(self, name)

    def note(self, name: str, done: int) -> None:
        self.steps.append((name, done))
        if self._stop_at is not None and done >= self._stop_at:
            raise KeyboardInterrupt


class WatchedTask:
    def __init__(self, watched: Watched, name: str) -> None:
        self._note = partial(watched.note, name)
        self._done = 0

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        self._note(self._done)
