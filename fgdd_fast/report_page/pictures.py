"""The page's pictures: small JPEG images of mosaics and sources, as large as the page's size allows."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.depth import SixteenBit, read_image_at
from fgdd_fast.images.place import Location
from fgdd_fast.images.resize import Pixels, resize
from fgdd_fast.output.distilled import DISTIL_AGAIN
from fgdd_fast.output.run_record import SourceRecord
from fgdd_fast.parallel import ordered_map, single_threaded_opencv
from fgdd_fast.report_page.classes import ClassPage

BYTES_PER_PIXEL = 0.25  # of a picture, for which its quality is lowered where it takes more
_SMALLEST = 32  # side of a mosaic, whatever that takes
_QUALITIES = (88, 78, 65, 50, 30, 10)
_LEAST, _ASPECT = 600, 0.8  # bytes of the smallest picture; area of a source within its square


@dataclass(frozen=True)
class Sizes:
    """The longer sides of the pictures in pixels; 0 where there is no room for them.

    Attributes:
        mosaic: of mosaics.
        near: of the images nearest to a threshold.
        crop: of images of which a crop was taken.
        whole: of images that were kept whole, and are to be seen in their mosaic as well.
    """

    mosaic: int
    near: int
    crop: int
    whole: int


@dataclass(frozen=True)
class ClassPictures:
    """The pictures of one class, each as Base64 of JPEG; None for what is left out.

    Attributes:
        mosaics: of its images, in their order.
        sources: of its sources, in their order.
        unreadable: sources whose files are gone, changed or cannot be read.
    """

    mosaics: tuple[str | None, ...]
    sources: tuple[str | None, ...]
    unreadable: int


def choose_sizes(counts: Sequence[int], mosaic_side: int, room: float) -> Sizes:
    """Choose how large pictures are, so that all of them take about `room` bytes.

    Mosaics come first, then the images nearest to thresholds, then those that were cropped: each kind is
    given its least size, in this order, as far as there is room; what is left makes them larger.

    Args:
        counts: pictures of each kind of `Sizes`, in its order.
        mosaic_side: of the mosaics as they are, in pixels.
        room: bytes.
    """
    least = (min(80, mosaic_side), 64, 96, 96)
    most = (min(256, mosaic_side), 320, 320, 320)
    areas = (1.0, _ASPECT, _ASPECT, _ASPECT)
    if _cost(counts[0], least[0], 1.0) > room:
        side = max(_SMALLEST, math.isqrt(int(room / counts[0] / BYTES_PER_PIXEL)))
        return Sizes(min(side, most[0]), 0, 0, 0)
    sides = [0, 0, 0, 0]
    for kind, count in enumerate(counts):
        if (cost := _cost(count, least[kind], areas[kind])) <= room:
            sides[kind] = least[kind]
            room -= cost
    for kind, count in enumerate(counts):
        if not count or not sides[kind]:
            continue
        before = _cost(count, sides[kind], areas[kind])
        side = math.isqrt(int((room + before) / count / BYTES_PER_PIXEL / areas[kind]))
        sides[kind] = min(max(side, sides[kind]), most[kind])
        room -= _cost(count, sides[kind], areas[kind]) - before
    return Sizes(*sides)


def _cost(count: int, side: int, area: float) -> float:
    return count * max(_LEAST, side * side * area * BYTES_PER_PIXEL)


def count_pictures(pages: Sequence[ClassPage], *, sources: bool) -> tuple[int, int, int, int]:
    """Count the pictures of each kind of `Sizes`.

    Args:
        pages: of the classes.
        sources: whether there are files of sources.
    """
    kinds = [kind for page in pages for kind in _kinds(page)] if sources else []
    mosaics = sum(len(page.images) for page in pages)
    return mosaics, kinds.count("near"), kinds.count("crop"), kinds.count("whole")


def _kinds(page: ClassPage) -> list[str]:
    """What each source of a class is."""
    cropped = {tile.source for image in page.images for tile in image.tiles if tile.kind == "crop"}
    return [
        "near" if source in page.near else "crop" if source in cropped else "whole" for source in page.sources
    ]


def class_pictures(
    pages: Sequence[ClassPage],
    out: Path,
    locate: Callable[[str], Location] | None,
    hashes: Mapping[str, str],
    sizes: Sizes,
    *,
    sixteen_bit: SixteenBit,
    threads: int,
) -> Iterator[ClassPictures]:
    """Make the pictures of each class.

    Args:
        pages: of the classes.
        out: the distilled data set.
        locate: says where a source lies; None where they are not shown.
        hashes: hexadecimal SHA-256 of each source's file.
        sizes: of the pictures.
        sixteen_bit: how sources of 16 bits are read; see `fgdd_fast.images.depth`.
        threads: classes at the same time.

    Raises:
        DataError: a mosaic cannot be read.
    """

    def make(page: ClassPage) -> ClassPictures:
        mosaics = [_mosaic(out / image.file, sizes.mosaic) for image in page.images]
        if locate is None:
            return ClassPictures(tuple(mosaics), (None,) * len(page.sources), 0)
        sides = [int(getattr(sizes, kind)) for kind in _kinds(page)]
        tried = [
            (side, _source(locate(source), hashes[source], side, sixteen_bit) if side else None)
            for source, side in zip(page.sources, sides, strict=True)
        ]
        unreadable = sum(picture is None for side, picture in tried if side)
        return ClassPictures(tuple(mosaics), tuple(picture for _, picture in tried), unreadable)

    with single_threaded_opencv(), ThreadPoolExecutor(threads, "pictures") as executor:
        yield from ordered_map(executor, make, pages, 2 * threads)


def _mosaic(path: Path, side: int) -> str:
    try:
        return encode_picture(read_image(path).pixels, side)
    except ImageError as error:
        raise DataError(f"The mosaic {path} cannot be shown: {error.problem}", DISTIL_AGAIN) from error


def _source(path: Location, sha256: str, side: int, sixteen_bit: SixteenBit) -> str | None:
    try:
        image = read_image_at(path, sixteen_bit)
    except ImageError:
        return None
    return encode_picture(image.pixels, side) if image.sha256 == sha256 else None


def encode_picture(pixels: Pixels, side: int) -> str:
    """Return pixels, uint8 RGB [height, width, 3], as Base64 of JPEG, the longer side at most `side`."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.cvtColor(resize(pixels, size, "area"), cv2.COLOR_RGB2BGR)
    limit = max(_LEAST, size[0] * size[1] * BYTES_PER_PIXEL)
    content = b""
    for quality in _QUALITIES:
        asked = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        content = cv2.imencode(".jpg", small, asked)[1].tobytes()
        if len(content) <= limit:
            break
    return base64.b64encode(content).decode("ascii")


def all_hashes(pages: Sequence[ClassPage], known: Mapping[str, SourceRecord]) -> dict[str, str]:
    """The hexadecimal SHA-256 of each source of the classes."""
    hashes = {tile.source: tile.sha256 for page in pages for image in page.images for tile in image.tiles}
    return {source: record.sha256 for source, record in known.items()} | hashes
