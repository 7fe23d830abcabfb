"""What an image's file tells, unread but for its ends, and what its pixels tell."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from dataclasses import dataclass

import cv2
import numpy as np

from fgdd_fast.errors import ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import decode_image, read_file, read_pixels
from fgdd_fast.images.file_kinds import format_of
from fgdd_fast.images.headers import read_header
from fgdd_fast.images.near_duplicates import perceptual_hash
from fgdd_fast.images.place import Location

_ENDS = 4096  # bytes: a format's signature, a PNG's depth, and of nearly all photographs the orientation
_PNM_DEEP = re.compile(rb"P[2356]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s+(\d+)\s")
_TURNED = 0x0112  # the Exif tag of the orientation


@dataclass(frozen=True, slots=True)
class File:
    """An image's file, as far as its size, its first and its last bytes tell.

    Attributes:
        image: whose it is.
        name: how messages name it: its source, below the folder of the validation images if it is of these.
        size: bytes.
        ends: a hash of the first and the last bytes.
        format: what the first bytes announce, as in `JPEG`; empty where they tell none.
        deep: whether its samples have 16 bits.
        orientation: of the Exif standard, 1 to 8; 1 where the first bytes tell none.
        pages: of a TIFF; else 1.
    """

    image: SourceImage
    name: str
    size: int
    ends: bytes
    format: str
    deep: bool = False
    orientation: int = 1
    pages: int = 1


def read_ends(image: SourceImage, name: str) -> File | None:
    """Read a file's first and last bytes, and all of a TIFF; None where it cannot be opened."""
    try:
        size, head, tail = _ends(image)
    except (OSError, ImageError):
        return None
    ends = hashlib.blake2b(head + tail, digest_size=16).digest()
    found = format_of(head)
    if found == "TIFF":
        return _read_tiff(image, name, size, ends)
    return File(image, name, size, ends, found, _is_deep(found, head), _orientation(found, head))


def _ends(image: SourceImage) -> tuple[int, bytes, bytes]:
    """A file's size, its first and its last bytes."""
    if image.place is not None:  # nothing is gained by asking for less than all
        content = image.place.read_bytes()
        return len(content), content[:_ENDS], content[-_ENDS:]
    descriptor = os.open(image.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        return size, os.read(descriptor, _ENDS), os.pread(descriptor, _ENDS, max(size - _ENDS, 0))
    finally:
        os.close(descriptor)


def file_hash(path: Location) -> str:
    """Return the SHA-256 of a file's bytes; empty where it cannot be read."""
    try:
        return read_file(path).sha256
    except ImageError:
        return ""


def largest_value(path: Location) -> int | None:
    """Return the largest value of an image of 16 bits, up to 65535; None where it is no such image."""
    try:
        pixels = read_pixels(read_file(path).content, cv2.IMREAD_UNCHANGED)
    except ImageError:
        return None
    return None if pixels is None or pixels.dtype != np.uint16 else int(pixels.max())


def _is_deep(image_format: str, head: bytes) -> bool:
    if image_format == "PNG":
        return head[24:25] == b"\x10"
    found = _PNM_DEEP.match(head) if image_format == "PNM" else None
    return found is not None and int(found[1]) > 255


def _orientation(image_format: str, head: bytes) -> int:
    """The Exif orientation in the first bytes of a JPEG; 1 where they have none."""
    start = head.find(b"Exif\0\0") + 6 if image_format == "JPEG" else 0
    if start < 6:
        return 1
    order = ">" if head[start : start + 2] == b"MM" else "<"
    try:
        (place,) = struct.unpack_from(f"{order}I", head, start + 4)
        (count,) = struct.unpack_from(f"{order}H", head, start + place)
        for at in range(start + place + 2, start + place + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", head, at)
            if tag == _TURNED:
                return value if value in range(1, 9) else 1
    except struct.error:
        pass
    return 1


def _read_tiff(image: SourceImage, name: str, size: int, ends: bytes) -> File:
    try:
        content = read_file(image.location).content
        header = read_header(content)
    except ImageError:
        return File(image, name, size, ends, "TIFF")
    deep = header.bit_depth == 16
    return File(image, name, size, ends, "TIFF", deep, header.orientation, _pages(content))


def _pages(content: bytes) -> int:
    """Pages of a TIFF: its directories, each of which says where the next one is."""
    order = "<" if content[:1] == b"I" else ">"
    met: set[int] = set()
    try:
        (place,) = struct.unpack_from(f"{order}I", content, 4)
        while place and place not in met:
            met.add(place)
            (count,) = struct.unpack_from(f"{order}H", content, place)
            (place,) = struct.unpack_from(f"{order}I", content, place + 2 + 12 * count)
    except struct.error:
        pass
    return max(len(met), 1)


@dataclass(frozen=True, slots=True)
class Looks:
    """What the pixels of an image tell.

    Attributes:
        class_name: of the image.
        width, height: pixels, upright.
        perceptual_hash: see `fgdd_fast.images.near_duplicates`.
        brightness: mean of the grey values of the tile that shows the whole image, in [0, 255].
        contrast: their standard deviation.
        sharpness: the standard deviation of the tile's Laplacian.
    """

    class_name: str
    width: int
    height: int
    perceptual_hash: int
    brightness: float
    contrast: float
    sharpness: float


def look_at(content: bytes, class_name: str, tile: int) -> Looks:
    """Decode an image, and look at it at the size of a tile, in pixels a side.

    Raises:
        ImageError: it cannot be decoded.
    """
    pixels = decode_image(content)
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (tile, tile), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    edges = cv2.Laplacian(grey, cv2.CV_32F)
    return Looks(
        class_name,
        width,
        height,
        perceptual_hash(pixels),
        float(grey.mean()),
        float(grey.std()),
        float(edges.std()),
    )
