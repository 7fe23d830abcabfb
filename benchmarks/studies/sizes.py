"""What the foreground model's input size and precision cost in decisions.

    python -m benchmarks.studies.sizes DATA --json OUT.json

Measures the occupancy of every image of DATA with each model, and compares errors and the paths that the
default rule takes with those of the first model in fp32.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
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
from fgdd_engines.base import Precision
from fgdd_fast.errors import ImageError
from fgdd_fast.images.dataset import SourceImage, pool, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.models.factory import choose_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundChoice, Inputs
from fgdd_fast.models.network import Runtime
from fgdd_fast.parallel import ordered_map

MODELS = (
    "saliency-u2netp",
    "saliency-u2netp-256",
    "saliency-u2netp-192",
    "saliency-u2netp-160",
    "saliency-u2netp-128",
)
QUANTILE = 0.3


@dataclass(frozen=True)
class Row:
    """One model in one precision, against the reference.

    Attributes:
        model, runtime: what was run.
        images_per_second: reading, resizing and inference together.
        occupancy_error: mean absolute difference.
        path_agreement: share of the images that the rule sends the same way.
    """

    model: str
    runtime: str
    images_per_second: float
    occupancy_error: float
    path_agreement: float


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "models",
    multiple=True,
    default=MODELS,
    metavar="NAME|BUNDLE",
    help="Foreground models, the reference first; the catalogue's by default.",
)
@click.option("--pool", "limit", type=click.IntRange(min=1), help="Images per class; all by default.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--device", type=click.Choice(DEVICES), default="openvino", show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(
    data: Path, models: Sequence[str], limit: int | None, threads: int, device: Any, output: Path | None
) -> None:
    """Compare sizes and precisions of the foreground model on the images of DATA."""
    cv2.setNumThreads(1)
    dataset = scan(data)
    images = pool(dataset, limit, 0)
    before = environment()
    choices = [choose_foreground(model, dataset.classes) for model in models]
    runs: list[tuple[ForegroundChoice, Precision]] = [
        (choices[0], "fp32"),
        *((choice, "auto") for choice in choices),
    ]
    rows: list[Row] = []
    reference: NDArray[np.float64] | None = None
    for choice, precision in runs:
        runtime, found, rate = _occupancies(choice, Runtime(device, precision, threads), images)
        occupancies = np.array(list(found.values()))
        reference = occupancies if reference is None else reference
        error = float(np.abs(occupancies - reference).mean())
        agreement = float((_paths(occupancies, list(found)) == _paths(reference, list(found))).mean())
        rows.append(Row(choice.name, runtime, rate, error, agreement))
    if output is not None:
        result = {
            "command": "python -m benchmarks.studies.sizes",
            "images": len(images),
            "environment": before,
            "rule": f"quantile:{QUANTILE}",
            "rows": [vars(row) for row in rows],
        }
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(rows)


def _occupancies(
    choice: ForegroundChoice, runtime: Runtime, images: Sequence[SourceImage]
) -> tuple[str, dict[SourceImage, float], float]:
    """What ran the model, the occupancy of each image that can be read, and images a second."""
    threads = runtime.threads
    model = open_foreground(choice, runtime=lambda _: runtime, batch=1, resize="area", threads=threads)

    def read(image: SourceImage) -> tuple[SourceImage, Inputs] | None:
        try:
            return image, model.prepare(read_image(image.path).pixels, image)
        except ImageError:
            return None

    def find(item: tuple[SourceImage, Inputs]) -> tuple[SourceImage, float]:
        image, inputs = item
        return image, model.find([inputs])[0].occupancy

    with (
        closing(model),
        ThreadPoolExecutor(threads) as readers,
        ThreadPoolExecutor(model.streams) as runners,
    ):
        begin = time.perf_counter()
        prepared = (item for item in ordered_map(readers, read, images, 2 * threads) if item is not None)
        found = dict(ordered_map(runners, find, prepared, 2 * model.streams))
        return model.description, found, len(found) / (time.perf_counter() - begin)


def _paths(occupancies: NDArray[np.float64], images: Sequence[SourceImage]) -> NDArray[np.bool_]:
    """Which images reach their class's threshold."""
    classes = np.array([image.class_name for image in images])
    whole = np.zeros(len(images), bool)
    for name in np.unique(classes):
        members = classes == name
        whole[members] = occupancies[members] >= np.quantile(occupancies[members], QUANTILE)
    return whole


def _show(rows: Sequence[Row]) -> None:
    table = Table()
    for heading in ("model", "runtime", "images a second", "occupancy error", "same path"):
        table.add_column(heading, justify="left" if heading in ("model", "runtime") else "right")
    for row in rows:
        figures = (f"{row.images_per_second:.1f}", f"{row.occupancy_error:.4f}", f"{row.path_agreement:.1%}")
        table.add_row(row.model, row.runtime, *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
