"""What does a version of the project take of the processor, as a ratio of what another one takes?

    python -m benchmarks.studies.same_speed --before PYTHON --after PYTHON --clothing FOLDER --json OUT.json

Each PYTHON has one version installed. Both distil the same photographs, with the same teacher and with fresh
stores, in turns whose order alternates, so that slow spells of the machine meet both alike. Of each run all
processor seconds count, in the program and for it in the system. The ratio of a turn is after / before; told
are the ratios' geometric mean and its 95 % interval, by Student's t over their logarithms. Each has one
thread, for threads that wait for each other spin: on a busy machine that would count as work.

This needs the standard library, click and NumPy; it imports nothing of the project, which it runs twice.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.studies.same_cases import FOREGROUND, RUNTIME, CaseError, Version, prepare_cache, sample

PACKAGES = ("fgdd-fast", "numpy", "onnxruntime", "opencv-python", "openvino")
CASE = "speed"


@dataclass(frozen=True)
class Ratio:
    """A ratio of processor seconds over several turns.

    Attributes:
        mean: the geometric mean of the turns' ratios.
        low, high: the ends of its 95 % interval.
    """

    mean: float
    low: float
    high: float


def students_t(freedom: int, level: float = 0.95) -> float:
    """Return the bound that Student's t stays within, to either side, with a probability of `level`.

    Args:
        freedom: the degrees of freedom, at least 1.
        level: below 1.
    """
    shift = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    scale = math.exp(shift) / math.sqrt(freedom * math.pi)
    # With x = tan(angle) * sqrt(freedom) the density becomes a power of the cosine, up to a right angle.
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = 2 * scale * math.sqrt(freedom) * np.cos(angles) ** (freedom - 1)
    steps = (density[1:] + density[:-1]) / 2 * np.diff(angles)
    angle = float(np.interp(level, np.concatenate([[0.0], np.cumsum(steps)]), angles))
    return math.tan(angle) * math.sqrt(freedom)


def ratio(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """Return the ratio after / before of runs that were made in turns, of which there are at least two."""
    logs = np.log(np.array(after) / np.array(before))
    mean, deviation = float(logs.mean()), float(logs.std(ddof=1))
    reach = students_t(len(logs) - 1) * deviation / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def processor_seconds(version: Version, data: Path, teacher: Path) -> float:
    """Distil once from nothing, and return the processor seconds that this took."""
    for name in ("store", "out"):
        shutil.rmtree(version.folder / CASE / name, ignore_errors=True)
    words = ("--ipc", 2, "--teacher", teacher, "--store", "store", *FOREGROUND, *RUNTIME, "--threads", 1)
    process = version.start(CASE, "distill", data, "out", *words)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise CaseError(f"A command failed; see the end of {version.folder / CASE}.log")
    return usage.ru_utime + usage.ru_stime


def environment(python: Path) -> dict[str, object]:
    """Describe the machine, and the packages of a version's environment."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", info.read_text() if info.exists() else "", re.MULTILINE)
    script = (
        "import json, sys; from importlib.metadata import distributions\n"
        "print(json.dumps({each.metadata['Name']: each.version for each in distributions()}))"
    )
    command = [str(python), "-c", script]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, cwd="/").stdout)
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "packages": {name: found.get(name, "absent") for name in PACKAGES},
    }


@click.command()
@click.option("--before", required=True, type=click.Path(exists=True, path_type=Path), metavar="PYTHON")
@click.option("--after", required=True, type=click.Path(exists=True, path_type=Path), metavar="PYTHON")
@click.option("--clothing", required=True, type=click.Path(path_type=Path), help="One folder a class.")
@click.option("--models", type=click.Path(path_type=Path), help="A cache folder with pulled models.")
@click.option("--images", type=click.IntRange(min=2), default=6, show_default=True, help="Of each class.")
@click.option("--turns", type=click.IntRange(min=2), default=15, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(
    before: Path,
    after: Path,
    clothing: Path,
    models: Path | None,
    images: int,
    turns: int,
    output: Path | None,
) -> None:
    """Compare the processor seconds of two versions' `distill`, in turns."""
    conditions = {"before": environment(before.absolute()), "after": environment(after.absolute())}
    with tempfile.TemporaryDirectory(prefix="same-speed-") as folder:
        versions = {
            name: Version(python.absolute(), Path(folder) / name, {})
            for name, python in (("before", before), ("after", after))
        }
        for version in versions.values():
            (version.folder / CASE).mkdir(parents=True)
            prepare_cache(version.folder, models)
        data, teacher = Path(folder) / "data", Path(folder) / "teacher.onnx"
        sample(clothing, data, images)
        seconds: dict[str, list[float]] = {"before": [], "after": []}
        try:
            versions["before"].run(CASE, "teacher", "fit", data, "-o", teacher, "--force", *RUNTIME)
            for name, version in versions.items():
                warm = processor_seconds(version, data, teacher)
                click.echo(f"warming up: {name} {warm:.1f} s")
            for turn in range(turns):
                order = ("before", "after") if turn % 2 == 0 else ("after", "before")
                for name in order:
                    seconds[name].append(processor_seconds(versions[name], data, teacher))
                click.echo(f"turn {turn + 1}: {seconds['before'][-1]:.2f} s, {seconds['after'][-1]:.2f} s")
        except CaseError as error:
            text = (versions["before"].folder / f"{CASE}.log").read_text(errors="replace")
            raise click.ClickException(f"{error}\n{text[-2000:]}") from error
    found = ratio(seconds["before"], seconds["after"])
    click.echo(f"after / before: {found.mean:.4f}, 95 % interval {found.low:.4f} to {found.high:.4f}")
    if output is not None:
        result = {
            "images_per_class": images,
            "turns": turns,
            "ratio": asdict(found),
            "processor_seconds": seconds,
            "environment": conditions,
            "command": "python -m benchmarks.studies.same_speed",
        }
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
