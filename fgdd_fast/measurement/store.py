"""The store of measurements: one SQLite file, keyed by what was measured and not by where it lies.

A foreground (occupancy, boxes found, mask, the share of it in each crop) belongs to the bytes of an image and
to a foreground model as it is asked for the image's class; a loss to the bytes, a teacher's view of a box,
and a label; features to the bytes and a teacher's view of a box; a perceptual hash to the bytes. So a moved
data set, another IPC or another rule measure nothing again, and more crops only these. (A renamed image keeps
its occupancy, and draws other crops: they follow its path.)
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from fgdd_fast.errors import StoreError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.place import Location
from fgdd_fast.measurement.store_format import (
    Features,
    KnownFile,
    Measurement,
    check_kinds,
    decode_boxes,
    decode_features,
    decode_hash,
    decode_mask,
    encode_boxes,
    encode_features,
    encode_hash,
    path_key,
)
from fgdd_fast.measurement.store_tables import ADD_LOSSES, ADD_SHARES, BY_CONTENT, make_tables, require_locks
from fgdd_fast.models.foreground import Pixels, ScoredBox
from fgdd_fast.parallel import batched

FILE_NAME = "measurements.sqlite3"
_PATIENCE = 60  # seconds to wait for other processes
_VARIABLES = 900  # of one query; older SQLites take 999
_KEY = "sha256, fingerprint"
Value = TypeVar("Value")
_IMAGES = "wanted CROSS JOIN images USING (sha256)"

Key = tuple[str, int]
"""Content (hexadecimal SHA-256) of an image, and the fingerprint of how something was found in it."""


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
            problem = f"The store folder {folder} cannot be made: {error.strerror}"
            raise StoreError(problem, "Name another with --store.") from error
        require_locks(folder)
        with self._explained():
            self._database = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def _prepare(self) -> None:
        self._write_ahead()
        # A commit survives the death of the process; only a power cut can lose the last ones.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute("BEGIN IMMEDIATE")
        make_tables(self._database, self._path)
        self._database.execute("COMMIT")

    def _write_ahead(self) -> None:
        """Let readers work while another process writes.

        While several processes do this to a new store, SQLite refuses all but one at once: its timeout does
        not apply.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.01)

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
        """Return the number under which measurements made in the way that `text` describes are kept."""
        return self.fingerprints([text])[0]

    def fingerprints(self, texts: Sequence[str]) -> list[int]:
        """Return the number of each text: see `fingerprint`."""
        known = self._numbers(texts)
        new = [(text,) for text in dict.fromkeys(texts) if text not in known]
        if new:
            with self._explained(), self._transaction():
                self._database.executemany(
                    "INSERT INTO fingerprints (fingerprint) VALUES (?) ON CONFLICT DO NOTHING", new
                )
            known = self._numbers(texts)
        return [known[text] for text in texts]

    def _numbers(self, texts: Iterable[str]) -> dict[str, int]:
        tables = "wanted CROSS JOIN fingerprints USING (fingerprint)"
        return dict(self._rows("fingerprint", "fingerprint, id", ((text,) for text in texts), tables))

    def known_files(self, signatures: Mapping[Location, str]) -> dict[Location, KnownFile]:
        """Return the contents of those files that were read before, when their signatures were the same."""
        paths = {path_key(path): path for path in signatures}
        rows = self._rows(
            "path, signature",
            "path, sha256, width, height",
            ((key, signatures[path]) for key, path in paths.items()),
            "wanted CROSS JOIN files USING (path, signature) CROSS JOIN images USING (image)",
        )
        return {paths[key]: KnownFile(sha256.hex(), *size) for key, sha256, *size in rows}

    def known_contents(self, sha256s: Iterable[str]) -> dict[str, KnownFile]:
        """Return those images of which something was measured before, wherever their files lay then."""
        wanted = ((bytes.fromhex(sha256),) for sha256 in sha256s)
        rows = self._rows("sha256", "sha256, width, height", wanted, _IMAGES)
        return {row[0].hex(): KnownFile(row[0].hex(), *row[1:]) for row in rows}

    def occupancies(self, keys: Iterable[Key]) -> dict[Key, float]:
        """Return the occupancies in [0, 1] of those images that were measured in these ways."""
        return {key: row[0] for key, row in self._measured("occupancies", _KEY, "occupancy", keys)}

    def boxes(self, sha256: str, fingerprint: int) -> tuple[ScoredBox, ...]:
        """Return the boxes found in an image in this way, best first; none where it was not measured."""
        columns = 'place, "left", top, "right", bottom, score'
        found = self._measured("boxes", _KEY, columns, [(sha256, fingerprint)])
        return tuple(ScoredBox(*row[1:]) for _, row in sorted(found))

    def masks(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Pixels]]:
        """Yield those masks of foregrounds that were kept: uint8 [height, width], 0 or 255.

        The resolution is that of the model which found them.
        """
        for key, (content,) in self._measured("masks", _KEY, "content", keys):
            with self._explained():
                yield key, decode_mask(content)

    def mask(self, sha256: str, fingerprint: int) -> Pixels | None:
        """Return the mask of one image, if it was kept: see `masks`."""
        return next((mask for _, mask in self.masks([(sha256, fingerprint)])), None)

    def losses(self, keys: Iterable[tuple[str, int, int]]) -> dict[tuple[str, int, int], dict[Box, float]]:
        """Return the losses (nats) of all boxes of images that were measured for these labels.

        Args:
            keys: content, fingerprint and label of each image.
        """
        return self._decoded("losses", "sha256, fingerprint, label", "content", keys, decode_boxes)

    def shares(self, keys: Iterable[Key]) -> dict[Key, dict[Box, float]]:
        """Return the share in [0, 1] of foregrounds, found in these ways, within each box measured."""
        return self._decoded("shares", _KEY, "content", keys, decode_boxes)

    def perceptual_hashes(self, sha256s: Iterable[str]) -> dict[str, int]:
        """Return the 64 bits of those images' perceptual hashes that were computed."""
        found = self._measured("perceptual_hashes", "sha256", "hash", ((sha256,) for sha256 in sha256s))
        return {sha256: decode_hash(row[0]) for (sha256,), row in found}

    def features(self, fingerprint: int, views: Iterable[tuple[str, Box]]) -> dict[tuple[str, Box], Features]:
        """Return what a teacher sees in boxes of images (by content), float16 [channels], if measured."""
        names = "sha256, fingerprint, x, y, width, height"
        keys = ((sha256, fingerprint, *box) for sha256, box in views)
        found = self._decoded("features", names, "vector", keys, decode_features)
        return {(key[0], Box(*key[2:])): features for key, features in found.items()}

    def add_features(self, fingerprint: int, measured: Iterable[tuple[str, Box, Features]]) -> None:
        """Keep features, float16 [channels], of boxes of images that are known, all or none of them."""
        rows = [(bytes.fromhex(sha256), box, encode_features(vector)) for sha256, box, vector in measured]
        with self._explained(), self._transaction():
            numbers = self._image_numbers(row[0] for row in rows)
            self._database.executemany(
                "INSERT OR IGNORE INTO features VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(numbers[row[0]], fingerprint, *row[1], row[2]) for row in rows if row[0] in numbers],
            )

    def add(self, measurements: Iterable[Measurement]) -> None:
        """Keep measurements, all or none of them; what is known already stays as it is."""
        contents = [(bytes.fromhex(each.known.sha256), each) for each in measurements]
        if not contents:
            return
        with self._explained(), self._transaction():
            insert = self._database.executemany
            images = [(sha256, each.known.width, each.known.height) for sha256, each in contents]
            insert("INSERT OR IGNORE INTO images (sha256, width, height) VALUES (?, ?, ?)", images)
            numbers = self._image_numbers(sha256 for sha256, _ in contents)
            found = [(numbers[sha256], each) for sha256, each in contents]
            files = [(path_key(each.path), each.signature, image) for image, each in found]
            insert("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", files)
            self._add_foregrounds(found)
            hashes = [
                (image, encode_hash(each.perceptual_hash))
                for image, each in found
                if each.perceptual_hash is not None
            ]
            insert("INSERT OR IGNORE INTO perceptual_hashes VALUES (?, ?)", hashes)
            losses = [
                (image, each.loss_fingerprint, each.label, encode_boxes(each.losses))
                for image, each in found
                if each.losses
            ]
            insert(ADD_LOSSES, losses)

    def forget(self, sha256s: Iterable[str]) -> int:
        """Overwrite everything that is kept of images, and return of how many there was something."""
        contents = [bytes.fromhex(sha256) for sha256 in sha256s]
        with self._explained():
            self._database.execute("PRAGMA secure_delete = ON")
            with self._transaction():
                keys = [(image,) for image in self._image_numbers(contents).values()]
                for table in BY_CONTENT:  # the last names each once
                    gone = self._database.executemany(f"DELETE FROM {table} WHERE image = ?", keys).rowcount
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return max(gone, 0)

    def _image_numbers(self, contents: Iterable[bytes]) -> dict[bytes, int]:
        """The numbers of those images that are known, by the hashes of their bytes."""
        return dict(self._rows("sha256", "sha256, image", ((sha256,) for sha256 in contents), _IMAGES))

    def _add_foregrounds(self, found: Sequence[tuple[int, Measurement]]) -> None:
        insert, place = self._database.executemany, "INSERT OR IGNORE INTO occupancies VALUES (?, ?, ?)"
        occupancies, masks, shares = list[Any](), list[Any](), list[Any]()
        for image, each in found:
            if each.foreground is None:
                continue
            key = image, each.foreground_fingerprint
            occupancy, boxes = (*key, each.foreground.occupancy), each.foreground.boxes
            if not boxes:
                occupancies.append(occupancy)
            elif self._database.execute(place, occupancy).rowcount == 1:
                # the boxes belong to the occupancy that is kept
                rows = [(*key, number, *box) for number, box in enumerate(boxes)]
                insert("INSERT INTO boxes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            if each.mask is not None:
                masks.append((*key, each.mask))
            if each.shares:
                shares.append((*key, encode_boxes(each.shares)))
        insert(place, occupancies)
        insert("INSERT OR IGNORE INTO masks VALUES (?, ?, ?)", masks)
        insert(ADD_SHARES, shares)

    def _measured(
        self, table: str, names: str, columns: str, keys: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Yield key and columns of the rows with these keys, whose first part is a content."""
        count = names.count(",") + 1
        encoded = ((bytes.fromhex(key[0]), *key[1:]) for key in keys)
        numbered = f"(SELECT wanted.*, image FROM {_IMAGES})"
        tables = f"{numbered} CROSS JOIN {table} USING (image{names.removeprefix('sha256')})"
        for row in self._rows(names, f"{names}, {columns}", encoded, tables):
            yield (row[0].hex(), *row[1:count]), row[count:]

    def _decoded(
        self, table: str, names: str, column: str, keys: Iterable[Any], decode: Callable[[bytes], Value]
    ) -> dict[Any, Value]:
        """Return what a column of bytes holds of these keys; see `_measured`."""
        found = self._measured(table, names, column, keys)
        with self._explained():
            return {key: decode(row[0]) for key, row in found}

    def _rows(
        self, names: str, columns: str, keys: Iterable[tuple[Any, ...]], tables: str
    ) -> Iterator[tuple[Any, ...]]:
        """Yield columns of the rows in which the columns `names` have these values; many a query.

        Args:
            names: of the columns of `wanted`, which holds the keys.
            columns: that are yielded.
            keys: each is looked up once.
            tables: what comes after FROM: `wanted`, and what it is joined with.
        """
        count = names.count(",") + 1
        values = [name for name in columns.split(", ") if name not in names.split(", ")]
        one = f"({', '.join('?' * count)})"
        for chunk in batched(dict.fromkeys(keys), _VARIABLES // count):
            query = (
                f"WITH wanted ({names}) AS (VALUES {', '.join([one] * len(chunk))}) "
                f"SELECT {columns} FROM {tables}"
            )
            with self._explained():
                found = self._database.execute(query, [value for key in chunk for value in key]).fetchall()
                check_kinds(values, (row[-len(values) :] for row in found))
            yield from found

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
