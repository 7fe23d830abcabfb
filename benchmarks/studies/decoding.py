"""How near decoding and cutting tiles comes to OpenCV's decoding alone, on one core, and what else was tried.

    python -m benchmarks.studies.decoding DATA --teacher BUNDLE --json OUT.json

Every way goes from a file to the tiles of the whole image and of its candidate crops, in one thread, and its
processor time is compared with what `cv2.imdecode` needs for the same bytes in memory. All take turns, so
slow spells of the machine meet all of them. How far a way's tiles are from OpenCV's own INTER_AREA is said in
grey levels and, with a teacher, in the crops that it would choose.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import click
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.studies.tile_remedies import DECODERS, REFERENCE, WAYS, Way
from fgdd_bench.machine.environment import environment
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.images.crops import candidate_boxes
from fgdd_fast.images.dataset import SourceImage, pool, scan
from fgdd_fast.images.decode import decode_image, read_file
from fgdd_fast.images.headers import read_header
from fgdd_fast.images.resize import resize_arithmetic
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.network import Images, Teacher, check_classes
from fgdd_fast.runtime import parity as comparison
from fgdd_fast.runtime.tolerances import Floats, loss_figures
from fgdd_fast.selection.records import Box

ALONE = "colour"  # the decoder that everything is compared with


@dataclass(frozen=True)
class Photograph:
    """An image file, its bytes, and the boxes of its tiles: the whole image, then its candidate crops."""

    image: SourceImage
    content: bytes
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Distance:
    """How far the tiles of a way are from those of `tile_remedies.REFERENCE`.

    Attributes:
        mean_error, largest_error: of a value, in grey levels.
        agreement: `agreement.loss_figures` of the teacher's losses on them; empty without a teacher.
    """

    mean_error: float
    largest_error: int
    agreement: Mapping[str, float]


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--teacher", "teacher_name", metavar="BUNDLE", help="Says which crops it would choose.")
@click.option("--images", "count", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="The teacher's.")
@click.option("--crops", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--tile", "tile_size", type=click.IntRange(min=1), default=112, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(
    data: Path,
    teacher_name: str | None,
    count: int,
    repeats: int,
    threads: int,
    crops: int,
    tile_size: int,
    output: Path | None,
) -> None:
    """Measure ways from file to tiles on COUNT images of DATA, drawn from all classes alike."""
    cv2.setNumThreads(1)
    dataset = scan(data)
    bundle = None if teacher_name is None else find_bundle(teacher_name, "teacher")
    if bundle is not None:
        check_classes(bundle, dataset.classes)
    images = pool(dataset, -(-count // len(dataset.classes)), 0)[:count]
    photographs = [_photograph(image, crops) for image in images]
    before = environment()
    times = _times(photographs, tile_size, repeats)
    distances = _distances(photographs, tile_size, bundle, threads)
    shares = {name: _share(times[ALONE], times[name]) for name in WAYS}
    if output is not None:
        result = {
            "command": "python -m benchmarks.studies.decoding",
            "images": len(images),
            "megapixels": _mean(photo.boxes[0].width * photo.boxes[0].height for photo in photographs) / 1e6,
            "kilobytes": _mean(len(photo.content) for photo in photographs) / 1e3,
            "crops": crops,
            "tile": tile_size,
            "area": resize_arithmetic("area"),
            "teacher": None if bundle is None else {"name": bundle.name, "sha256": bundle.sha256},
            "environment": before,
            "milliseconds": times,
            "ways": {
                name: {"share_of_decoding_alone": shares[name], **asdict(distances[name])} for name in WAYS
            },
        }
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(times, shares, distances)


def _photograph(image: SourceImage, crops: int) -> Photograph:
    content = read_file(image.path).content
    height, width = decode_image(content).shape[:2]
    boxes = candidate_boxes(image.source, width, height, count=crops, seed=0)
    return Photograph(image, content, (Box(0, 0, width, height), *boxes))


def _times(photographs: Sequence[Photograph], tile_size: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of processor time an image, in each turn: of decoders, steps and ways."""

    def on_bytes(run: Callable[[bytes], object]) -> Callable[[Photograph], object]:
        return lambda photo: run(photo.content)

    def on_file(way: Way) -> Callable[[Photograph], object]:
        return lambda photo: way(read_file(photo.image.path).content, photo.boxes, tile_size)

    runs = {name: on_bytes(decode) for name, decode in DECODERS.items()}
    runs["read and hash"] = lambda photo: read_file(photo.image.path)
    runs["header"] = on_bytes(read_header)
    runs["header and decode"] = on_bytes(decode_image)
    runs |= {name: on_file(way) for name, way in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():  # warm-up
        run(photographs[0])
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.thread_time()
            for photo in photographs:
                run(photo)
            times[name].append((time.thread_time() - begin) / len(photographs) * 1e3)
    return times


def _share(alone: Sequence[float], way: Sequence[float]) -> float:
    """A way's rate as a share of that of decoding alone: the median of the turns."""
    return median(one / other for one, other in zip(alone, way, strict=True))


def _distances(
    photographs: Sequence[Photograph], tile_size: int, bundle: Bundle | None, threads: int
) -> dict[str, Distance]:
    if bundle is None:
        return _held(photographs, tile_size, None)
    runtime = replace(comparison.REFERENCE, threads=threads)
    batch = len(photographs[0].boxes)
    with closing(Teacher(bundle, runtime, view="pad", tile_size=tile_size, batch=batch)) as teacher:
        return _held(photographs, tile_size, partial(_losses, photographs, teacher, threads))


def _held(
    photographs: Sequence[Photograph], tile_size: int, losses: Callable[[Images], Floats] | None
) -> dict[str, Distance]:
    """Hold each way's tiles [images, boxes, side, side, 3] against the reference's."""

    def tiles(name: str) -> Images:
        return np.array([WAYS[name](photo.content, photo.boxes, tile_size) for photo in photographs])

    expected = tiles(REFERENCE)
    expected_losses = None if losses is None else losses(expected)
    distances = {}
    for name in WAYS:
        found = tiles(name)
        errors = cv2.absdiff(expected, found)
        agreement: Mapping[str, float] = {}
        if losses is not None and expected_losses is not None:
            agreement = loss_figures(expected_losses, losses(found))
        distances[name] = Distance(float(errors.mean()), int(errors.max()), agreement)
    return distances


def _losses(photographs: Sequence[Photograph], teacher: Teacher, threads: int, tiles: Images) -> Floats:
    """The teacher's losses (nats) [images, boxes] of tiles [images, boxes, side, side, 3]."""

    def losses(photo: Photograph, row: Images) -> Floats:
        labels = np.full(len(row), teacher.label(photo.image.class_name), np.int32)
        return teacher.losses(np.stack([teacher.show(tile) for tile in row]), labels)

    with ThreadPoolExecutor(threads) as executor:
        return np.stack(list(executor.map(losses, photographs, tiles)))


def _show(
    times: Mapping[str, Sequence[float]], shares: Mapping[str, float], distances: Mapping[str, Distance]
) -> None:
    console = Console()
    steps = Table("step", "ms an image", "lowest")
    for name, milliseconds in times.items():
        if name not in WAYS:
            steps.add_row(name, f"{median(milliseconds):.3f}", f"{min(milliseconds):.3f}")
    console.print(steps)
    ways = Table("file to tiles", "ms an image", "of decoding", "grey levels", "same crop")
    for name, distance in distances.items():
        crop = distance.agreement.get("same_or_near_crop")
        ways.add_row(
            name,
            f"{median(times[name]):.3f}",
            f"{shares[name]:.1%}",
            f"{distance.mean_error:.3f}",
            "" if crop is None else f"{crop:.1%}",
        )
    console.print(ways)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


if __name__ == "__main__":
    main()
