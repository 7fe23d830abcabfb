"""Watches a TensorRT build, and stops it when the user does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TypeVar

Result = TypeVar("Result")
Report = Callable[[str, int, int], None]


class Progress:
    """Passes the steps of a build on, and ends the build at the next step once `stop` was called.

    Attributes:
        monitor: the IProgressMonitor for TensorRT, which calls it from several threads.
        error: what the report raised, which ended the build; None where it raised nothing.
    """

    def __init__(self, module: ModuleType, report: Report | None) -> None:
        progress = self

        class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                module.IProgressMonitor.__init__(self)  # pybind11 asks for it by name

            def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
                progress._start(phase, steps)

            def step_complete(self, phase: str, step: int) -> bool:
                return progress._complete(phase, step)

            def phase_finish(self, phase: str) -> None:
                progress._finish(phase)

        self.monitor = Monitor()
        self.error: BaseException | None = None
        self._report = report
        self._steps: dict[str, int] = {}
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the build at its next step."""
        self._stopped.set()

    def _start(self, phase: str, steps: int) -> None:
        self._steps[phase] = steps
        self._tell(phase, 0)

    def _complete(self, phase: str, step: int) -> bool:
        """Whether the build is to go on."""
        self._tell(phase, step + 1)
        return not self._stopped.is_set()

    def _finish(self, phase: str) -> None:
        self._tell(phase, self._steps[phase])

    def _tell(self, phase: str, done: int) -> None:
        if self._report is not None and not self._stopped.is_set():
            try:
                self._report(phase, done, self._steps[phase])
            except BaseException as error:  # it must not unwind TensorRT's own stack
                self.error = error
                self.stop()


def run_interruptibly(build: Callable[[], Result], progress: Progress) -> Result:
    """Run a build in a thread of its own, so that this one hears the user's interrupt.

    Raises:
        KeyboardInterrupt: the user stopped it; the build has ended, at the end of the step it was in.
        Exception: what the build or the report raised.
    """
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(build)
        try:
            result = running.result()
        except KeyboardInterrupt:
            progress.stop()
            raise  # leaving the executor waits for the build to end
    if progress.error is not None:
        raise progress.error
    return result
