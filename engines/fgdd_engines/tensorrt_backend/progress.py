"""Watches a TensorRT build, and stops it when the user does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from types import ModuleType
from typing import TypeVar

from fgdd_engines.progress import Task

Result = TypeVar("Result")
_PAUSE = 0.2  # seconds between two looks at how far a build is


class BuildMonitor:
    """Counts the steps of a build, and ends the build at the next step once `stop` was called.

    `monitor` is the IProgressMonitor for TensorRT, which calls it from several threads.
    """

    def __init__(self, module: ModuleType) -> None:
        self._steps = 0
        self._counting = threading.Lock()
        self._stopped = threading.Event()
        count, stopped = self._count, self._stopped

        class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                module.IProgressMonitor.__init__(self)  # pybind11 asks for it by name

            def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
                """Steps alone are counted: phases lie in each other."""

            def step_complete(self, _phase: str, _step: int) -> bool:
                count()
                return not stopped.is_set()

            def phase_finish(self, phase: str) -> None:
                """See `phase_start`."""

        self.monitor = Monitor()

    def stop(self) -> None:
        """End the build at its next step."""
        self._stopped.set()

    def take(self) -> int:
        """Return how many steps were done since the last call."""
        with self._counting:
            steps, self._steps = self._steps, 0
        return steps

    def _count(self) -> None:
        with self._counting:
            self._steps += 1


def run_interruptibly(build: Callable[[], Result], monitor: BuildMonitor, task: Task) -> Result:
    """Run a build in a thread of its own, so that this one hears the user's interrupt and tells of its steps.

    Raises what the build or the task raised; KeyboardInterrupt only when the build has ended its step.
    """
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(build)
        try:
            while not wait([running], _PAUSE).done:
                task.advance(monitor.take())
            task.advance(monitor.take())
            return running.result()
        except BaseException:
            monitor.stop()
            raise  # leaving the executor waits for the build to end
