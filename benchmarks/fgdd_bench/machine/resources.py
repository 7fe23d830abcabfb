"""What a run costs: time, processor time, energy and memory of this process and of those that it started."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fgdd_bench.machine.nvidia import management

PROC = Path("/proc")
POWERCAP = Path("/sys/class/powercap")
_TICKS = os.sysconf("SC_CLK_TCK")  # a second


@dataclass(frozen=True)
class Sample:
    """One run.

    Attributes:
        seconds: of the clock.
        processor_seconds: of all threads of this process and of the processes that it started.
        joules: of `processor` and `gpu`, where they can be read: of all that ran on them meanwhile.
    """

    seconds: float
    processor_seconds: float
    joules: Mapping[str, float] = field(default_factory=dict)


class Meter:
    """Measures what runs within its `with` block; `sample` is there when it has ended."""

    sample: Sample

    def __enter__(self) -> Meter:
        self._energy = energy()
        self._processor = processor_seconds()
        self._clock = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._clock
        processor = processor_seconds() - self._processor
        now = energy()
        joules = {name: now[name].since(before) for name, before in self._energy.items() if name in now}
        self.sample = Sample(seconds, processor, joules)


def descendants(proc: Path = PROC) -> list[int]:
    """The processes that this one started and that still run, and those that they started."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in proc.iterdir():
        if folder.name.isdecimal() and (fields := _stat(folder)):
            children[int(fields[1])].append(int(folder.name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        started = children[waiting.pop()]
        found += started
        waiting += started
    return found


def end_descendants() -> None:
    """End the processes that this one started, and those that they started."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler takes the end of a worker for a failure
    for process in descendants():
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def _stat(folder: Path) -> list[str]:
    """The fields of a process from its state on (proc(5)); none where it has ended meanwhile."""
    try:
        return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def processor_seconds(proc: Path = PROC) -> float:
    """Processor time of this process, of its children that have ended, and of its descendants."""
    own = os.times()
    total = time.process_time() + own.children_user + own.children_system
    for process in descendants(proc):
        # utime, stime, cutime and cstime; a child that ends goes over into its parent's last two.
        total += sum(map(int, _stat(proc / str(process))[11:15])) / _TICKS
    return total


@dataclass(frozen=True)
class Counter:
    """A counter of energy.

    Attributes:
        joules: what it shows.
        span: where it starts again from 0; None where it never does.
    """

    joules: float
    span: float | None = None

    def since(self, before: Counter) -> float:
        """Joules since an earlier reading."""
        used = self.joules - before.joules
        return used + self.span if used < 0 and self.span is not None else used


def energy(powercap: Path = POWERCAP) -> dict[str, Counter]:
    """What the counters of the processor (RAPL) and of the first GPU show, where they are readable."""
    counters: dict[str, Counter] = {}
    packages = list(_packages(powercap))
    if len(packages) == 1:  # several would have to be told apart, for each starts again on its own
        counters["processor"] = packages[0]
    gpu = management()
    if gpu is not None and (joules := gpu.joules()) is not None:
        counters["gpu"] = Counter(joules)
    return counters


def _packages(powercap: Path) -> Iterator[Counter]:
    for zone in sorted(powercap.glob("intel-rapl:?")):  # its parts are called intel-rapl:0:0 and so on
        with suppress(OSError, ValueError):
            values = [int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")]
            yield Counter(values[0] / 1e6, values[1] / 1e6)


@dataclass(frozen=True)
class Memory:
    """Bytes in use at the most.

    Attributes:
        process: resident, of this process, since `forget_peak`.
        children: resident, of the processes that it started and that still run, together.
        device: of the first GPU, now, by all that run on it; runtimes keep what they once took. None without
            a GPU.
    """

    process: int
    children: int
    device: int | None


def forget_peak(proc: Path = PROC) -> None:
    """Let the peak of this process's memory start anew, where the system can (proc(5), clear_refs)."""
    with suppress(OSError):
        (proc / "self/clear_refs").write_text("5")


def peak_memory(proc: Path = PROC) -> Memory:
    """The memory that was in use at the most."""
    gpu = management()
    return Memory(
        _peak(proc / "self"),
        sum(_peak(proc / str(process)) for process in descendants(proc)),
        None if gpu is None else gpu.memory_used(),
    )


def _peak(folder: Path) -> int:
    try:
        lines = (folder / "status").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else 0
