"""What a run costs: time, processor time and memory of this process and of those that it started."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")  # a second


@dataclass(frozen=True)
class Sample:
    """One run: seconds of the clock; those of all threads of this process and of processes it started."""

    seconds: float
    processor_seconds: float


def metered(run: Callable[[], T]) -> tuple[Sample, T]:
    """Run once, and return what that cost beside what it gave."""
    processor, clock = processor_seconds(), time.perf_counter()
    answer = run()
    seconds = time.perf_counter() - clock
    return Sample(seconds, processor_seconds() - processor), answer


def descendants() -> list[int]:
    """The processes that this one started and that still run, and those that they started."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in PROC.iterdir():
        if folder.name.isdecimal() and (fields := _stat(int(folder.name))):
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


def _stat(process: int) -> list[str]:
    """The fields of a process from its state on (proc(5)); none where it has ended meanwhile."""
    try:
        return (PROC / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def processor_seconds() -> float:
    """Processor time of this process, of its children that have ended, and of its descendants."""
    own = os.times()
    # utime, stime, cutime and cstime; a child that ends goes over into its parent's last two.
    ticks = sum(sum(map(int, _stat(process)[11:15])) for process in descendants())
    return time.process_time() + own.children_user + own.children_system + ticks / _TICKS


@dataclass(frozen=True)
class Memory:
    """Bytes in use at the most.

    Attributes:
        process: resident, of this process, since `forget_peak`.
        children: resident, of the processes that it started and that still run, together.
        device: of the GPU, now, by all that run on it; runtimes keep what they once took. None where nothing
            of PyTorch runs on one.
    """

    process: int
    children: int
    device: int | None


def forget_peak() -> None:
    """Let the peak of this process's memory start anew, where the system can (proc(5), clear_refs)."""
    with suppress(OSError):
        (PROC / "self/clear_refs").write_text("5")


def peak_memory() -> Memory:
    """The memory that was in use at the most."""
    torch, device = sys.modules.get("torch"), None
    if torch is not None and torch.cuda.is_initialized():
        held = [gpu for gpu in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(gpu)] or [0]
        device = sum(total - free for free, total in map(torch.cuda.mem_get_info, held))
    return Memory(_peak("self"), sum(map(_peak, descendants())), device)


def _peak(process: int | str) -> int:
    try:
        lines = (PROC / str(process) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
