"""How many of the batch tool's tiles does a stream give, and what memory does it take?

    python -m benchmarks.studies.streams DATA --teacher teacher.onnx --store FOLDER --json streams.json

For the first, each image of DATA is measured once, into a store; the records go through `Candidates` in a
random order, with samples that hold a class and samples that do not. For the second, with `--frames`, so many
different frames are made of the images, cut and compressed anew, and streamed by all of the product; the
memory of the process is noted at every checkpoint. Kept results: `streams-imagenette.json`,
`streams-clothing.json`, `streams-memory.json`, `-long`, `-foreground` and `-foreground-2`.
"""

from __future__ import annotations

import math
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

import fgdd_fast
from benchmarks.studies.study import Study, data_argument, number_option, read_images, runtime_options, study
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import read_image
from fgdd_fast.options import MeasureOptions, PlanOptions
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.selection.records import ImageRecord
from fgdd_fast.selection.select import select
from fgdd_fast.streaming.bounds import RANKINGS
from fgdd_fast.streaming.budgets import memory_used
from fgdd_fast.streaming.candidates import Candidates
from fgdd_fast.streaming.checkpoint import decide_class

ASKED: dict[str, dict[str, Any]] = {
    "whole": {"rule": "always-full"},
    "foreground": {"rule": "quantile:0.3"},
    "foreground, whole first": {"rule": "quantile:0.3", "ranking": "whole-first"},
}
ORDERS = 3
COLUMNS = {
    "settings": "",
    "reservoir": "d",
    "classes": "d",
    "tiles": "d",
    "same": ".1%",
    "worst_class": ".1%",
}
COLUMNS |= {"threshold_off": ".4f", "kept": "d"}


@study
@data_argument
@click.option("--teacher", required=True, metavar="BUNDLE", help="Knows the classes of DATA.")
@click.option("--store", type=click.Path(path_type=Path), metavar="FOLDER", help="Keeps what is measured.")
@click.option("--foreground", default="saliency-u2netp", show_default=True, help="For memory, may be none.")
@number_option("--pool", 120, "Images of each class.")
@number_option("--size", 224, "Side of a mosaic in pixels.")
@number_option("--ipc", 10, "Mosaics of each class.")
@number_option("--frames", None, "Note the memory that so many frames take.")
@number_option("--minutes", None, "Make no more frames after that.")
@number_option("--memory", None, "Hold the process to so many MiB.")
@click.option("--score-view", default="pad", show_default=True, help="How a tile is shown to the teacher.")
@runtime_options
def main(
    study: Study,
    data: Path,
    teacher: str,
    store: Path | None,
    frames: int | None,
    minutes: int | None,
    memory: int | None,
    **options: Any,
) -> None:
    """Hold streams of the images of DATA to the batch tool."""
    names = ("foreground", "pool", "size", "ipc", "score_view")
    plain = {name: options.pop(name) for name in names}
    runtime, ipc = RuntimeOptions(**options), plain.pop("ipc")
    if frames is not None:
        plain.pop("pool")
        _, images = read_images(data)
        asked = {**plain, "teacher": teacher, "ipc": ipc, "memory": memory}
        made = made_frames(images, frames, until=time.monotonic() + 60 * (minutes or math.inf))
        rows, counts = taken(made, runtime, max(frames // 100, 1), **asked)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        study.report(rows, {"frames": "d", "mib": "d"}, frames=frames, counts=counts, peak_mib=peak)
        return
    given = {**plain, "teacher": teacher, **({} if store is None else {"store": store})}
    with fgdd_fast.open_pipeline(data, runtime=runtime, **given) as pipeline:
        found = []
        for name, asked in ASKED.items():
            settings = PlanOptions(ipc=ipc, **asked).settings(MeasureOptions(**given))
            classes = measured(pipeline, settings)
            found += [agreement(name, classes, settings, size) for size in (1000, 100, 50)]
            study.report(found, COLUMNS, show=name == [*ASKED][-1], pool=plain["pool"], ipc=ipc)


def measured(pipeline: Pipeline, settings: MosaicSettings) -> dict[str, list[ImageRecord]]:
    """The records of each class."""
    measurer = pipeline.measurer(settings.selection)
    measurer.measure(pipeline.images)
    classes: dict[str, list[ImageRecord]] = {name: [] for name in pipeline.dataset.classes}
    for record in measurer.records(pipeline.images):
        if isinstance(record, ImageRecord):
            classes[record.class_name].append(record)
    return classes


def agreement(
    name: str, classes: dict[str, list[ImageRecord]], settings: MosaicSettings, reservoir: int
) -> dict[str, Any]:
    """How many tiles of each class are the same, in several random orders."""
    count = settings.tiles_per_class
    shares, off, kept = [], [], 0
    for order in range(ORDERS):
        for class_name, records in classes.items():
            ranking = RANKINGS[settings.selection.ranking]
            batch = select(records, settings.rule, count, settings.seed, ranking, settings.selection)
            shuffled = random.Random(order).sample(records, len(records))
            with closing(Candidates(Path(":memory:"), settings, reservoir=reservoir)) as candidates:
                for record in shuffled:
                    views = (record.full, *record.crops)
                    candidates.add(record, {view.box: np.zeros((8, 8, 3), np.uint8) for view in views})
                candidates.commit()
                streamed = decide_class(candidates, class_name, settings).selection
                kept += len(candidates.records(class_name))
            same = {(t.sha256, t.box) for t in batch.tiles} & {(t.sha256, t.box) for t in streamed.tiles}
            shares.append(len(same) / count)
            off.append(abs(streamed.threshold - batch.threshold))
    return {
        "settings": name,
        "reservoir": reservoir,
        "classes": len(classes),
        "tiles": count,
        "same": float(np.mean(shares)),
        "worst_class": min(shares),
        "threshold_off": max(off),
        "kept": kept // (ORDERS * len(classes)),  # images of a class
    }


def made_frames(
    images: Sequence[SourceImage], count: int, *, until: float = math.inf
) -> Iterator[tuple[str, bytes]]:
    """Different frames, each a part of an image of 0.7 to 1 of its sides, compressed anew."""
    draw = random.Random(0)
    for number in range(count):
        if time.monotonic() > until:
            return
        image = draw.choice(images)
        try:
            pixels = read_image(image.path).pixels
        except DataError:
            continue
        height, width = (int(side * draw.uniform(0.7, 1)) for side in pixels.shape[:2])
        top, left = (
            draw.randint(0, side - part) for side, part in zip(pixels.shape, (height, width), strict=False)
        )
        part = cv2.cvtColor(pixels[top : top + height, left : left + width], cv2.COLOR_RGB2BGR)
        yield f"{image.class_name}/{number:06d}.jpg", cv2.imencode(".jpg", part)[1].tobytes()


def taken(
    frames: Iterator[tuple[str, bytes]], runtime: RuntimeOptions, every: int, **asked: Any
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The memory of the process while frames are streamed, now and then; and what became of them."""
    rows: list[dict[str, Any]] = []

    def watched() -> Iterator[tuple[str, bytes]]:
        for number, frame in enumerate(frames, 1):
            if number % every == 0:
                rows.append({"frames": number, "mib": memory_used() >> 20})
            yield frame

    with tempfile.TemporaryDirectory() as folder:
        done = fgdd_fast.stream(watched(), Path(folder) / "out", runtime=runtime, **asked)
    return rows, done.counts
