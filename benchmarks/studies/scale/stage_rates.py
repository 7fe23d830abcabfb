"""What each kind of work of a distillation takes one worker on this machine, measured alone.

A processor thread's seconds are processor time, which other programs disturb less than the clock; a GPU's are
the clock's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median

import cv2
import numpy as np

from benchmarks.studies.scale.many_images import numbered_copy
from benchmarks.studies.scale.projection import Rates, Work
from benchmarks.studies.stages import Stages
from fgdd_bench.harness.absent_models import NoForeground, NoTeacher
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import DataSet, SourceImage
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.views import tile_pixels
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.foreground import ForegroundModel
from fgdd_fast.models.network import Teacher
from fgdd_fast.output.folder import write_image
from fgdd_fast.output.mosaic import Mosaic, compose, encode
from fgdd_fast.planning import MosaicSettings, decide

HANDED_OVER = 500  # images of next to no pixels, to time what is not about pixels


@dataclass(frozen=True)
class ImageSize:
    """Of image files, on average."""

    megapixels: float
    megabytes: float


@dataclass(frozen=True)
class _Timed:
    """Work to be timed: how many units of it there are, and whether a GPU does it."""

    run: Callable[[], object]
    units: float
    on_gpu: bool = False

    def seconds(self) -> float:
        """What a unit takes one worker."""
        clock = time.perf_counter if self.on_gpu else time.process_time
        begin = clock()
        self.run()
        return (clock() - begin) / self.units


def measure_rates(
    images: Sequence[SourceImage],
    foreground: ForegroundModel,
    teacher: Teacher,
    settings: MeasureSettings,
    mosaics: MosaicSettings,
    *,
    on_gpu: tuple[Work, ...],
    repeats: int,
) -> tuple[Rates, ImageSize]:
    """Time every kind of work alone, in turns, and take the medians.

    Args:
        images: photographs of every class, enough for its mosaics.
        foreground, teacher: the open models.
        settings: crops, seed, resizing, batch and threads.
        mosaics: what is decided and composed.
        on_gpu: which networks run on a GPU.
        repeats: turns.

    Returns:
        (the rates, how large the images are).

    Raises:
        DataError: an image cannot be used.
    """
    count = len(images)
    pixels = {image.source: read_image(image.path).pixels for image in images}
    classes = tuple(dict.fromkeys(image.class_name for image in images))
    with tempfile.TemporaryDirectory() as name, Store(Path(name)) as store:
        rewritten = [_best_quality(image, pixels[image.source], Path(name, "heavy")) for image in images]
        size, heavy_size = (_size(files, pixels) for files in (images, rewritten))
        tiny = _tiny_images(Path(name, "tiny"), classes)
        plain, heavier = (Stages(files, foreground, teacher, settings) for files in (images, rewritten))
        measurer = Measurer(foreground, teacher, settings, store, classes)
        for skipped in measurer.measure(images).skipped:
            raise DataError(f"The image {skipped.source} cannot be measured: {skipped.reason}")
        dataset = DataSet(images[0].root, classes, tuple(images), ())
        plan = decide(dataset, images, measurer, mosaics)
        composed = list(plan.mosaics)

        decodes = [_Timed(partial(stages.seconds, "decode"), count) for stages in (plain, heavier)]
        works: dict[Work, _Timed] = {
            "cut": _Timed(partial(plain.seconds, "resize and crop"), count * size.megapixels),
            "foreground": _Timed(partial(plain.seconds, "foreground"), count, "foreground" in on_gpu),
            "teacher": _Timed(
                partial(plain.seconds, "teacher"), count * (1 + settings.crops), "teacher" in on_gpu
            ),
            "overhead": _Timed(partial(_hand_over, tiny, settings, classes), len(tiny)),
            "decide": _Timed(lambda: decide(dataset, images, measurer, mosaics), count),
            "compose": _Timed(lambda: _compose(composed, pixels, mosaics, settings.threads), len(composed)),
        }
        turns = [[timed.seconds() for timed in (*decodes, *works.values())] for _ in range(repeats)]
    light, heavy, *others = map(median, zip(*turns, strict=True))
    decoding = _decoding(light, size, heavy, heavy_size)
    seconds = {**decoding, **dict(zip(works, others, strict=True))}
    return Rates(seconds=seconds, threads=settings.threads, on_gpu=on_gpu), size


def _best_quality(image: SourceImage, pixels: Pixels, root: Path) -> SourceImage:
    """The same picture in several times the bytes: about as many a pixel as ImageNet's photographs have."""
    path = root / image.source
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes())
    return SourceImage(image.source, image.class_name, root)


def _size(images: Sequence[SourceImage], pixels: Mapping[str, Pixels]) -> ImageSize:
    area = fmean(array.shape[0] * array.shape[1] for array in pixels.values())
    return ImageSize(area / 1e6, fmean(image.path.stat().st_size for image in images) / 1e6)


def _decoding(plain: float, size: ImageSize, heavy: float, heavy_size: ImageSize) -> dict[Work, float]:
    """Seconds a megapixel and a megabyte, from the seconds for two files of the same pixels."""
    more = heavy_size.megabytes - size.megabytes
    by_bytes = (heavy - plain) / more if more > 0 else 0.0
    by_bytes = min(max(by_bytes, 0.0), plain / size.megabytes)  # noise must not make the other negative
    return {
        "decode pixels": (plain - by_bytes * size.megabytes) / size.megapixels,
        "decode bytes": by_bytes,
    }


def _tiny_images(root: Path, classes: Sequence[str]) -> list[SourceImage]:
    content = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    images = []
    for number in range(HANDED_OVER):
        class_name = classes[number % len(classes)]
        image = SourceImage(f"{class_name}/{number}.jpg", class_name, root)
        image.path.parent.mkdir(parents=True, exist_ok=True)
        image.path.write_bytes(numbered_copy(content, number))
        images.append(image)
    return images


def _hand_over(images: Sequence[SourceImage], settings: MeasureSettings, classes: Sequence[str]) -> None:
    """Measure with models that do nothing: images are looked up, passed from thread to thread, and stored."""
    with tempfile.TemporaryDirectory() as name, Store(Path(name)) as store:
        Measurer(NoForeground(), NoTeacher(), settings, store, classes).measure(images)


def _compose(
    composed: Sequence[tuple[str, Mosaic]],
    pixels: Mapping[str, Pixels],
    settings: MosaicSettings,
    threads: int,
) -> None:
    """Cut, join, encode and write mosaics of decoded images."""

    def make(item: tuple[str, Mosaic]) -> None:
        name, mosaic = item
        tiles = [
            tile_pixels(pixels[tile.source], tile.box, settings.tile_size, settings.resize)
            for tile in mosaic.tiles
        ]
        content = encode(compose(tiles, settings.factor), settings.format)
        write_image(folder, name, mosaic.index, content, settings.format)

    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(threads) as executor:
        folder = Path(temporary)
        list(executor.map(make, composed))
