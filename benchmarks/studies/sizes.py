"""What do smaller inputs of the foreground model, and lower precision, cost in decisions?

    python -m benchmarks.studies.sizes DATA --json sizes.json

Measures the occupancy of every image of DATA with each model, and compares it, and the tile that the rule
`quantile:0.3` takes, with those of the first model in fp32. Kept result: `sizes.json`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.study import POSITIVE, Study, data_argument, number_option, read_images, study
from fgdd_engines.backends import DEVICES
from fgdd_engines.base import Precision
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import read_image
from fgdd_fast.models.factory import choose_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundChoice, Inputs
from fgdd_fast.models.network import Runtime
from fgdd_fast.parallel import ordered_map

MODELS = ("saliency-u2netp", *(f"saliency-u2netp-{side}" for side in (256, 192, 160, 128)))
QUANTILE = 0.3
# Images a second: reading, resizing and inference together. The error is the mean absolute difference of
# occupancies, the agreement the share of images that the rule sends the same way.
COLUMNS = {
    "model": "",
    "runtime": "",
    "images_per_second": ".1f",
    "occupancy_error": ".4f",
    "path_agreement": ".1%",
}


@study
@data_argument
@click.option(
    "--model",
    "models",
    multiple=True,
    default=MODELS,
    metavar="NAME|BUNDLE",
    help="Foreground models, the reference first; the catalogue's by default.",
)
@click.option("--pool", type=POSITIVE, help="Images of each class; all by default.")
@number_option("--threads", 2, "Processor threads.")
@click.option("--device", type=click.Choice(DEVICES), default="openvino", show_default=True)
def main(
    study: Study, data: Path, models: Sequence[str], pool: int | None, threads: int, device: Any
) -> None:
    """Compare sizes and precisions of the foreground model on the images of DATA."""
    dataset, images = read_images(data, pool)
    choices = [choose_foreground(model, dataset.classes) for model in models]
    runs: list[tuple[ForegroundChoice, Precision]] = [
        (choices[0], "fp32"),
        *((choice, "auto") for choice in choices),
    ]
    rows: list[dict[str, Any]] = []
    reference: NDArray[np.float64] | None = None
    for choice, precision in study.track(runs, "Models"):
        runtime, found, rate = _occupancies(choice, Runtime(device, precision, threads), images)
        if not found:
            raise DataError(f"No image in {data} can be used", "See why with: fgdd-fast measure")
        occupancies, classes = np.array(list(found.values())), [image.class_name for image in found]
        reference = occupancies if reference is None else reference
        error = float(np.abs(occupancies - reference).mean())
        agreement = float((_whole(occupancies, classes) == _whole(reference, classes)).mean())
        row = (choice.name, runtime, rate, error, agreement)
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    study.report(rows, COLUMNS, images=len(images), rule=f"quantile:{QUANTILE}")


def _occupancies(
    choice: ForegroundChoice, runtime: Runtime, images: Sequence[SourceImage]
) -> tuple[str, dict[SourceImage, float], float]:
    """Return what ran the model, the occupancy of each image that can be read, and images a second."""
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

    with closing(model), ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(model.streams) as runners:
        begin = time.perf_counter()
        prepared = (item for item in ordered_map(readers, read, images, 2 * threads) if item is not None)
        found = dict(ordered_map(runners, find, prepared, 2 * model.streams))
        return model.description, found, len(found) / (time.perf_counter() - begin)


def _whole(occupancies: NDArray[np.float64], classes: Sequence[str]) -> NDArray[np.bool_]:
    """Return which images reach their class's threshold."""
    names = np.array(classes)
    whole = np.zeros(len(names), bool)
    for name in np.unique(names):
        members = names == name
        whole[members] = occupancies[members] >= np.quantile(occupancies[members], QUANTILE)
    return whole


if __name__ == "__main__":
    main()
