"""What the score view changes: how fast tiles are scored, and which crops win.

    python -m benchmarks.studies.views DATA --teacher BUNDLE --pool 100 --json OUT.json

Scores the same tiles of the same images in every view. Which view makes better data only students can tell;
this says how far the views differ, and how well the teacher recognises tiles that it is shown in each.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fgdd_bench.machine.environment import environment
from fgdd_engines.backends import DEVICES
from fgdd_fast.images.crops import candidate_boxes
from fgdd_fast.images.dataset import SourceImage, pool, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.views import SCORE_VIEWS, ScoreView, tile_pixels
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Images, Teacher, check_classes
from fgdd_fast.runtime.choose import choose_runtime
from fgdd_fast.selection.records import Box


@dataclass(frozen=True)
class Row:
    """One view.

    Attributes:
        view: the view.
        tiles_per_second: teacher alone.
        top1_whole, top1_crops: share of whole images, and of crops, that the teacher names right.
        chosen_area: mean share of the image that the crop of lowest loss covers.
        same_as_first: share of the images whose chosen crop is the one that the first view chooses.
    """

    view: ScoreView
    tiles_per_second: float
    top1_whole: float
    top1_crops: float
    chosen_area: float
    same_as_first: float


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--teacher", "teacher_name", required=True, metavar="BUNDLE")
@click.option("--pool", "limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--crops", type=click.IntRange(min=2), default=5, show_default=True)
@click.option("--tile", "tile_size", type=click.IntRange(min=1), default=112, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--device", type=click.Choice(["auto", *DEVICES]), default="auto", show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(
    data: Path,
    teacher_name: str,
    limit: int,
    crops: int,
    tile_size: int,
    threads: int,
    device: Any,
    output: Path | None,
) -> None:
    """Compare the score views on images of DATA, best ones that the teacher was not fitted on."""
    cv2.setNumThreads(1)
    dataset = scan(data)
    images = pool(dataset, limit, 0)
    bundle = find_bundle(teacher_name, "teacher")
    check_classes(bundle, dataset.classes)
    runtime = choose_runtime(bundle, device, "auto", threads).runtime
    before = environment()

    def cut(image: SourceImage) -> tuple[list[Box], list[Images]]:
        pixels = read_image(image.path).pixels
        height, width = pixels.shape[:2]
        boxes = [
            Box(0, 0, width, height),
            *candidate_boxes(image.source, width, height, count=crops, seed=0),
        ]
        return boxes, [tile_pixels(pixels, box, tile_size, "area") for box in boxes]

    with ThreadPoolExecutor(threads) as executor:
        boxes, tiles = zip(*executor.map(cut, images), strict=True)
    areas = np.array([[box.width * box.height for box in row] for row in boxes], float)
    areas /= areas[:, :1]
    rows: list[Row] = []
    first: NDArray[np.int64] | None = None
    for view in SCORE_VIEWS:
        with closing(
            Teacher(bundle, runtime, view=view, tile_size=tile_size, batch=VIEWS_PER_INFERENCE)
        ) as teacher:
            labels = np.array([teacher.label(image.class_name) for image in images])
            logits, seconds = _logits(teacher, tiles, threads)
        losses = np.logaddexp.reduce(logits, axis=2) - logits[np.arange(len(images)), :, labels]
        chosen = losses[:, 1:].argmin(axis=1)
        first = chosen if first is None else first
        right = logits.argmax(axis=2) == labels[:, None]
        rows.append(
            Row(
                view,
                areas.size / seconds,
                float(right[:, 0].mean()),
                float(right[:, 1:].mean()),
                float(areas[np.arange(len(images)), 1 + chosen].mean()),
                float((chosen == first).mean()),
            )
        )
    if output is not None:
        result = {
            "command": "python -m benchmarks.studies.views",
            "images": len(images),
            "crops": crops,
            "tile": tile_size,
            "teacher": {"name": bundle.name, "sha256": bundle.sha256},
            "environment": before,
            "rows": [vars(row) for row in rows],
        }
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(rows)


def _logits(teacher: Teacher, tiles: Any, threads: int) -> tuple[NDArray[np.float32], float]:
    """Logits [images, views, classes] of all tiles, and the seconds that inference took."""
    shown = [np.stack([teacher.show(tile) for tile in row]) for row in tiles]
    teacher.logits(shown[0])  # warm-up
    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        logits = np.stack(list(executor.map(teacher.logits, shown)))
    return logits, time.perf_counter() - begin


def _show(rows: list[Row]) -> None:
    table = Table()
    for heading in ("view", "tiles a second", "whole right", "crops right", "area chosen", "same as first"):
        table.add_column(heading, justify="left" if heading == "view" else "right")
    for row in rows:
        shares = (row.top1_whole, row.top1_crops, row.chosen_area, row.same_as_first)
        table.add_row(row.view, f"{row.tiles_per_second:.0f}", *(f"{share:.1%}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
