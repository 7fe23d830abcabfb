"""The store of measurements: one SQLite file, keyed by what was measured and not by where it lies.

A foreground (occupancy, boxes found, mask, the share of it in each crop) belongs to the bytes of an image and
to a foreground model as it is asked for the image's class; a loss to the bytes, a teacher's view of a box,
and a label; features to the bytes and a teacher's view of a box; a perceptual hash to the bytes. So a moved
data set, another IPC or another rule measure nothing again, and more crops only these. (A renamed image keeps
its occupancy, and draws other crops: they follow its path.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fgdd_fast.errors import StoreError
from fgdd_fast.images.crops import Box
from fgdd_fast.measurement.store_format import (
    SCHEMAS,
    VERSION,
    Features,
    decode_features,
    decode_hash,
    decode_mask,
    encode_features,
    encode_hash,
    encode_mask,
    path_key,
)
from fgdd_fast.models.foreground import Foreground, Pixels, ScoredBox

FILE_NAME = "measurements.sqlite3"


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
        path: the file.
        signature: `file_signature` of it, taken before it was read.
        known: its content and size.
        foreground: what was found of its foreground, if that was missing.
        foreground_fingerprint: number of the way in which the foreground was found.
        losses: the loss (nats) of each box that was missing.
        label: the teacher's index of the image's class.
        loss_fingerprint: number of the way in which the losses were measured.
        shares: where the foreground was found, the share of it in [0, 1] that each crop keeps.
        perceptual_hash: 64 bits, if they were missing and are needed.
    """

    path: Path
    signature: str
    known: KnownFile
    foreground: Foreground | None
    foreground_fingerprint: int
    losses: Mapping[Box, float]
    label: int
    loss_fingerprint: int
    shares: Mapping[Box, float] = field(default_factory=dict)
    perceptual_hash: int | None = None


def file_signature(path: Path) -> str:
    """What changes when a file changes: its inode, size, and times of content and status.

    Raises:
        OSError: the file is gone or cannot be reached.
    """
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class Store:
    """Measurements on disk. Use it from one thread; several processes may share one folder.

    Args:
        folder: holds the SQLite file; created if missing.

    Raises:
        StoreError: (also from every method) the store cannot be opened, read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The store folder {folder} cannot be made: {error.strerror}", "Name another with --store."
            ) from error
        with self._explained():
            self._database = sqlite3.connect(self._path, timeout=60, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def _prepare(self) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        # A commit survives the death of the process; only a power cut can lose the last ones.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute("BEGIN IMMEDIATE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            self._database.execute("ROLLBACK")
            raise StoreError(
                f"The store {self._path} has format {version}, and this version reads format {VERSION}",
                "Name another folder with --store, or remove this one to measure anew.",
            )
        for schema in SCHEMAS[version:]:
            for statement in schema.split(";"):
                self._database.execute(statement)
        self._database.execute(f"PRAGMA user_version = {VERSION}")
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the file; what was added is on disk already."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def fingerprint(self, text: str) -> int:
        """The number under which measurements made in the way that `text` describes are kept."""
        with self._explained():
            self._database.execute(
                "INSERT INTO fingerprints (fingerprint) VALUES (?) ON CONFLICT DO NOTHING", (text,)
            )
            (number,) = self._database.execute(
                "SELECT id FROM fingerprints WHERE fingerprint = ?", (text,)
            ).fetchone()
        return int(number)

    def known_file(self, path: Path, signature: str) -> KnownFile | None:
        """The content of a file, if it was read before and its signature is the same."""
        with self._explained():
            row = self._database.execute(
                "SELECT sha256, width, height FROM files JOIN images USING (sha256)"
                " WHERE path = ? AND signature = ?",
                (path_key(path), signature),
            ).fetchone()
        return None if row is None else KnownFile(row[0].hex(), row[1], row[2])

    def known_content(self, sha256: str) -> KnownFile | None:
        """An image of which something was measured before, wherever its file lay then."""
        with self._explained():
            row = self._database.execute(
                "SELECT width, height FROM images WHERE sha256 = ?", (bytes.fromhex(sha256),)
            ).fetchone()
        return None if row is None else KnownFile(sha256, row[0], row[1])

    def occupancy(self, sha256: str, fingerprint: int) -> float | None:
        """The occupancy of an image in [0, 1], if it was measured in this way."""
        with self._explained():
            row = self._database.execute(
                "SELECT occupancy FROM occupancies WHERE sha256 = ? AND fingerprint = ?",
                (bytes.fromhex(sha256), fingerprint),
            ).fetchone()
        return None if row is None else float(row[0])

    def boxes(self, sha256: str, fingerprint: int) -> tuple[ScoredBox, ...]:
        """The boxes found in an image in this way, best first; empty also where it was not measured."""
        with self._explained():
            rows = self._database.execute(
                'SELECT "left", top, "right", bottom, score FROM boxes'
                " WHERE sha256 = ? AND fingerprint = ? ORDER BY place",
                (bytes.fromhex(sha256), fingerprint),
            ).fetchall()
        return tuple(ScoredBox(*row) for row in rows)

    def mask(self, sha256: str, fingerprint: int) -> Pixels | None:
        """The mask of an image's foreground, if it was kept: uint8 [height, width], 0 or 255.

        The resolution is that of the model which found it.
        """
        with self._explained():
            row = self._database.execute(
                "SELECT png FROM masks WHERE sha256 = ? AND fingerprint = ?",
                (bytes.fromhex(sha256), fingerprint),
            ).fetchone()
        return None if row is None else decode_mask(row[0])

    def losses(self, sha256: str, fingerprint: int, label: int) -> dict[Box, float]:
        """The losses (nats) of all boxes of an image that were measured in this way for this label."""
        with self._explained():
            rows = self._database.execute(
                "SELECT x, y, width, height, loss FROM losses"
                " WHERE sha256 = ? AND fingerprint = ? AND label = ?",
                (bytes.fromhex(sha256), fingerprint, label),
            ).fetchall()
        return {Box(*row[:4]): float(row[4]) for row in rows}

    def shares(self, sha256: str, fingerprint: int) -> dict[Box, float]:
        """The share in [0, 1] of an image's foreground, found in this way, within each box measured."""
        with self._explained():
            rows = self._database.execute(
                "SELECT x, y, width, height, share FROM shares WHERE sha256 = ? AND fingerprint = ?",
                (bytes.fromhex(sha256), fingerprint),
            ).fetchall()
        return {Box(*row[:4]): float(row[4]) for row in rows}

    def perceptual_hash(self, sha256: str) -> int | None:
        """The 64 bits of an image's perceptual hash, if it was computed."""
        with self._explained():
            row = self._database.execute(
                "SELECT hash FROM perceptual_hashes WHERE sha256 = ?", (bytes.fromhex(sha256),)
            ).fetchone()
        return None if row is None else decode_hash(row[0])

    def features(self, sha256: str, fingerprint: int, box: Box) -> Features | None:
        """What a teacher sees in a box of an image, float16 [channels], if it was measured in this way."""
        with self._explained():
            row = self._database.execute(
                "SELECT vector FROM features WHERE sha256 = ? AND fingerprint = ?"
                " AND x = ? AND y = ? AND width = ? AND height = ?",
                (bytes.fromhex(sha256), fingerprint, *box),
            ).fetchone()
        return None if row is None else decode_features(row[0])

    def add_features(self, fingerprint: int, measured: Iterable[tuple[str, Box, Features]]) -> None:
        """Keep features, float16 [channels], of boxes of images (by their SHA-256), all or none of them."""
        with self._explained(), self._transaction():
            self._database.executemany(
                "INSERT OR IGNORE INTO features VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (bytes.fromhex(sha256), fingerprint, *box, encode_features(vector))
                    for sha256, box, vector in measured
                ],
            )

    def add(self, measurements: Iterable[Measurement]) -> None:
        """Keep measurements, all or none of them; what is known already stays as it is."""
        with self._explained(), self._transaction():
            for measurement in measurements:
                self._add(measurement)

    def _add(self, measurement: Measurement) -> None:
        known = measurement.known
        sha256 = bytes.fromhex(known.sha256)
        execute = self._database.execute
        execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
            (path_key(measurement.path), measurement.signature, sha256),
        )
        execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?)", (sha256, known.width, known.height))
        if measurement.foreground is not None:
            self._add_foreground(sha256, measurement.foreground_fingerprint, measurement.foreground)
            self._database.executemany(
                "INSERT OR IGNORE INTO shares VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (sha256, measurement.foreground_fingerprint, *box, share)
                    for box, share in measurement.shares.items()
                ],
            )
        if measurement.perceptual_hash is not None:
            execute(
                "INSERT OR IGNORE INTO perceptual_hashes VALUES (?, ?)",
                (sha256, encode_hash(measurement.perceptual_hash)),
            )
        self._database.executemany(
            "INSERT OR IGNORE INTO losses VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (sha256, measurement.loss_fingerprint, measurement.label, *box, loss)
                for box, loss in measurement.losses.items()
            ],
        )

    def _add_foreground(self, sha256: bytes, fingerprint: int, foreground: Foreground) -> None:
        added = self._database.execute(
            "INSERT OR IGNORE INTO occupancies VALUES (?, ?, ?)", (sha256, fingerprint, foreground.occupancy)
        )
        if added.rowcount == 1:  # the boxes belong to the occupancy that is kept
            self._database.executemany(
                "INSERT INTO boxes VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(sha256, fingerprint, place, *box) for place, box in enumerate(foreground.boxes)],
            )
        if foreground.mask is not None:
            self._database.execute(
                "INSERT OR IGNORE INTO masks VALUES (?, ?, ?)",
                (sha256, fingerprint, encode_mask(foreground.mask)),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"The store {self._path} failed: {error}", _advice(error)) from error


def _advice(error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text:
        return "Free some space, or name a folder on another disk with --store; all finished work is kept."
    if "locked" in text or "busy" in text:
        return "Another process holds it for long; wait for that to end, or name another folder with --store."
    if "malformed" in text or "not a database" in text:
        return "The file is damaged; remove it to measure anew."
    return "Name another folder with --store."
