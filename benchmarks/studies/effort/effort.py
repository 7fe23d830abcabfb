"""Does looking closer only where it matters decide as looking closely everywhere does, and what does it save?

    python -m benchmarks.studies.effort DATA --teacher teacher.onnx --store FOLDER --json effort.json

Takes every look at the images of DATA once, into a store, and decides from them: by the foreground model
alone; by the same in a mirror, which is how well it agrees with itself; and with each quick model, in three
ways: alone, with closer looks at what lies within a margin of its class's threshold, and as
`--foreground-effort decide` does. What a look takes of the processor is measured in turns, and what a way
takes follows from its looks. Kept results: `effort-imagenette.json`, `effort-clothing.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from benchmarks.studies.study import Study, data_argument, number_option, read_images, runtime_options, study
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import DataSet, SourceImage
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.measurement.effort import SAMPLE, SAMPLE_SHARE, look_where_needed
from fgdd_fast.measurement.looks import Looks, Mirrored
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundModel, Pixels
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Teacher, open_teacher
from fgdd_fast.options import FOREGROUND_RULE, MeasureOptions, PlanOptions
from fgdd_fast.planning import Measurements, MosaicSettings, decide
from fgdd_fast.runtime.choose import RuntimeOptions, runtime_of
from fgdd_fast.selection.records import ImageRecord

QUICK = tuple(f"saliency-u2netp-{side}" for side in (128, 160, 192, 256))
MARGINS = (0.02, 0.05, 0.08)
TURNS = 3  # of which the quickest counts
# Shares of the images that are looked at closely, of equal paths of all images, and of equal tiles; what a
# way takes of the processor, as a share of what the closer look at every image takes: for the foreground
# alone, and with decoding and the teacher.
COLUMNS = {"quick": "", "way": "", "closer": ".1%", "paths": ".1%", "tiles": ".1%"}
COLUMNS |= {"foreground_time": ".2f", "whole_time": ".2f"}


@study
@data_argument
@click.option("--teacher", required=True, metavar="BUNDLE", help="Scores the tiles.")
@click.option("--foreground", default="saliency-u2netp", show_default=True, help="Looks closely.")
@click.option("--quick", "quicks", multiple=True, default=QUICK, show_default=True, metavar="NAME|BUNDLE")
@click.option("--store", type=click.Path(path_type=Path), required=True, help="Keeps what was measured.")
@number_option("--pool", 60, "Images of each class.")
@number_option("--tiles", 8, "Tiles of each class; by default the share that IPC 10 takes of 300 images.")
@number_option("--timed", 10, "Images by which looks are timed.")
@runtime_options
def main(
    study: Study,
    data: Path,
    teacher: str,
    foreground: str,
    quicks: Sequence[str],
    store: Path,
    pool: int,
    tiles: int,
    timed: int,
    **options: Any,
) -> None:
    """Compare quick and closer looks at the images of DATA."""
    dataset, images = read_images(data, pool)
    runtime = RuntimeOptions(batch=1, **options)
    with ExitStack() as stack:
        opened = stack.enter_context(Store(store))
        models = {name: _foreground(stack, name, dataset, runtime) for name in (foreground, *quicks)}
        bundle = find_bundle(teacher, "teacher")
        side = bundle.preprocessing.width // 2  # of a tile: the default's, by a teacher of 224 pixels
        judge = open_teacher(
            bundle,
            runtime=lambda bundle: runtime_of(bundle, runtime),
            view="pad",
            tile_size=side,
            batch=VIEWS_PER_INFERENCE,
        )
        stack.enter_context(closing(judge))
        settings = PlanOptions(ipc=tiles, rule=FOREGROUND_RULE).settings(MeasureOptions(size=side, factor=1))
        measuring = MeasureSettings(5, 0, "area", 1, runtime.threads, shares=True)
        case = Case(dataset, images, settings, measuring, judge, opened)
        seconds = _seconds(judge, models, study.track(images[:: max(len(images) // timed, 1)], "Timing"))
        rows = list(_rows(study, case, models[foreground], [models[name] for name in quicks], seconds))
    facts: dict[str, Any] = {
        "images": len(images),
        "tiles": tiles,
        "rule": str(settings.rule),
        "seconds": seconds,
    }
    study.report(rows, COLUMNS, runtime=models[foreground].description, **facts)


@dataclass(frozen=True)
class Case:
    """What is decided, of which images, and where measurements lie."""

    dataset: DataSet
    images: Sequence[SourceImage]
    settings: MosaicSettings
    measuring: MeasureSettings
    teacher: Teacher
    store: Store

    def measured(self, foreground: ForegroundModel) -> Measurer:
        """Measure all images with a foreground model."""
        measurer = Measurer(foreground, self.teacher, self.measuring, self.store, self.dataset.classes)
        measurer.measure(self.images)
        return measurer

    def looks(self, quick: ForegroundModel, foreground: ForegroundModel) -> Looks:
        """Return fresh looks by these models."""
        return Looks(quick, foreground, self.teacher, self.measuring, self.store, self.dataset.classes)

    def decided(self, measurements: Measurements) -> tuple[dict[str, bool], set[tuple[Any, ...]]]:
        """Return which images reach their class's threshold, and the tiles that are taken."""
        plan = decide(self.dataset, self.images, measurements, self.settings)
        whole = {
            source: occupancy >= part.selection.threshold
            for part in plan.classes
            for source, occupancy in part.occupancies.items()
        }
        taken = (tile for part in plan.classes for tile in part.selection.tiles)
        return whole, {(tile.source, tile.kind, tile.box) for tile in taken}


def _foreground(stack: ExitStack, name: str, dataset: DataSet, runtime: RuntimeOptions) -> ForegroundModel:
    model = open_foreground(
        choose_foreground(name, dataset.classes),
        runtime=lambda bundle: runtime_of(bundle, runtime),
        batch=1,
        resize="area",
        threads=runtime.threads,
    )
    return stack.enter_context(closing(model))


def _rows(
    study: Study,
    case: Case,
    foreground: ForegroundModel,
    quicks: Sequence[ForegroundModel],
    seconds: Mapping[str, float],
) -> Iterator[dict[str, Any]]:
    whole, tiles = case.decided(case.measured(foreground))
    count, closely = len(case.images), seconds[foreground.name]

    def row(quick: str, way: str, found: Measurements, closer: int, mirrored: int = 0) -> dict[str, Any]:
        paths, taken = case.decided(found)
        took = (seconds[quick] if quick else 0.0) + (closer + mirrored) / count * closely
        return {
            "quick": quick,
            "way": way,
            "closer": closer / count,
            "mirrored": mirrored / count,
            "paths": float(np.mean([paths[source] == side for source, side in whole.items()])),
            "tiles": len(tiles & taken) / len(tiles),
            "foreground_time": took / closely,
            "whole_time": (seconds["rest"] + took) / (seconds["rest"] + closely),
        }

    yield row("", "closely, mirrored", case.measured(Mirrored(foreground)), count)
    for model in study.track(quicks, "Looks"):
        yield row(model.name, "alone", case.measured(model), 0)
        for margin in MARGINS:
            looks = case.looks(model, foreground)
            _look_within(looks, case, margin)
            yield row(model.name, f"within {margin}", looks, len(looks.looked))
        looks = case.looks(model, foreground)
        look_where_needed(looks, case.images, case.settings)
        sample = min(SAMPLE, int(np.ceil(SAMPLE_SHARE * count)))
        yield row(model.name, "decide", looks, len(looks.looked), sample)


def _look_within(looks: Looks, case: Case, margin: float) -> None:
    """Look closer at all images that lie within a margin of their class's threshold, until none is left."""
    while True:
        plan = decide(case.dataset, case.images, looks, case.settings)
        thresholds = {part.name: part.selection.threshold for part in plan.classes}
        near = [
            image
            for image, record in zip(case.images, looks.records(case.images), strict=True)
            if isinstance(record, ImageRecord)
            and not record.looked
            and abs(record.occupancy - thresholds[record.class_name]) <= margin
        ]
        if not near:
            return
        looks.look(near)


def _seconds(
    teacher: Teacher, models: Mapping[str, ForegroundModel], images: Iterator[SourceImage]
) -> dict[str, float]:
    """Processor seconds that each model takes for an image, in turns, and all the rest.

    Medians over the images of the least of several turns: what else a machine does only adds to them.
    """
    names = ("rest", *(model.name for model in models.values()))
    taken: dict[str, list[float]] = {name: [] for name in names}

    def timed(work: Callable[[SourceImage], Any], image: SourceImage) -> float:
        begin = time.process_time()
        work(image)
        return time.process_time() - begin

    def rest(image: SourceImage) -> None:
        pixels = read_image(image.path).pixels
        height, width = pixels.shape[:2]
        boxes = candidate_boxes(image.source, width, height, count=5, seed=0)
        tiles = (
            tile_pixels(pixels, box, teacher.tile_size, "area") for box in (Box(0, 0, width, height), *boxes)
        )
        labels = np.full(len(boxes) + 1, teacher.label(image.class_name), np.int32)
        teacher.losses(np.stack([teacher.show(tile) for tile in tiles]), labels)

    for image in images:
        pixels = read_image(image.path).pixels
        works: dict[str, Callable[[SourceImage], Any]] = {"rest": rest}
        works |= {model.name: partial(_look, model, pixels) for model in models.values()}
        turns = [{name: timed(work, image) for name, work in works.items()} for _ in range(TURNS)]
        for name in names:
            taken[name].append(min(turn[name] for turn in turns))
    return {name: median(values) for name, values in taken.items()}


def _look(model: ForegroundModel, pixels: Pixels, image: SourceImage) -> None:
    model.find([model.prepare(pixels, image)], masks=True)
