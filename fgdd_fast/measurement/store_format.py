"""What the store takes, its tables, version by version, and how values that are no numbers lie in them."""

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
_MASK = struct.Struct("<BII")  # the tag of the encoding, then height and width
_PACKED = 1  # a mask's bits, each row from a new byte, in zlib's format
_LEVEL = 4  # of zlib: 0.13 ms and 0.8 kB for a mask of 320 x 320; as the smallest PNG it is 2.4 ms and 0.7 kB

# What each version adds to the one before: a store is made, or upgraded in place, by all that it lacks.
SCHEMAS = (
    """
CREATE TABLE files (
    path BLOB PRIMARY KEY, signature TEXT NOT NULL, sha256 BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE images (
    sha256 BLOB PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE fingerprints (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE
);
CREATE TABLE occupancies (
    sha256 BLOB NOT NULL, fingerprint INTEGER NOT NULL, occupancy REAL NOT NULL,
    PRIMARY KEY (sha256, fingerprint)
) WITHOUT ROWID;
CREATE TABLE losses (
    sha256 BLOB NOT NULL, fingerprint INTEGER NOT NULL, label INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    loss REAL NOT NULL,
    PRIMARY KEY (sha256, fingerprint, label, x, y, width, height)
) WITHOUT ROWID;
""",
    """
CREATE TABLE boxes (
    sha256 BLOB NOT NULL, fingerprint INTEGER NOT NULL, place INTEGER NOT NULL,
    "left" REAL NOT NULL, top REAL NOT NULL, "right" REAL NOT NULL, bottom REAL NOT NULL,
    score REAL NOT NULL,
    PRIMARY KEY (sha256, fingerprint, place)
) WITHOUT ROWID;
CREATE TABLE masks (
    sha256 BLOB NOT NULL, fingerprint INTEGER NOT NULL, png BLOB NOT NULL,
    PRIMARY KEY (sha256, fingerprint)
);
""",
    """
CREATE TABLE shares (
    sha256 BLOB NOT NULL, fingerprint INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    share REAL NOT NULL,
    PRIMARY KEY (sha256, fingerprint, x, y, width, height)
) WITHOUT ROWID;
CREATE TABLE perceptual_hashes (
    sha256 BLOB PRIMARY KEY, hash BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE features (
    sha256 BLOB NOT NULL, fingerprint INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (sha256, fingerprint, x, y, width, height)
);
""",
    "ALTER TABLE masks RENAME COLUMN png TO content",
)
VERSION = len(SCHEMAS)
BY_CONTENT = (
    *("files", "occupancies", "losses", "boxes", "masks", "shares"),
    *("perceptual_hashes", "features", "images"),
)
"""The tables whose rows belong to the bytes of an image."""

_BLOBS = frozenset({"sha256", "content", "vector", "hash"})
_WHOLE = frozenset({"id", "place", "x", "y", "width", "height"})


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


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Encode a mask of probabilities 0 to 255 in one bit a pixel; most take about a kilobyte."""
    return _MASK.pack(_PACKED, *mask.shape) + zlib.compress(np.packbits(mask > 127, axis=1).tobytes(), _LEVEL)


def decode_mask(content: bytes) -> NDArray[np.uint8]:
    """Return a mask, uint8 [height, width], 0 or 255: packed, or a PNG as stores before format 4 kept it.

    Raises:
        sqlite3.DatabaseError: it is neither.
    """
    with _decoding("mask"):
        if content[0] != _PACKED:
            found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
            if found is None:
                raise ValueError("no PNG")
            return np.asarray(found, np.uint8)
        _, height, width = _MASK.unpack_from(content)
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
