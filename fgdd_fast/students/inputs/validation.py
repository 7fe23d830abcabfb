"""The images that judge students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import scan
from fgdd_fast.images.resize import Pixels, ResizeMethod, resize
from fgdd_fast.students.inputs.labelled_images import LabelledImages, read_labelled


def read_validation(
    folder: Path,
    classes: Sequence[str],
    size: int,
    *,
    method: ResizeMethod = "area",
    threads: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> LabelledImages:
    """Read a folder of validation images as RDED does: the shorter side resized, and the centre cut out.

    Args:
        folder: holds one folder of images for each class.
        classes: names in the order of the labels: the folder must have all of them, and no others.
        size: side of the crop in pixels, to which belongs a shorter side of `size // 7 * 8`.
        method: how images are resized.
        threads: that read.
        advance: told how many images there are, whenever one is done.

    Raises:
        DataError: the folder cannot be read, has other classes, or not one image of a class can be used.
    """
    dataset = scan(folder)
    _check_classes(dataset.classes, classes, folder)
    view = partial(_centre, size=size, method=method)
    return read_labelled(dataset, classes, view, size=size, threads=threads, advance=advance)


def _check_classes(found: Sequence[str], classes: Sequence[str], folder: Path) -> None:
    unknown = [name for name in found if name not in classes]
    lacking = [name for name in classes if name not in found]
    wrong = [f"it has {_named(unknown)}"] * bool(unknown) + [f"it lacks {_named(lacking)}"] * bool(lacking)
    if wrong:
        raise DataError(
            f"{folder} has other classes than students are trained on: {', and '.join(wrong)}",
            "Name a folder of held-out images with the same class folders.",
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
