"""What the store takes, and how values that are no numbers lie in its tables."""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_fast.images.crops import Box
from fgdd_fast.images.place import Location, Place
from fgdd_fast.models.foreground import Foreground

Features = NDArray[np.float16]
_FLOAT16 = np.dtype("<f2")  # whatever the machine's byte order
_BOX = struct.Struct("<4Id")  # x, y, width, height, and what was measured of the box
_MASK = struct.Struct("<BII")  # the tag of the encoding, then height and width
_ROWS = 1  # a mask's bits, each row from a new byte, in zlib's format: as stores of format 4 kept it
_COLUMNS = 2  # its bits, each column of 8 rows a byte, in runs: two thirds of that, and faster made

_BLOBS = frozenset({"sha256", "content", "vector", "hash"})
_WHOLE = frozenset({"id", "image", "place", "x", "y", "width", "height"})


def check_kinds(columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    """Make sure that values read from a store are of their columns' kinds: SQLite keeps any in any column.

    Raises:
        sqlite3.DatabaseError: one is not.
    """
    wanted = [bytes if name in _BLOBS else int if name in _WHOLE else float for name in columns]
    for kinds in {tuple(map(type, row)) for row in rows}:
        if [*kinds] != wanted:
            raise sqlite3.DatabaseError(f"malformed values of {', '.join(columns)}")


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, struct.error, zlib.error, cv2.error) as error:
        raise sqlite3.DatabaseError(f"malformed {what}") from error


@dataclass(frozen=True)
class KnownFile:
    """What the store knows of a file that has not changed since it was read.

    Attributes:
        sha256: hexadecimal hash of its bytes.
        width, height: of the decoded image, in pixels, after its EXIF orientation.
    """

    sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class Measurement:
    """What was newly measured of one file.

    Attributes:
        path: where the image lies.
        signature: `file_signature` of it, taken before it was read.
        known: its content and size.
        foreground: what was found of its foreground, if that was missing; its mask is kept as `mask` alone.
        foreground_fingerprint: number of the way in which the foreground was found.
        losses: the loss (nats) of each box that was missing.
        label: the teacher's index of the image's class.
        loss_fingerprint: number of the way in which the losses were measured.
        shares: where the foreground was found, the share of it in [0, 1] that each crop keeps.
        perceptual_hash: 64 bits, if they were missing and are needed.
        mask: the foreground's, as `encode_mask` gives it; None where none is kept.
    """

    path: Location
    signature: str
    known: KnownFile
    foreground: Foreground | None
    foreground_fingerprint: int
    losses: Mapping[Box, float]
    label: int
    loss_fingerprint: int
    shares: Mapping[Box, float] = field(default_factory=dict)
    perceptual_hash: int | None = None
    mask: bytes | None = None


def path_key(path: Location) -> bytes:
    """A file's absolute path, as it is on disk, or what tells its place from all others."""
    return os.fsencode(str(path) if isinstance(path, Place) else path.absolute())


def encode_boxes(values: Mapping[Box, float]) -> bytes:
    """What was measured of the boxes of an image, 24 bytes each."""
    # A zero has no sign, as in a column of SQLite's.
    return b"".join(_BOX.pack(*box, value + 0.0) for box, value in values.items())


def decode_boxes(content: bytes) -> dict[Box, float]:
    """What was measured of each box; sqlite3.DatabaseError where it is nothing of the kind."""
    with _decoding("boxes"):
        return {Box(*row[:4]): row[4] for row in _BOX.iter_unpack(content)}


def merge_boxes(first: bytes, second: bytes) -> bytes:
    """Both together, as `encode_boxes` gives them; of a box that both have, the first."""
    known = decode_boxes(first)
    return first + encode_boxes({b: value for b, value in decode_boxes(second).items() if b not in known})


class PackedBoxes:
    """An aggregate of SQLite, by which rows of a box each become what `encode_boxes` gives."""

    def __init__(self) -> None:
        self._values: dict[Box, float] = {}

    def step(self, x: int, y: int, width: int, height: int, value: float) -> None:
        """Take a row."""
        self._values[Box(x, y, width, height)] = value

    def finalize(self) -> bytes:
        """Return all of a group."""
        return encode_boxes(self._values)


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Encode a mask of probabilities 0 to 255 in one bit a pixel; most take about half a kilobyte."""
    squeezed = zlib.compressobj(strategy=zlib.Z_RLE, wbits=-zlib.MAX_WBITS)
    content = squeezed.compress(np.packbits(mask > 127, axis=0).tobytes()) + squeezed.flush()
    return _MASK.pack(_COLUMNS, *mask.shape) + content


def decode_mask(content: bytes) -> NDArray[np.uint8]:
    """Return a mask, uint8 [height, width], 0 or 255; as any version of the store kept it.

    Raises:
        sqlite3.DatabaseError: it is none.
    """
    with _decoding("mask"):
        if content[0] not in (_ROWS, _COLUMNS):
            found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
            if found is None:
                raise ValueError("no PNG")
            return np.asarray(found, np.uint8)
        kind, height, width = _MASK.unpack_from(content)
        if kind == _COLUMNS:
            packed = np.frombuffer(zlib.decompress(content[_MASK.size :], -zlib.MAX_WBITS), np.uint8)
            columns = packed.reshape(-1, width)
            if height > 8 * columns.shape[0]:
                raise ValueError("too few bits")
            return np.unpackbits(columns, axis=0, count=height) * np.uint8(255)
        rows = np.frombuffer(zlib.decompress(content[_MASK.size :]), np.uint8).reshape(height, -1)
        if width > 8 * rows.shape[1]:
            raise ValueError("too few bits")
        return np.unpackbits(rows, axis=1, count=width) * np.uint8(255)


def encode_hash(perceptual_hash: int) -> bytes:
    """64 bits as 8 bytes; SQLite's own numbers have a sign."""
    return perceptual_hash.to_bytes(8, "big")


def decode_hash(content: bytes) -> int:
    """The 64 bits, as a number from 0."""
    return int.from_bytes(content, "big")


def encode_features(features: Features) -> bytes:
    """Two bytes for each channel."""
    return features.astype(_FLOAT16).tobytes()


def decode_features(content: bytes) -> Features:
    """Features, float16 [channels]; sqlite3.DatabaseError where they are none."""
    with _decoding("features"):
        return np.frombuffer(content, _FLOAT16).astype(np.float16)
