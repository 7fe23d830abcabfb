"""How do time, memory and the store grow with the number of images, and what would ImageNet-1K take?

    python -m benchmarks.studies.scale DATA --teacher BUNDLE --counts 100,1000,10000 --json scale.json

For each number of images, `fgdd-fast measure`, the same again, and `fgdd-fast distill` run in processes of
their own, on one store. The images are links to photographs of DATA; where these run out, copies with a
number in a JPEG comment, which are other bytes and the same pixels, because the store would know a second
link. How cost grows does not depend on how much a network computes, so quick ones are taken by default. A
line through the times of each command says what `--project` images would take on this machine, with these
models. Kept result: `scale.json`.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from benchmarks.studies.study import Study, data_argument, number_option, runtime_options, study
from fgdd_engines.child_python import python_command
from fgdd_fast.errors import DataError, FgddError
from fgdd_fast.images.dataset import DataSet, SourceImage, scan
from fgdd_fast.images.tiles import SCORE_VIEWS
from fgdd_fast.seeding import seeded_hash

COMMANDS = ("measure", "measure again", "distill")  # all is measured; nothing is missing; mosaics are made
FIGURES = ("seconds", "processor_seconds", "peak_memory")
IMAGENET = 300_000  # pools of 300 images of 1,000 classes
LINEAR = 0.10  # share by which the time of an image may differ between the numbers of images compared
STANDARD = 1000  # images, or the number nearest to it: what an image takes there is the standard
FLAT = 5e6  # bytes by which the peak of memory may grow with each 1,000 images
COLUMNS = {
    "images": ",d",
    **dict.fromkeys(COMMANDS, "s"),
    "milliseconds_an_image": ".1f",
    "store_bytes": ",d",
}
_SAID = re.compile(r"^(\d+) images measured in .*; (\d+) were known; (\d+) skipped\.$", re.MULTILINE)
_START, _COMMENT = b"\xff\xd8", b"\xff\xfe"  # ITU-T T.81, table B.1: start of image, comment

Row = dict[str, Any]


def _numbers(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    words = {word.strip() for word in text.split(",")}
    if not all(word.isdecimal() and int(word) > 0 for word in words) or len(words) < 2:
        raise click.BadParameter(f"{text!r} is not two or more numbers with commas between.")
    return tuple(sorted(map(int, words)))


@study
@data_argument
@click.option("--teacher", required=True, metavar="BUNDLE")
@click.option("--counts", default="100,300,1000,3000,10000", show_default=True, callback=_numbers)
@click.option("--foreground", default="saliency-u2netp-128", show_default=True)
@click.option("--score-view", type=click.Choice(SCORE_VIEWS), default="native", show_default=True)
@number_option("--repeats", 1, "Of all numbers, in turns.")
@number_option("--crops", 5)
@number_option("--size", 224, "Side of a mosaic in pixels.")
@number_option("--ipc", 10, "Mosaics of a class.")
@number_option("--project", IMAGENET, "Images that the lines are drawn on to.")
@runtime_options
def main(
    study: Study, data: Path, counts: tuple[int, ...], repeats: int, ipc: int, project: int, **options: Any
) -> None:
    """Measure growth on images made of the photographs of DATA."""
    photographs = distinct_photographs(scan(data))
    given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    sizes = [counts[0], *(count for _ in range(repeats) for count in counts)]  # the first warms up
    measured = [run_size(photographs, count, given, ipc) for count in study.track(sizes, "Numbers of images")]
    rows = measured[1:]
    for row in rows:
        row["milliseconds_an_image"] = 1000 * _each(row, "seconds")
    verdicts = judge(rows, project)
    study.report(rows, COLUMNS, photographs=len(photographs), verdicts=verdicts, show=False)
    study.show([{**row, **{name: _words(row[name]) for name in COMMANDS}} for row in rows], COLUMNS)
    for name, found in verdicts.items():
        facts = (f"{key} {value}" for key, value in found.items())
        click.echo(f"{name}: {', '.join(facts)}".replace("_", " "))


def _words(usage: Row) -> str:
    return f"{usage['seconds']:.1f} s, {usage['peak_memory'] / 1e6:.0f} MB"


def distinct_photographs(dataset: DataSet) -> tuple[SourceImage, ...]:
    """Return the JPEG files of a data set, each content once; classes in turn, in a drawn order within each.

    Raises:
        DataError: there is none, or a file cannot be read.
    """
    by_class: dict[str, list[SourceImage]] = {name: [] for name in dataset.classes}
    seen: set[bytes] = set()
    drawn = sorted(dataset.images, key=lambda image: seeded_hash("fgdd scale", 0, image.source).digest())
    for image in drawn:
        try:
            content = image.path.read_bytes()
        except OSError as error:
            raise DataError(f"{image.path} cannot be read: {error.strerror}") from error
        digest = hashlib.sha256(content).digest()
        if content.startswith(_START) and digest not in seen:
            seen.add(digest)
            by_class[image.class_name].append(image)
    found = tuple(image for turn in zip_longest(*by_class.values()) for image in turn if image is not None)
    if not found:
        raise DataError(f"No image in {dataset.root} is a JPEG file", "Name a folder of photographs.")
    return found


def numbered_copy(content: bytes, number: int) -> bytes:
    """Return a JPEG file of other bytes and the same pixels: the number is a comment in it."""
    text = str(number).encode("ascii")
    return b"".join((_START, _COMMENT, struct.pack(">H", 2 + len(text)), text, content[2:]))


def make_data_set(photographs: Sequence[SourceImage], count: int, folder: Path) -> None:
    """Make `folder/<class>/<number>.jpg` of `count` images, no two of the same bytes: links, then copies."""
    for place in range(count):
        turn, index = divmod(place, len(photographs))
        image = photographs[index]
        target = folder / image.class_name / f"{place:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        if turn == 0:
            target.symlink_to(image.path.absolute())
        else:
            target.write_bytes(numbered_copy(image.path.read_bytes(), turn))


def run_size(photographs: Sequence[SourceImage], images: int, options: Sequence[str], ipc: int) -> Row:
    """Measure a number of images, measure them again, and distil them, on one store.

    Raises:
        FgddError: a command failed, or did not do what it should; the message has its words.
    """
    with tempfile.TemporaryDirectory(prefix="fgdd-fast-scale-") as name:
        data, store, out = (Path(name, part) for part in ("data", "store", "out"))
        make_data_set(photographs, images, data)
        common = ["--pool", "all", "--store", str(store), *options]
        first, again = (
            _run(Path(name), ["measure", str(data), *common], images, known) for known in (False, True)
        )
        size = sum(file.stat().st_size for file in store.iterdir())
        distilled = _run(Path(name), ["distill", str(data), str(out), "--ipc", str(ipc), *common], images)
    return {
        "images": images,
        **dict(zip(COMMANDS, (first, again, distilled), strict=True)),
        "store_bytes": size,
    }


def _run(folder: Path, words: Sequence[str], images: int, known: bool | None = None) -> Row:
    """Run a command, and return its time, processor time, and memory at its peak.

    Linux counts the peak from that of the process which starts it: this one, which holds no model.
    """
    output, errors = folder / "output", folder / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        begin = time.perf_counter()
        process = subprocess.Popen(python_command("fgdd_fast", *words), stdout=out, stderr=err)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode:
        text = errors.read_text(errors="replace")[-1000:]
        raise FgddError(f"'fgdd-fast {words[0]}' failed on {images} images: {text}")
    said = _SAID.search(text := output.read_text(errors="replace"))
    expected = (0, images, 0) if known else (images, 0, 0)
    if known is not None and (said is None or tuple(map(int, said.groups())) != expected):
        raise FgddError(f"'fgdd-fast measure' was to measure {images} images, and said: {text.strip()}")
    processor = used.ru_utime + used.ru_stime
    return {"seconds": seconds, "processor_seconds": processor, "peak_memory": used.ru_maxrss * 1024}


def fit_line(images: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Return (start, slope) of the line with the least squares of relative errors, which grow with times."""
    measured = np.asarray(values, np.float64)
    design = np.stack([np.ones(len(measured)), np.asarray(images, np.float64)], axis=1)
    (start, slope), *_ = np.linalg.lstsq(design / measured[:, None], np.ones(len(measured)), rcond=None)
    return float(start), float(slope)


def _each(row: Row, figure: str) -> float:
    """Return what measuring takes an image: the first run less the second one, which measures nothing."""
    return float(row["measure"][figure] - row["measure again"][figure]) / int(row["images"])


def judge(rows: Sequence[Row], project: int) -> dict[str, Row]:
    """Return whether time is linear and memory flat, how the store grows, and what more images would take."""
    images = [row["images"] for row in rows]
    counts = sorted(set(images))
    standard, largest = min(counts[:-1], key=lambda count: abs(count - STANDARD)), counts[-1]
    ratio, processor_ratio = (
        median(_each(row, figure) for row in rows if row["images"] == largest)
        / median(_each(row, figure) for row in rows if row["images"] == standard)
        for figure in FIGURES[:2]
    )
    lines = {
        command: {figure: fit_line(images, [row[command][figure] for row in rows]) for figure in FIGURES}
        for command in COMMANDS
    }
    growth = {command: 1000 * lines[command]["peak_memory"][1] for command in COMMANDS}
    projected = {
        command: lines[command]["seconds"][0] + lines[command]["seconds"][1] * project for command in COMMANDS
    }
    further = projected["distill"] - projected["measure again"]
    return {
        "time": {
            "linear": all(abs(each - 1) <= LINEAR for each in (ratio, processor_ratio)),
            "compared": [standard, largest],
            "ratio": round(ratio, 4),
            "processor_ratio": round(processor_ratio, 4),
        },
        "memory": {
            "flat": all(each <= FLAT for each in growth.values()),
            **{f"{command} bytes per 1000 images": round(each) for command, each in growth.items()},
        },
        "store": {"bytes_per_image": round(fit_line(images, [row["store_bytes"] for row in rows])[1])},
        f"{project} images": {"seconds": round(projected["measure"] + further)},
    }


if __name__ == "__main__":
    main()
