"""What does the score view change: how fast tiles are scored, and which crops win?

    python -m benchmarks.studies.views VALIDATION --teacher BUNDLE --json views.json

Scores the same tiles of the same images in every view. Which view makes better data only students can tell;
this says how far the views differ, and how well the teacher recognises tiles that it is shown in each. Kept
results: `views.json`, and `views-64.json` and `views-32.json` with `--tile 64` and `--tile 32`.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.study import Study, data_argument, number_option, read_images, runtime_options, study
from fgdd_bench.harness.subject import unusable
from fgdd_engines.base import Precision
from fgdd_fast.errors import ImageError, SettingsError
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.tiles import SCORE_VIEWS, tile_pixels
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Images, Teacher, check_classes
from fgdd_fast.runtime.choose import choose_runtime

# Of each row: the view; the teacher's rate alone; the share of whole images and of crops that it names right;
# the mean share of the image that the crop of lowest loss covers; and of how many images that is the crop
# which the first view chooses.
COLUMNS = {
    "view": "",
    "tiles_per_second": ".0f",
    "top1_whole": ".1%",
    "top1_crops": ".1%",
    "chosen_area": ".1%",
    "same_as_first": ".1%",
}


@study
@data_argument
@click.option("--teacher", required=True, metavar="BUNDLE")
@number_option("--pool", 100, "Images of each class.")
@number_option("--crops", 5, "Candidate crops of each image; at least 2.")
@number_option("--tile", 112, "Side of a tile in pixels.")
@runtime_options
def main(
    study: Study,
    data: Path,
    teacher: str,
    pool: int,
    crops: int,
    tile: int,
    device: Any,
    precision: Precision,
    threads: int,
) -> None:
    """Compare the score views on images of DATA, best ones that the teacher was not fitted on."""
    if crops < 2:
        raise SettingsError("One crop leaves nothing to choose", "Ask for two or more: --crops.")
    dataset, images = read_images(data, pool)
    bundle = find_bundle(teacher, "teacher")
    check_classes(bundle, dataset.classes)
    runtime = choose_runtime(bundle, device, precision, threads).runtime

    def cut(image: SourceImage) -> tuple[list[int], list[Images]]:
        try:
            pixels = read_image(image.path).pixels
        except ImageError as error:
            raise unusable(image.source, error.problem) from error
        height, width = pixels.shape[:2]
        whole = Box(0, 0, width, height)
        boxes = [whole, *candidate_boxes(image.source, width, height, count=crops, seed=0)]
        tiles = [tile_pixels(pixels, box, tile, "area") for box in boxes]
        return [box.width * box.height for box in boxes], tiles

    with ThreadPoolExecutor(threads) as executor:
        sizes, tiles = zip(*study.track(executor.map(cut, images), "Reading", len(images)), strict=True)
    areas = np.array(sizes, float) / np.array(sizes, float)[:, :1]
    everyone = np.arange(len(images))
    rows: list[dict[str, Any]] = []
    first: NDArray[np.int64] | None = None
    for view in study.track(SCORE_VIEWS, "Scoring"):
        with closing(
            Teacher(bundle, runtime, view=view, tile_size=tile, batch=VIEWS_PER_INFERENCE)
        ) as network:
            labels = np.array([network.label(image.class_name) for image in images])
            logits, seconds = _logits(network, tiles, threads)
        losses = np.logaddexp.reduce(logits, axis=2) - logits[everyone, :, labels]
        chosen = losses[:, 1:].argmin(axis=1)
        first = chosen if first is None else first
        right = logits.argmax(axis=2) == labels[:, None]
        figures = (
            areas.size / seconds,
            right[:, 0].mean(),
            right[:, 1:].mean(),
            areas[everyone, 1 + chosen].mean(),
            (chosen == first).mean(),
        )
        rows.append(dict(zip(COLUMNS, (view, *map(float, figures)), strict=True)))
    described = {"name": bundle.name, "sha256": bundle.sha256}
    study.report(rows, COLUMNS, images=len(images), crops=crops, tile=tile, teacher=described)


def _logits(teacher: Teacher, tiles: Any, threads: int) -> tuple[NDArray[np.float32], float]:
    """Return logits [images, views, classes] of all tiles, and the seconds that inference took."""
    shown = [np.stack([teacher.show(tile) for tile in row]) for row in tiles]
    teacher.logits(shown[0])  # warm-up
    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        logits = np.stack(list(executor.map(teacher.logits, shown)))
    return logits, time.perf_counter() - begin


if __name__ == "__main__":
    main()
