"""What the campaign's parts share: numbers, child processes with limits, a record of what became of tries."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fgdd_fast.cli import main

FORK = multiprocessing.get_context("fork")  # what is imported here is imported in children
HANG = 10.0  # seconds of work that a try may take
MEMORY = 3 << 30  # bytes of addresses that a child may take besides those it begins with
_KEPT = 20  # bad tries of a part that are told in words
_TRACES = re.compile(r"Traceback|Exception ignored|Fatal Python error|Segmentation fault")


def number(name: str, default: float) -> int:
    """One of the campaign's numbers: see `tests/campaign/conftest.py`."""
    return int(float(os.environ.get(f"FGDD_CAMPAIGN_{name}", default)))


SEED = number("SEED", 1)


@dataclass
class Tally:
    """What became of the tries of a part.

    Attributes:
        part: its name.
        outcomes: how many tries ended how.
        bad: those that must not be, in words.
        figures: what else was measured.
    """

    part: str
    outcomes: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def add(self, outcome: str, bad: str = "") -> None:
        """Count a try; `bad` says what is wrong with it."""
        self.outcomes[outcome] += 1
        if bad:
            self.bad.append(f"{outcome}: {bad}")

    def largest(self, name: str, value: float) -> None:
        """Keep the largest value of a figure."""
        self.figures[name] = max(value, self.figures.get(name, value))

    @property
    def in_time(self) -> bool:
        """Whether the part's time box has room."""
        box = number("BOX", 0)
        return not box or time.monotonic() - self.begun < 60 * box

    def to_json(self) -> dict[str, Any]:
        seconds = round(time.monotonic() - self.begun, 1)
        told = {"bad": len(self.bad), "first_bad": self.bad[:_KEPT]} if self.bad else {"bad": 0}
        counts = {"tried": self.outcomes.total(), "outcomes": dict(sorted(self.outcomes.items()))}
        return {**counts, **self.figures, **told, "seconds": seconds}


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit status (negative for a signal), what it said, and its seconds."""

    code: int
    said: str
    seconds: float

    @property
    def trace(self) -> bool:
        """Whether it said what only programmers understand."""
        return bool(_TRACES.search(self.said))

    @property
    def fault(self) -> str:
        """What is wrong with how it ended: nothing, if it succeeded or gave an error in words."""
        if self.trace or self.code < 0:
            return f"ended with {self.code}: {self.said[-600:]}"
        told = self.code == 0 or re.search(r"^(Error|Usage): ", self.said, re.MULTILINE)
        return "" if told else f"ended with {self.code}, and says no error: {self.said[-300:]}"


class Child:
    """A process that was forked to do something, with what it prints in a file.

    Args:
        work: what it does.
        log: the file.
        memory: bytes of addresses that it may take in addition; None for any number.
    """

    def __init__(self, work: Callable[[], object], log: Path, memory: int | None = None) -> None:
        self._log = log
        self._begun = time.monotonic()
        self.process = FORK.Process(target=_begin, args=(work, log, memory))
        self.process.start()

    def wait(self, timeout: float | None = None) -> Ended | None:
        """Wait for its end; None where it goes on."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            return None
        return Ended(code, self._log.read_text(errors="replace"), time.monotonic() - self._begun)

    def kill(self) -> Ended:
        """End it with SIGKILL."""
        self.process.kill()
        ended = self.wait()
        assert ended is not None
        return ended


def _begin(work: Callable[[], object], log: Path, memory: int | None) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(handle, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        work()
    finally:
        sys.stdout.flush()
        log.with_suffix(".modules").write_text("\n".join(sys.modules))


def start(words: Sequence[str], log: Path, before: Callable[[], object] = lambda: None) -> Child:
    """Begin a command of `fgdd-fast` in a child, in which `before` is called first."""

    def work() -> None:
        before()
        main(args=[*words], prog_name="fgdd-fast")

    return Child(work, log)


def run(words: Sequence[str], log: Path, before: Callable[[], object] = lambda: None) -> Ended:
    """Run a command of `fgdd-fast` in a child to its end, which must come within two minutes."""
    child = start(words, log, before)
    return child.wait(120) or Ended(-1, f"hung for two minutes: {child.kill().said}", 120)


def resident() -> int:
    """MiB that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


Try = Callable[[int], tuple[str, str]]
"""Does what has a number; gives how it ended, and what is wrong with that, if anything is."""


def supervise(make: Callable[[], Try], count: int, tally: Tally, log: Path) -> None:
    """Do all tries in children, of which each lives until a try hangs, crashes or takes the memory."""
    done = 0
    while done < count and tally.in_time:
        ours, theirs = FORK.Pipe(duplex=False)
        child = Child(partial(_serve, make, range(done, count), theirs, ours), log, MEMORY)
        theirs.close()
        with ours:
            while not (hung := stuck(child, ours)) and (told := _next(ours)) is not None:
                outcome, bad, memory = told
                tally.largest("most_memory_mib", memory)
                tally.add(outcome, bad and f"{done}: {bad}")
                done += 1
                if done == count or not tally.in_time:
                    break
            ended = child.kill() if hung or done == count or not tally.in_time else child.wait()
        assert ended is not None
        if hung:
            tally.add("hang", f"{done}: over {HANG:g} s")
        elif done < count and tally.in_time:
            tally.add("crash", f"{done}: {ended.code}: {ended.said[-300:]}")
        elif ended.trace:
            tally.add("trace", ended.said[:300])
        done += done < count


def stuck(child: Child, pipe: Any) -> bool:
    """Wait for what a child sends; whether it worked too long for it, or waited six times as long."""
    times = Path(f"/proc/{child.process.pid}/stat")

    def worked() -> float:
        return sum(map(int, times.read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    begun = worked()
    return not any(pipe.poll(HANG) or worked() > begun + HANG + 1 for _ in range(6)) or not pipe.poll(0)


def _next(pipe: Any) -> tuple[str, str, int] | None:
    try:
        return pipe.recv()  # type: ignore[no-any-return]
    except EOFError:
        return None


def _serve(make: Callable[[], Try], numbers: Sequence[int], pipe: Any, other_end: Any) -> None:
    other_end.close()  # so that it notices when nobody reads any more
    attempt = make()
    for place in numbers:
        try:
            outcome, bad = attempt(place)
        except MemoryError as error:
            outcome, bad = "memory", repr(error)
        except Exception as error:  # whatever is not the project's own
            outcome, bad = "foreign", repr(error)[:300]
        pipe.send((outcome, bad, resident()))


def write_record(tally: Tally, file: Path, environment: dict[str, Any]) -> None:
    """Put what became of a part into the record of the campaign, beside the other parts."""
    record = json.loads(file.read_text()) if file.exists() else {"parts": {}}
    record |= {"environment": environment, "seed": SEED}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    record["parts"][tally.part] = {"commit": commit.stdout.strip(), **tally.to_json()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
