"""Folders of labelled photographs, decoded once into memory: what students are judged on, or learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import Pixels, ResizeMethod, resize
from fgdd_fast.parallel import ordered_map


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
    advance: Callable[[int], None] = lambda _: None,
) -> LabelledImages:
    """Read a folder of images to train on, each resized to a square whole, as tiles of whole images are.

    Args:
        folder: holds one folder of images for each class.
        size: side of the square in pixels.
        method: how images are resized.
        threads: that read.
        advance: told how many images there are, whenever one is done.

    Raises:
        DataError: the folder cannot be read, or not one image of a class can be used.
    """
    dataset = scan(folder)
    view = partial(resize, size=(size, size), method=method)
    return read_labelled(dataset, dataset.classes, view, size=size, threads=threads, advance=advance)


def read_labelled(
    dataset: DataSet,
    classes: Sequence[str],
    view: Callable[[Pixels], Pixels],
    *,
    size: int,
    threads: int,
    advance: Callable[[int], None],
) -> LabelledImages:
    """Decode all images of a folder, leaving out those that cannot be used.

    Args:
        dataset: the folder as scanned.
        classes: all of its classes, in the order of the labels.
        view: makes uint8 [size, size, 3] of an image of any size.
        size: pixels.
        threads: that read.
        advance: told how many images there are, whenever one is done.

    Raises:
        DataError: not one image of a class can be used.
    """
    cv2.setNumThreads(1)
    pixels = np.empty((len(dataset.images), size, size, 3), np.uint8)
    used: list[SourceImage] = []
    hashes: list[str] = []
    skipped: list[Skipped] = []

    def read(image: SourceImage) -> tuple[Pixels, str] | Skipped:
        try:
            decoded = read_image(image.path)
            return view(decoded.pixels), decoded.sha256
        except ImageError as error:
            return Skipped(image.source, error.problem)

    with ThreadPoolExecutor(threads, "read") as executor:
        results = ordered_map(executor, read, dataset.images, 4 * threads)
        for image, result in zip(dataset.images, results, strict=True):
            advance(len(dataset.images))
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                pixels[len(used)], sha256 = result
                used.append(image)
                hashes.append(sha256)
    _refuse_empty_classes(dataset, used, skipped)
    place = {name: label for label, name in enumerate(classes)}
    return LabelledImages(
        images=pixels[: len(used)],
        labels=np.array([place[image.class_name] for image in used], np.int64),
        classes=tuple(classes),
        sources=tuple(image.source for image in used),
        hashes=tuple(hashes),
        skipped=(*dataset.skipped, *skipped),
    )


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
