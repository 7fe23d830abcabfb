"""How long work tells how far it is: one protocol, for whoever wants to show it.

Everything in this project that takes long accepts a `progress`. It tells numbers alone; what is worth reading
goes to `logging`. By default nobody listens.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Task(Protocol):
    """A piece of work that is under way."""

    def advance(self, steps: int = 1) -> None:
        """Tell that so many more steps are done; called in the thread that began the task."""


class Progress(Protocol):
    """Whoever shows how far work is."""

    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Begin a piece of work, which ends with the block, whether it was finished or not.

        Args:
            name: what is done, such as `Measuring`.
            total: its number of steps; None where that is not known.
        """


class _Silent:
    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:  # noqa: ARG002
        return nullcontext(self)

    def advance(self, steps: int = 1) -> None:
        """Nobody listens."""


SILENT: Progress = _Silent()
