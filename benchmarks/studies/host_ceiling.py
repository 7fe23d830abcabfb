"""How many images a second can the host feed to a device, and what stands in the way of more?

    python -m benchmarks.studies.host_ceiling DATA --teacher teacher.onnx --json host-ceiling.json

Images are measured with the null device, which copies what it is fed and computes nothing, into a fresh store
each time: on one core, on two, and with what releases Python's interpreter lock (decoding, resizing,
compressing, copying) left out, so that what remains runs one thread at a time whatever the cores. The driving
thread's own time is read besides. Of the reading, decoding and resizing alone, in one thread and without any
pipeline, it is told what share they are of the whole. Turns are interleaved; figures are medians of processor
time, which other programs change less than they change seconds.

What `--cores` cores would reach is projected: the least of what they do side by side, of what the interpreter
lock lets through, and of what the driving thread does. With `--before PYTHON`, an interpreter in which an
earlier version is installed, that one takes turns at the same images, with its own defaults, as `measure`
does, on a device of the same kind. Kept result: `host-ceiling.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.studies.study import Study, data_argument, number_option, read_images, study
from fgdd_fast.errors import FgddError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.network import check_classes
from fgdd_fast.runtime.choose import available_processors

RUNNER = Path(__file__).with_name("runs") / "host.py"
COLUMNS = {
    "way": "",
    "cores": "d",
    "images_a_second": ".0f",
    "processor_ms": ".2f",
    "driving_thread_ms": ".3f",
}

Row = dict[str, Any]


@study
@data_argument
@click.option("--teacher", required=True, metavar="BUNDLE")
@click.option("--foreground", default="saliency-u2netp", show_default=True, metavar="BUNDLE")
@number_option("--images", 600)
@number_option("--turns", 5)
@number_option("--cores", 16, "For which is projected.")
@click.option("--before", metavar="PYTHON", help="Has an earlier version.")
def main(
    study: Study,
    data: Path,
    teacher: str,
    foreground: str,
    images: int,
    turns: int,
    cores: int,
    before: str | None,
) -> None:
    """Measure images of DATA with the null device."""
    dataset, found = read_images(data)
    bundles = find_bundle(foreground, "foreground"), find_bundle(teacher, "teacher")
    check_classes(bundles[1], dataset.classes)
    if bundles[0].prompting is not None:
        raise SettingsError(f"{foreground} is asked in words", "Name a saliency model.")
    given = [str(data.absolute()), *(str(bundle.onnx.absolute()) for bundle in bundles)]
    sources = [image.source for image in drawn(found, images)]
    ways = [*(("whole", used) for used in (1, 2) if used <= available_processors())]
    ways += [("interpreter", 1), ("pixels", 1)]
    pythons = {"now": sys.executable} | ({} if before is None else {"before": before})
    plan = [(who, way, used) for who in pythons for way, used in ways if who == "now" or way == "whole"]
    samples: dict[tuple[str, str, int], list[Row]] = {each: [] for each in plan}
    for turn in study.track(range(turns), "Turns"):
        for who, way, used in plan[turn % len(plan) :] + plan[: turn % len(plan)]:
            samples[who, way, used].append(run(pythons[who], way, used, given, sources))
    rows = [{"version": each[0], "way": each[1], "cores": each[2], **medians(samples[each])} for each in plan]
    facts: Row = {"images": len(sources), "turns": turns, "projection": projection(rows, cores)}
    if before is not None:
        facts["faster"] = {str(used): spread(samples, used) for way, used in ways if way == "whole"}
    study.report(rows, {"version": "", **COLUMNS}, **facts)
    for name, value in facts["projection"].items():
        click.echo(f"{name.replace('_', ' ')}: {value}")


def drawn(images: Sequence[SourceImage], count: int) -> Iterator[SourceImage]:
    """Give so many images, evenly from all."""
    step = max(1, len(images) // count)
    yield from images[::step][:count]


def run(python: str, way: str, cores: int, given: Sequence[str], sources: Sequence[str]) -> Row:
    """Run one way on some cores in a process of its own; FgddError where it fails."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    process = subprocess.run(
        [python, str(RUNNER), way, *given],
        input="\n".join(sources).encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    if process.returncode:
        words = process.stderr.decode("utf-8", "replace").strip().splitlines()
        raise FgddError(f"Measuring failed: {words[-1] if words else process.returncode}")
    found: Row = json.loads(process.stdout)
    return found


def medians(samples: Sequence[Row]) -> Row:
    """Return the median of each figure, and all samples."""
    return {**{name: median(row[name] for row in samples) for name in samples[0]}, "samples": list(samples)}


def spread(samples: dict[tuple[str, str, int], list[Row]], cores: int) -> Row:
    """Return how many times as fast it is now: median, lowest and highest of the turns, in both measures."""
    pairs = list(zip(samples["before", "whole", cores], samples["now", "whole", cores], strict=True))
    ratios = {
        "images_a_second": [now["images_a_second"] / then["images_a_second"] for then, now in pairs],
        "processor_ms": [then["processor_ms"] / now["processor_ms"] for then, now in pairs],
    }
    return {name: [median(each), min(each), max(each)] for name, each in ratios.items()}


def projection(rows: Sequence[Row], cores: int) -> Row:
    """Return the images a second that cores would reach, by what bounds them; the least is the projection."""
    whole, interpreter, pixels = (
        next(row for row in rows if row["version"] == "now" and (row["way"], row["cores"]) == (way, 1))
        for way in ("whole", "interpreter", "pixels")
    )
    bounds = {
        f"{cores}_cores": 1000 * cores / whole["processor_ms"],
        "interpreter_lock": 1000 / interpreter["processor_ms"],
        "driving_thread": 1000 / interpreter["driving_thread_ms"],
    }
    return {
        **{name: round(value) for name, value in bounds.items()},
        "projected": round(min(bounds.values())),
        "pixels_share": round(pixels["processor_ms"] / whole["processor_ms"], 3),
    }


if __name__ == "__main__":
    main()
