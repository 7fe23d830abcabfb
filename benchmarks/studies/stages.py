"""How fast each stage of measuring is, and how near the whole comes to what its stages need.

    python -m benchmarks.studies.stages DATA --teacher BUNDLE --images 300 --repeats 3 --json OUT.json

Each repeat runs every stage alone, with all threads, and then the whole into an empty store, on the same
images; so slow spells of the machine meet all of them. The stages' times add up to what the whole cannot
undercut on busy processors; the whole's surplus over that sum is what the pipeline costs.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from fgdd_bench.machine.environment import environment
from fgdd_engines.backends import DEVICES
from fgdd_engines.base import PRECISIONS
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.images.crops import candidate_boxes
from fgdd_fast.images.dataset import SourceImage, pool, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.views import tile_pixels
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundModel, Inputs
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Images, Runtime, Teacher, check_classes
from fgdd_fast.runtime.choose import choose_runtime
from fgdd_fast.selection.records import Box

STAGES = ("decode", "resize and crop", "foreground", "teacher", "whole")


class Stages:
    """The stages of measuring some images, each runnable alone.

    Args:
        images: what is measured.
        foreground, teacher: the open models.
        settings: crops, seed, resizing, batch and threads.
    """

    def __init__(
        self,
        images: Sequence[SourceImage],
        foreground: ForegroundModel,
        teacher: Teacher,
        settings: MeasureSettings,
    ) -> None:
        self._images = images
        self._foreground = foreground
        self._teacher = teacher
        self._settings = settings
        sample = images[:: max(len(images) // 32, 1)]
        self._sample = [(image, read_image(image.path).pixels) for image in sample]
        self._inputs = [self._cut(image, pixels) for image, pixels in self._sample]

    def seconds(self, stage: str) -> float:
        """Wall time of a stage over all images, all threads working."""
        run: dict[str, Callable[[int], object]] = {
            "decode": lambda index: read_image(self._images[index].path),
            "resize and crop": lambda index: self._cut(*self._sample[index % len(self._sample)]),
            "foreground": lambda index: self._foreground.find([self._inputs_of(index)[0]]),
            "teacher": lambda index: self._losses(self._inputs_of(index)[1]),
        }
        begin = time.perf_counter()
        if stage == "whole":
            self._whole()
        else:
            threads = self._settings.threads
            with ThreadPoolExecutor(threads) as executor:
                for _ in executor.map(run[stage], range(len(self._images))):
                    pass
        return time.perf_counter() - begin

    def _cut(self, image: SourceImage, pixels: Images) -> tuple[Inputs, list[Images]]:
        height, width = pixels.shape[:2]
        settings = self._settings
        boxes = candidate_boxes(image.source, width, height, count=settings.crops, seed=settings.seed)
        tiles = (
            tile_pixels(pixels, box, self._teacher.tile_size, settings.resize)
            for box in (Box(0, 0, width, height), *boxes)
        )
        views = [self._teacher.show(tile) for tile in tiles]
        return self._foreground.prepare(pixels, image), views

    def _inputs_of(self, index: int) -> tuple[Inputs, list[Images]]:
        return self._inputs[index % len(self._inputs)]

    def _losses(self, views: Sequence[Images]) -> object:
        return self._teacher.losses(np.stack(views), np.zeros(len(views), np.int32))

    def _whole(self) -> None:
        classes = tuple({image.class_name: None for image in self._images})
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
            measurer = Measurer(self._foreground, self._teacher, self._settings, store, classes)
            measured = measurer.measure(self._images)
        if measured.measured != len(self._images):
            raise click.ClickException(f"{len(measured.skipped)} of the images cannot be measured")


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--teacher", "teacher_name", required=True, metavar="BUNDLE")
@click.option("--foreground", "foreground_name", default="saliency-u2netp", show_default=True)
@click.option("--images", "count", type=click.IntRange(min=1), default=300, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--crops", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--tile", "tile_size", type=click.IntRange(min=1), default=112, show_default=True)
@click.option("--device", type=click.Choice(["auto", *DEVICES]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(
    data: Path,
    teacher_name: str,
    foreground_name: str,
    count: int,
    repeats: int,
    threads: int,
    crops: int,
    tile_size: int,
    device: Any,
    precision: Any,
    output: Path | None,
) -> None:
    """Measure the stages on COUNT images of DATA, drawn from all classes alike."""
    dataset = scan(data)
    images = pool(dataset, -(-count // len(dataset.classes)), 0)[:count]
    choice = choose_foreground(foreground_name, dataset.classes)
    bundle = find_bundle(teacher_name, "teacher")
    check_classes(bundle, dataset.classes)

    def runtime(bundle: Bundle) -> Runtime:
        return choose_runtime(bundle, device, precision, threads).runtime

    settings = MeasureSettings(crops=crops, seed=0, resize="area", batch=1, threads=threads)
    cv2.setNumThreads(1)
    with (
        closing(
            open_foreground(choice, runtime=runtime, batch=1, resize=settings.resize, threads=threads)
        ) as foreground,
        closing(
            Teacher(bundle, runtime(bundle), view="pad", tile_size=tile_size, batch=VIEWS_PER_INFERENCE)
        ) as teacher,
    ):
        stages = Stages(images, foreground, teacher, settings)
        before = environment()
        times = [{stage: stages.seconds(stage) for stage in STAGES} for _ in range(repeats)]
        result = {
            "command": "python -m benchmarks.studies.stages",
            "images": len(images),
            "threads": threads,
            "crops": crops,
            "tile": tile_size,
            "models": {
                "foreground": {"name": choice.name, "sha256": foreground.sha256},
                "teacher": {"name": bundle.name, "sha256": bundle.sha256},
            },
            "runtimes": [foreground.description, teacher.engine.arithmetic],
            "environment": before,
            "seconds": times,
            "surplus": [_surplus(row) for row in times],
        }
    if output is not None:
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(times, len(images))


def _surplus(times: dict[str, float]) -> float:
    """The share by which the whole takes longer than its stages need together."""
    return times["whole"] / sum(times[stage] for stage in STAGES if stage != "whole") - 1


def _show(times: Sequence[dict[str, float]], images: int) -> None:
    table = Table()
    for heading in ("stage", "images a second", "lowest", "highest"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in STAGES:
        rates = [images / row[stage] for row in times]
        table.add_row(stage, *(f"{rate:.1f}" for rate in (statistics.median(rates), min(rates), max(rates))))
    console = Console()
    console.print(table)
    surplus = statistics.median(_surplus(row) for row in times)
    console.print(f"The whole takes {surplus:+.1%} against the sum of its stages (median of {len(times)}).")


if __name__ == "__main__":
    main()
