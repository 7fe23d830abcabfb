"""The images of a stream that may still give a tile, with their pixels, and a sample of each class.

All of it is one SQLite file, `OUT.candidates`, in which every checkpoint is one transaction. What it holds of
a class does not depend on the order of the images:

- a sample, for the threshold: the images with the lowest hashes of (seed, content), a bottom-k sketch (Cohen
  and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007). Two of them joined are that of both;
- the images that `fgdd_fast.streaming.bounds` cannot rule out, each with what was measured of it, and the
  pixels of the tiles that it may give.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fgdd_fast.errors import StoreError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.resize import Pixels
from fgdd_fast.output.mosaic import encode
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.seeding import seeded_hash, source_bytes
from fgdd_fast.selection.records import ImageRecord, View
from fgdd_fast.selection.select import tiles_of
from fgdd_fast.streaming.bounds import Band, Rank, Views, band_of, dominated, possible_kinds, ranks_of
from fgdd_fast.streaming.candidate_format import (
    FORMAT,
    SCHEMA,
    Sampled,
    boxes_of,
    check_rows,
    decode_fact,
    decode_name,
    decode_record,
    decode_records,
    decode_tile,
    encode_record,
    unusable,
)

_SAMPLE = "SELECT draw, occupancy, loss FROM samples WHERE class = ?"
_PRUNED = 32  # images newly kept of a class after which it is looked through again


@dataclass
class _Class:
    """What is in memory of a class."""

    id: int
    name: str
    seen: int = 0
    sampled: int = 0
    overflowed: bool = False
    images: dict[bytes, Views] = field(default_factory=dict)
    band: Band = field(default_factory=Band)
    bound: Rank | None = None
    small: bool = True  # as long as tiles may have to be further crops of images that have given one
    added: int = 0


class Candidates:
    """The file of a stream's candidates; used from one thread, but for `is_small`.

    Args:
        path: the file; it is made where there is none.
        settings: how tiles are chosen.
        reservoir: images in the sample of a class, at least 1.
        disk: bytes that it may take; None for any number.

    Raises:
        StoreError: the file is damaged, in use, or cannot be written; by every method.
    """

    def __init__(
        self, path: Path, settings: MosaicSettings, *, reservoir: int, disk: int | None = None
    ) -> None:
        self._path = path
        self._settings = settings
        self._weighing = settings.rule, settings.selection.ranking
        self._reservoir = reservoir
        self._disk = disk
        self._classes: dict[str, _Class] = {}
        try:
            self._database = sqlite3.connect(path, timeout=0.5, isolation_level=None)
        except sqlite3.Error as error:
            raise unusable(path, error) from error
        for pragma in ("locking_mode = EXCLUSIVE", "cache_size = -2048"):  # KiB
            self._run(f"PRAGMA {pragma}")
        self._run("BEGIN EXCLUSIVE")
        version = self._run("PRAGMA user_version")[0][0]
        if version not in (0, FORMAT):
            raise StoreError(f"The candidates {path} are of format {version}, not {FORMAT}", "Begin anew.")
        for statement in (*SCHEMA.split(";"), f"PRAGMA user_version = {FORMAT}") if version == 0 else ():
            self._run(statement)
        check_rows(self._run, path)
        for number, name, seen, overflowed in self._run("SELECT * FROM classes"):
            known = _Class(number, decode_name(name), seen, len(self._run(_SAMPLE, number)), bool(overflowed))
            self._classes[known.name] = known
            for record in self.records(known.name):
                known.images[bytes.fromhex(record.sha256)] = self._views(record)
            self._prune(known)

    def _run(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise unusable(self._path, error) from error

    def close(self) -> None:
        """Close the file; what was not committed is gone."""
        self._database.close()

    def commit(self) -> None:
        """Make everything until now last, and go on."""
        for each in self._classes.values():
            self._prune(each)
            self._run(
                "UPDATE classes SET seen = ?, overflowed = ? WHERE id = ?",
                each.seen,
                each.overflowed,
                each.id,
            )
        self._run("COMMIT")
        self._run("BEGIN EXCLUSIVE")

    @property
    def classes(self) -> list[str]:
        """The classes of which there was an image, sorted."""
        return sorted(self._classes)

    def seen(self, class_name: str) -> int:
        """Return how many images of a class there were."""
        return self._classes[class_name].seen

    def is_complete(self, class_name: str) -> bool:
        """Return whether the sample of a class is all of it, so that its tiles are exact."""
        return not self._classes[class_name].overflowed

    def is_small(self, class_name: str) -> bool:
        """Return whether a class may need further crops of images that give a tile; for any thread."""
        known = self._classes.get(class_name)
        return known is None or known.small

    def sample(self, class_name: str) -> list[Sampled]:
        """Return the sample of a class."""
        rows = self._run(_SAMPLE, self._classes[class_name].id)
        return [Sampled(draw, share, math.nan if loss is None else loss) for draw, share, loss in rows]

    def records(self, class_name: str) -> list[ImageRecord]:
        """Return what was measured of the images that are kept; their views are those with pixels."""
        query = "SELECT source, sha256, record FROM images WHERE class = ?"
        rows = self._run(query, self._classes[class_name].id)
        return decode_records(self._path, class_name, rows)

    def tile(self, class_name: str, sha256: str, box: Box) -> Pixels:
        """Return the pixels of a view that is kept, uint8 RGB [side, side, 3]."""
        query = "SELECT png FROM tiles WHERE class = ? AND sha256 = ? AND box = ?"
        place = self._classes[class_name].id, bytes.fromhex(sha256), json.dumps(box)
        return decode_tile(self._path, self._run(query, *place), self._settings.tile_size)

    def knows(self, class_name: str, sha256: str) -> bool:
        """Return whether an image is in the sample of its class: if so, it was measured."""
        known = self._classes.get(class_name)
        query = "SELECT 1 FROM samples WHERE class = ? AND draw = ?"
        return known is not None and bool(self._run(query, known.id, self._draw(sha256)))

    def fact(self, name: str) -> Any:
        """Return the JSON values that are kept under a name; None where there are none."""
        rows = self._run("SELECT value FROM facts WHERE name = ?", name)
        return decode_fact(self._path, name, rows[0][0]) if rows else None

    def keep_fact(self, name: str, value: Any) -> None:
        """Keep JSON values under a name."""
        self._run("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, json.dumps(value))

    def is_done(self, item: int) -> bool:
        """Return whether an item of the source was marked as done."""
        return bool(self._run("SELECT 1 FROM done WHERE item = ?", item))

    def mark_done(self, item: int) -> None:
        """Mark an item of the source, a number of 63 bits, as done."""
        self._run("INSERT OR IGNORE INTO done VALUES (?)", item)

    def add(self, record: ImageRecord, tiles: Mapping[Box, Pixels]) -> bool:
        """Take an image that was measured, and return whether it is kept: it may give a tile.

        Args:
            record: what was measured; one of the same bytes as an earlier one of its class counts once,
                under the source that comes first.
            tiles: the pixels of its views as tiles, uint8 RGB [side, side, 3], by their boxes.
        """
        known = self._class(record.class_name)
        sampled = Sampled(self._draw(record.sha256), record.occupancy, record.full.loss)
        if not self._add_sampled(known, sampled) or bytes.fromhex(record.sha256) in known.images:
            self.add_copy(record.class_name, record.sha256, record.source)
            return False
        known.seen += 1
        return self.keep(record, tiles)

    def add_copy(self, class_name: str, sha256: str, source: str) -> None:
        """Take an image of the same bytes as an earlier one of its class."""
        known = self._classes[class_name]
        known.seen += 1
        query = "UPDATE images SET source = min(source, ?) WHERE class = ? AND sha256 = ?"
        self._run(query, source_bytes(source), known.id, bytes.fromhex(sha256))

    def join_sample(self, class_name: str, other: Candidates) -> None:
        """Take the sample of a class that another file has."""
        known = self._class(class_name)
        known.seen += other.seen(class_name)
        known.overflowed |= not other.is_complete(class_name)
        for sampled in other.sample(class_name):
            self._add_sampled(known, sampled)

    def _add_sampled(self, known: _Class, sampled: Sampled) -> bool:
        """Take an image for the sample of its class, and return whether it was not there."""
        count = "SELECT COUNT(*) FROM samples WHERE class = ? AND draw = ?"
        if self._run(count, known.id, sampled.draw)[0][0]:
            return False
        loss = sampled.loss if math.isfinite(sampled.loss) else None
        self._run("INSERT INTO samples VALUES (?, ?, ?, ?)", known.id, sampled.draw, sampled.occupancy, loss)
        known.sampled += 1
        if known.sampled > self._reservoir:
            last = "SELECT draw FROM samples WHERE class = ? ORDER BY draw DESC LIMIT 1"
            self._run(f"DELETE FROM samples WHERE class = ? AND draw = ({last})", known.id, known.id)
            known.sampled -= 1
            known.overflowed = True
        return True

    def keep(self, record: ImageRecord, tiles: Mapping[Box, Pixels]) -> bool:
        """Keep an image that may give a tile, once, and return whether it may."""
        known, key = self._class(record.class_name), bytes.fromhex(record.sha256)
        views = self._views(record)
        best, _ = ranks_of(*self._weighing, known.band, views)
        unwanted = known.bound is not None and best > known.bound
        if unwanted or key in known.images or min(views.full, views.crop) == math.inf:
            return False
        wanted = self._wanted(record, known)
        known.images[key] = self._views(wanted)
        source = source_bytes(record.source)
        self._run("INSERT INTO images VALUES (?, ?, ?, ?)", known.id, key, source, encode_record(wanted))
        for box in boxes_of(wanted):
            png = encode(tiles[box], "png")
            self._run("INSERT INTO tiles VALUES (?, ?, ?, ?)", known.id, key, json.dumps(box), png)
        known.added += 1
        if known.added >= _PRUNED:
            self._prune(known)
        self._squeeze()
        return True

    def _class(self, name: str) -> _Class:
        if name not in self._classes:
            encoded = name.encode("utf-8", "surrogateescape")
            self._run("INSERT INTO classes VALUES (NULL, ?, 0, 0)", encoded)
            self._classes[name] = _Class(self._run("SELECT last_insert_rowid()")[0][0], name)
        return self._classes[name]

    def _draw(self, sha256: str) -> bytes:
        return seeded_hash("fgdd reservoir", self._settings.seed, sha256).digest()[:8]

    def _views(self, record: ImageRecord) -> Views:
        crop = self._first_crop(record)
        full = record.full.loss if math.isfinite(record.full.loss) else math.inf
        return Views(record.occupancy, full, math.inf if crop is None else crop.loss)

    def _first_crop(self, record: ImageRecord) -> View | None:
        """The crop that an image gives first."""
        tile = next(tiles_of(record, "crop", 0.0, self._settings.selection)[0], None)
        return None if tile is None else next(crop for crop in record.crops if crop.box == tile.box)

    def _wanted(self, record: ImageRecord, known: _Class) -> ImageRecord:
        """The record with those views alone that may become tiles."""
        if known.small:
            return replace(record, crops=tuple(crop for crop in record.crops if math.isfinite(crop.loss)))
        kinds = possible_kinds(self._settings.rule, known.band, record.occupancy)
        full = record.full if "full" in kinds else replace(record.full, loss=math.nan)
        crop = self._first_crop(record) if "crop" in kinds or not math.isfinite(full.loss) else None
        return replace(record, full=full, crops=() if crop is None else (crop,))

    def _prune(self, known: _Class) -> None:
        """Drop the images of a class, and the views of others, that can no longer become tiles."""
        rule, count = self._settings.rule, self._settings.tiles_of(known.name)
        known.added = 0
        occupancies: list[float] = []
        if known.overflowed and rule.needs_foreground:
            occupancies = [share for _, share, _ in self._run(_SAMPLE, known.id)]
        known.band = band_of(rule, occupancies, complete=not known.overflowed)
        gone, known.bound = dominated(*self._weighing, known.band, known.images, count)
        self._drop(known, gone)
        was_small, known.small = known.small, len(known.images) < count
        if known.small:
            return
        for key, views in list(known.images.items()):
            kinds = possible_kinds(rule, known.band, views.occupancy)
            both = max(views.full, views.crop) < math.inf
            if was_small or (both and len(kinds) == 1):
                self._trim(known, key)

    def _trim(self, known: _Class, key: bytes) -> None:
        """Keep those views of an image alone that may become tiles."""
        query = "SELECT record FROM images WHERE class = ? AND sha256 = ?"
        record = decode_record("", key, "", self._run(query, known.id, key)[0][0])
        wanted = self._wanted(record, known)
        query = "UPDATE images SET record = ? WHERE class = ? AND sha256 = ?"
        self._run(query, encode_record(wanted), known.id, key)
        for box in set(boxes_of(record)) - set(boxes_of(wanted)):
            query = "DELETE FROM tiles WHERE class = ? AND sha256 = ? AND box = ?"
            self._run(query, known.id, key, json.dumps(box))
        known.images[key] = self._views(wanted)

    def _drop(self, known: _Class, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._run("DELETE FROM images WHERE class = ? AND sha256 = ?", known.id, key)
            self._run("DELETE FROM tiles WHERE class = ? AND sha256 = ?", known.id, key)
            del known.images[key]

    def _used(self) -> int:
        pragmas = (f"PRAGMA {name}" for name in ("page_count", "freelist_count", "page_size"))
        pages, free, size = (self._run(pragma)[0][0] for pragma in pragmas)
        return int((pages - free) * size)

    def _squeeze(self) -> None:
        """Drop the least promising images where all take more than the disk that is allowed."""
        if self._disk is None or self._used() <= self._disk:
            return
        for each in self._classes.values():
            self._prune(each)
        while self._used() > 0.9 * self._disk:
            known = max(
                self._classes.values(), key=lambda each: len(each.images) - self._settings.tiles_of(each.name)
            )
            spare = len(known.images) - self._settings.tiles_of(known.name)
            if spare <= 0:
                raise StoreError(
                    f"The candidates {self._path} do not fit into {self._disk / 2**20:.0f} MiB: the tiles of "
                    f"{len(self._classes)} classes alone take more",
                    "Raise --disk, or lower --ipc.",
                )
            worst = {key: ranks_of(*self._weighing, known.band, known.images[key])[1] for key in known.images}
            self._drop(known, sorted(worst, key=worst.__getitem__)[-max(1, spare // 4) :])
