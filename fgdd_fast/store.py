"""The store of measurements: one SQLite file, keyed by what was measured and not by where it lies.

An occupancy belongs to the bytes of an image and to a foreground model; a loss to the bytes, a teacher's view
of a box, and a label. So a moved data set, another IPC or another rule measure nothing again, and more crops
only these. (A renamed image keeps its occupancy, and draws other crops: they follow its path.)
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from fgdd_fast.errors import StoreError
from fgdd_fast.records import Box

FILE_NAME = "measurements.sqlite3"
VERSION = 1
SCHEMA = """
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
"""


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
        occupancy: the share of foreground, if that was missing.
        label: the teacher's index of the image's class.
        losses: the loss (nats) of each box that was missing.
    """

    path: Path
    signature: str
    known: KnownFile
    occupancy: float | None
    label: int
    losses: Mapping[Box, float]


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
        if version == 0:
            for statement in SCHEMA.split(";"):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version = {VERSION}")
        self._database.execute("COMMIT")
        if version not in (0, VERSION):
            raise StoreError(
                f"The store {self._path} has format {version}, and this version reads format {VERSION}",
                "Name another folder with --store, or remove this one to measure anew.",
            )

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
                (_path_key(path), signature),
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

    def losses(self, sha256: str, fingerprint: int, label: int) -> dict[Box, float]:
        """The losses (nats) of all boxes of an image that were measured in this way for this label."""
        with self._explained():
            rows = self._database.execute(
                "SELECT x, y, width, height, loss FROM losses"
                " WHERE sha256 = ? AND fingerprint = ? AND label = ?",
                (bytes.fromhex(sha256), fingerprint, label),
            ).fetchall()
        return {Box(*row[:4]): float(row[4]) for row in rows}

    def add(self, measurements: Iterable[Measurement], *, foreground: int, teacher: int) -> None:
        """Keep measurements, all or none of them.

        Args:
            measurements: what was measured.
            foreground: fingerprint of the occupancies.
            teacher: fingerprint of the losses.
        """
        with self._explained(), self._transaction():
            for measurement in measurements:
                self._add(measurement, foreground, teacher)

    def _add(self, measurement: Measurement, foreground: int, teacher: int) -> None:
        known = measurement.known
        sha256 = bytes.fromhex(known.sha256)
        execute = self._database.execute
        execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
            (_path_key(measurement.path), measurement.signature, sha256),
        )
        execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?)", (sha256, known.width, known.height))
        if measurement.occupancy is not None:
            execute(
                "INSERT OR IGNORE INTO occupancies VALUES (?, ?, ?)",
                (sha256, foreground, measurement.occupancy),
            )
        self._database.executemany(
            "INSERT OR IGNORE INTO losses VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(sha256, teacher, measurement.label, *box, loss) for box, loss in measurement.losses.items()],
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


def _path_key(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _advice(error: sqlite3.Error) -> str:
    text = str(error)
    if "full" in text:
        return "Free some space, or name a folder on another disk with --store; all finished work is kept."
    if "locked" in text or "busy" in text:
        return "Another process holds it for long; wait for that to end, or name another folder with --store."
    if "malformed" in text or "not a database" in text:
        return "The file is damaged; remove it to measure anew."
    return "Name another folder with --store."
