"""Run all checks within a budget, those of a place in a process of its own, and tell what is known so far."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from fgdd_bench.gpu_check import child
from fgdd_bench.gpu_check.kit import Kit, open_kit
from fgdd_bench.gpu_check.planning import plan_cases
from fgdd_bench.gpu_check.registry import CHECKS, Case
from fgdd_bench.machine.environment import environment
from fgdd_engines.backends import DEVICES, all_devices, find_backend
from fgdd_engines.base import Device
from fgdd_engines.child_python import python_command
from fgdd_engines.probing.nvidia import has_nvidia_device
from fgdd_engines.probing.probes import ending
from fgdd_engines.progress import SILENT, Progress, Task
from fgdd_fast.models.factory import asked_by_class

BUDGET = 470.0  # seconds
EXIT_CODES = {"ok": 0, "failed": 1, "left": 3}  # by verdict; 2 is that of a command that was misspelt
_ASKED, _ON_PROCESSOR = 2, 4  # times as long a model may take that is asked by name, or a processor
_PATIENCE = 5  # seconds for a process to end; one that its driver holds is left behind
Result = dict[str, Any]


def check_gpu(
    folder: Path,
    *,
    budget: float = BUDGET,
    devices: Sequence[Device] | None = None,
    write: Callable[[Result], None] = lambda _: None,
    progress: Progress = SILENT,
) -> Result:
    """Check what is claimed of each device of this machine.

    Args:
        folder: a kit, as `make_kit` makes it.
        budget: seconds that it takes at the most; what is not asked by then is left.
        devices: those that are checked; all that are known by default.
        write: given the result after each check.
        progress: told how many checks are done.

    Returns:
        `format`, `budget_seconds`, `seconds`, `environment`, `gpu` (whether anything ran on one), `verdict`
        (`ok`, `failed` or `left`), and `checks`, each with `check`, `claim`, `device`, `subject`,
        `precision`, `state` (`ok`, `failed`, `absent` or `left`), `words`, `seconds` and `figures`.

    Raises:
        BundleError: the kit is missing or damaged.
    """
    begin, devices = time.monotonic(), devices or all_devices()
    result: Result = {"format": 1, "budget_seconds": budget, "environment": environment(), "gpu": False}
    with TemporaryDirectory(prefix="fgdd-") as name:
        kit = open_kit(folder, Path(name, "models"), filled=False)
        run = _Run(kit, Path(name), begin, begin + budget, result, write)
        with progress.task("Opening devices", len(devices)) as task:
            run.ask([Case("opens", device) for device in devices], task)
        opened = {row["device"]: row["state"] == "ok" for row in result["checks"]}
        result["gpu"] = any(opened[device] and not find_backend(device).on_processor for device in opened)
        cases = plan_cases(kit, opened)
        with progress.task("Checking", len(cases)) as task:
            run.ask(cases, task)
    return result


@dataclass(frozen=True)
class _Run:
    kit: Kit
    work: Path
    begin: float
    end: float
    result: Result
    write: Callable[[Result], None]
    unbuilt: set[tuple[str, ...]] = field(default_factory=set)  # places of which no engine could be built

    def ask(self, cases: Sequence[Case], task: Task) -> None:
        """Ask cases, those of a place in one process as long as that lives."""
        for _, group in groupby(cases, lambda case: case.place):
            waiting = list(group)
            while waiting:
                for outcome in self._answers(waiting):
                    self._note(waiting.pop(0), outcome)
                    task.advance()

    def _answers(self, cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
        """Yield what becomes of cases, until all are answered, or the process is lost that answers them."""
        cases = tuple(cases)
        if self._left() <= 0:
            yield from [_outcome("left", "the time was over")] * len(cases)
        elif cases[0].place in self.unbuilt:
            yield from [_outcome("absent", "there is no engine")] * len(cases)
        else:
            with self._child(cases) as answer:
                for case in cases:
                    begin = time.monotonic()
                    outcome, lives = answer(min(self._slice(case), max(self._left(), 0)))
                    yield {**outcome, "seconds": round(time.monotonic() - begin, 2)}
                    if not lives or case.place in self.unbuilt:
                        return

    def _left(self) -> float:
        return self.end - time.monotonic()

    def _slice(self, case: Case) -> float:
        """The seconds that a case gets."""
        seconds = CHECKS[case.check].seconds
        if case.subject in self.kit.reference and asked_by_class(self.kit.bundle(case.subject)):
            seconds *= _ASKED
        processor = case.device in DEVICES and find_backend(case.device).on_processor
        return seconds * (_ON_PROCESSOR if processor else 1)

    @contextmanager
    def _child(self, cases: Sequence[Case]) -> Iterator[Callable[[float], tuple[dict[str, Any], bool]]]:
        """Start a process; what is given waits for its next answer, and tells whether it lives on."""
        asked = json.dumps([asdict(case) for case in cases])
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # an empty one at the end
        with (self.work / "log").open("wb+") as log:
            process = subprocess.Popen(
                python_command(child.__name__, str(self.kit.folder), str(self.kit.models), asked),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "FGDD_FAST_CACHE": str(self.work / "cache")},
                start_new_session=True,
            )
            assert process.stdout is not None
            told = chain(iter(process.stdout.readline, b""), (b"",))
            Thread(target=lambda: [*map(lines.put, told)], daemon=True).start()

            def answer(seconds: float) -> tuple[dict[str, Any], bool]:
                try:
                    line = lines.get(timeout=seconds)
                except queue.Empty:
                    if self._left() <= 0:
                        return _outcome("left", "the time was over"), False
                    return _outcome("failed", f"did not end within {seconds:g} seconds"), False
                if line:
                    return json.loads(line), True
                log.seek(0)
                words = ending(process.wait(_PATIENCE), log.read().decode("utf-8", "replace"))
                return _outcome("failed", words), False

            try:
                yield answer
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with all that it started
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE)

    def _note(self, case: Case, outcome: dict[str, Any]) -> None:
        """Add a row to the result, and write it."""
        if case.check == "builds" and outcome["state"] != "ok":
            self.unbuilt.add(case.place)
        row = {**asdict(case), "claim": CHECKS[case.check].claim, "seconds": 0.0, **outcome}
        rows = self.result.setdefault("checks", [])
        rows.append(row)
        states = {row["state"] for row in rows}
        if not self.result["gpu"]:  # one on which nothing runs is as wrong as one that errs
            states.add("failed" if has_nvidia_device() else "left")
        self.result["verdict"] = next((state for state in ("failed", "left") if state in states), "ok")
        self.result["seconds"] = round(time.monotonic() - self.begin, 2)
        self.write(self.result)


def _outcome(state: str, words: str) -> dict[str, Any]:
    return {"state": state, "words": words, "figures": {}}
