"""Folders of labelled photographs, decoded once into memory: what students are judged on, or learn from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, scan
from fgdd_fast.images.depth import SixteenBit, read_image_at
from fgdd_fast.images.resize import Pixels, ResizeMethod, resize
from fgdd_fast.parallel import ordered_map, single_threaded_opencv

# ImageNet's, of values in [0, 1]: how students, as most networks, take red, green and blue.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

_MOST_LISTED = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images of one size, in memory.

    Attributes:
        images: uint8 [m, size, size, 3], RGB.
        labels: indices into `classes`, int64 [m].
        classes: their names.
        sources: POSIX path of each image within its folder; empty for images that come from no folder.
        hashes: hexadecimal SHA-256 of each image's file, likewise.
        skipped: images of the folder that cannot be used.
    """

    images: Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    sources: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def read_whole(
    folder: Path,
    size: int,
    *,
    method: ResizeMethod = "area",
    threads: int = 1,
    progress: Progress = SILENT,
) -> LabelledImages:
    """Read a folder of images to train on, each resized to a square whole, as tiles of whole images are.

    Args:
        folder: holds one folder of images for each class.
        size: side of the square in pixels.
        method: how images are resized.
        threads: that read.
        progress: shows how many are read.

    Raises:
        DataError: the folder cannot be read, or not one image of a class can be used.
    """
    dataset = scan(folder)
    view = partial(resize, size=(size, size), method=method)
    with progress.task("Reading images", len(dataset.images)) as task:
        return _read(dataset, dataset.classes, view, size=size, threads=threads, advance=task.advance)


def read_validation(
    folder: Path,
    classes: Sequence[str],
    size: int,
    *,
    method: ResizeMethod = "area",
    sixteen_bit: SixteenBit = "shift",
    threads: int = 1,
    progress: Progress = SILENT,
) -> LabelledImages:
    """Read a folder of validation images as RDED does: the shorter side resized, and the centre cut out.

    Args:
        folder, method, threads, progress: as for `read_whole`.
        classes: names in the order of the labels: the folder has no others. Those that it lacks are said,
            and no image has their labels.
        sixteen_bit: how samples of 16 bits are read; see `fgdd_fast.images.depth`.
        size: side of the crop in pixels, to which belongs a shorter side of `size // 7 * 8`.

    Raises:
        DataError: the folder cannot be read, has other classes, or not one image of a class can be used.
    """
    dataset = scan(folder)
    _check_classes(dataset.classes, classes, folder)
    view = partial(_centre, size=size, method=method)
    with progress.task("Reading validation images", len(dataset.images)) as task:
        advance = task.advance
        return _read(
            dataset, classes, view, size=size, sixteen_bit=sixteen_bit, threads=threads, advance=advance
        )


def _read(
    dataset: DataSet,
    classes: Sequence[str],
    view: Callable[[Pixels], Pixels],
    *,
    size: int,
    threads: int,
    sixteen_bit: SixteenBit = "shift",
    advance: Callable[[], None],
) -> LabelledImages:
    """Decode all images of a folder but those that cannot be used; `view` makes them alike in size."""
    pixels = np.empty((len(dataset.images), size, size, 3), np.uint8)
    used: list[SourceImage] = []
    hashes: list[str] = []
    skipped: list[Skipped] = []

    def read(image: SourceImage) -> tuple[Pixels, str] | Skipped:
        try:
            decoded = read_image_at(image.location, sixteen_bit)
            return view(decoded.pixels), decoded.sha256
        except ImageError as error:
            return Skipped(image.source, error.problem)

    with single_threaded_opencv(), ThreadPoolExecutor(threads, "read") as executor:
        results = ordered_map(executor, read, dataset.images, 4 * threads)
        for image, result in zip(dataset.images, results, strict=True):
            advance()
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                pixels[len(used)], sha256 = result
                used.append(image)
                hashes.append(sha256)
    _refuse_empty_classes(dataset, used, skipped)
    place = ByClassName.places(classes)
    found = LabelledImages(
        images=pixels[: len(used)],
        labels=np.array([place[image.class_name] for image in used], np.int64),
        classes=tuple(classes),
        sources=tuple(image.source for image in used),
        hashes=tuple(hashes),
        skipped=(*dataset.skipped, *skipped),
    )
    _list_skipped(dataset.root, found.skipped)
    return found


def _list_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    if skipped:
        _log.warning("%d images of %s are skipped:", len(skipped), folder)
    for item in skipped[:_MOST_LISTED]:
        _log.warning("  %s: %s", item.source, item.reason)
    if len(skipped) > _MOST_LISTED:
        _log.warning("  and %d more", len(skipped) - _MOST_LISTED)


def _refuse_empty_classes(dataset: DataSet, used: Sequence[SourceImage], skipped: Sequence[Skipped]) -> None:
    present = {image.class_name for image in used}
    for name in dataset.classes:
        if name not in present:
            reason = next(item for item in skipped if item.source.startswith(f"{name}/"))
            raise DataError(
                f"Not one image of the class {name!r} in {dataset.root} can be used "
                f"({reason.source!r}: {reason.reason})",
                "Put readable images there.",
            )


def _check_classes(found: Sequence[str], classes: Sequence[str], folder: Path) -> None:
    wanted, there = ByClassName.places(classes), ByClassName.places(found)
    unknown = [name for name in found if name not in wanted]
    lacking = [name for name in classes if name not in there]
    if unknown:
        wrong = [f"it has {_named(unknown)}"] + [f"it lacks {_named(lacking)}"] * bool(lacking)
        raise DataError(
            f"{folder} has other classes than students are trained on: {', and '.join(wrong)}",
            "Name a folder of held-out images with the same class folders.",
        )
    if lacking:
        _log.warning(
            "%s lacks %d of %d classes, which are not judged: %s",
            folder,
            len(lacking),
            len(classes),
            _named(lacking),
        )


def _named(names: Sequence[str], limit: int = 10) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _centre(pixels: Pixels, *, size: int, method: ResizeMethod) -> Pixels:
    height, width = pixels.shape[:2]
    short, shorter = max(size, size // 7 * 8), min(height, width)
    resized = resize(pixels, (short * width // shorter, short * height // shorter), method)
    top, left = (round((length - size) / 2) for length in resized.shape[:2])
    return resized[top : top + size, left : left + size]
