"""What a command takes in a process of its own: time, processor time, and the memory at its peak.

    python -m fgdd_bench.machine.child REPORT COMMAND...

Linux counts the peak of a process from that of the process which starts it, so one that has models open would
hide the command's. Therefore this module, which is small, starts the command and writes REPORT.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fgdd_engines.child_python import python_command


@dataclass(frozen=True)
class Usage:
    """What a command took, from its start to its end.

    Attributes:
        seconds: of the clock.
        processor_seconds: of all its threads, in the system too.
        peak_memory: bytes of it in memory at the most (resident set size).
        status: that it ended with; negative where a signal ended it.
    """

    seconds: float
    processor_seconds: float
    peak_memory: int
    status: int


@dataclass(frozen=True)
class Outcome:
    """What a command took and wrote."""

    usage: Usage
    output: str
    errors: str


def run_alone(command: Sequence[str]) -> Outcome:
    """Run a command in a process group of its own; it has ended when this returns or raises."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report, output, errors = (folder / part for part in ("report", "output", "errors"))
        words = python_command("fgdd_bench.machine.child", str(report), *command)
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
            try:
                process.wait()
            except BaseException:
                if process.poll() is None:  # waiting may have seen its end before it was interrupted
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
                raise
        usage = Usage(**json.loads(report.read_text(encoding="utf-8")))
        return Outcome(usage, output.read_text(errors="replace"), errors.read_text(errors="replace"))


def _main(report: str, *command: str) -> None:
    # A signal to the group ends the command, whose end is waited for here; a command gets no handlers.
    signal.signal(signal.SIGTERM, lambda *_: None)
    begin = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = used.ru_maxrss * 1024  # Linux counts in kibibytes
    usage = Usage(seconds, used.ru_utime + used.ru_stime, peak, process.returncode)
    Path(report).write_text(json.dumps(asdict(usage)), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
