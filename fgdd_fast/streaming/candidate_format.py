"""The file of a stream's candidates: its tables, and how records lie in them."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdd_fast.errors import SettingsError, StoreError
from fgdd_fast.images.crops import Box
from fgdd_fast.selection.records import ImageRecord, View

FORMAT = 1
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE classes (
    id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, seen INTEGER NOT NULL, overflowed INTEGER NOT NULL
);
CREATE TABLE samples (
    class INTEGER NOT NULL, draw BLOB NOT NULL, occupancy REAL NOT NULL, loss REAL,
    PRIMARY KEY (class, draw)
) WITHOUT ROWID;
CREATE TABLE images (
    class INTEGER NOT NULL, sha256 BLOB NOT NULL, source BLOB NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (class, sha256)
) WITHOUT ROWID;
CREATE TABLE tiles (
    class INTEGER NOT NULL, sha256 BLOB NOT NULL, box TEXT NOT NULL, png BLOB NOT NULL,
    PRIMARY KEY (class, sha256, box)
);
CREATE TABLE done (item INTEGER PRIMARY KEY);
"""


@dataclass(frozen=True)
class Sampled:
    """One image of a class's sample: its draw, occupancy in [0, 1], and the loss (nats) on the whole."""

    draw: bytes
    occupancy: float
    loss: float


def boxes_of(record: ImageRecord) -> list[Box]:
    """Return the boxes of the views of a record that may become tiles, each once."""
    views = (record.full, *record.crops)
    return list(dict.fromkeys(view.box for view in views if math.isfinite(view.loss)))


def decode_name(name: bytes) -> str:
    """Return a name that lies as bytes."""
    return name.decode("utf-8", "surrogateescape")


def encode_record(record: ImageRecord) -> str:
    """Return what was measured of an image as JSON."""
    views = [[list(view.box), view.loss, view.foreground] for view in (record.full, *record.crops)]
    return json.dumps([record.occupancy, *views])


def decode_record(source: str, sha256: bytes, class_name: str, text: str) -> ImageRecord:
    """Return what `encode_record` wrote."""
    occupancy, *rows = json.loads(text)
    full, *crops = (View(Box(*box), loss, share) for box, loss, share in rows)
    return ImageRecord(source, sha256.hex(), class_name, occupancy, full, tuple(crops))


def unusable(path: Path, error: sqlite3.Error) -> StoreError:
    """Return the error that SQLite's is to users."""
    advice = "Another stream or merge is using them: let that end first." if "locked" in str(error) else ""
    return StoreError(f"The candidates {path} cannot be used: {error}", advice)


def candidates_path(out: Path) -> Path:
    """Return where the candidates of a distilled stream lie: beside OUT."""
    return out.with_name(f"{out.name}.candidates")


def read_fact(path: Path, name: str) -> Any:
    """Return the JSON values that a file keeps under a name, without changing it.

    Raises:
        StoreError: it cannot be read, it is in use, or it has none.
    """
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.5)
        ) as database:
            rows = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchall()
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    if not rows:
        raise StoreError(f"The candidates {path} do not say how they were chosen", "Begin anew.")
    return json.loads(rows[0][0])


def check_same(kept: Mapping[str, Any], asked: Mapping[str, Any], path: Path, advice: str) -> None:
    """Make sure that candidates were chosen by the same settings and models.

    Raises:
        SettingsError: they were not; it names the first that differs.
    """
    for part in ("settings", "models", "prompts"):
        was, now = kept[part], asked[part]
        for name in {**was, **now}:
            if was.get(name) != now.get(name):
                raise SettingsError(
                    f"{path} was made with another {name}: {was.get(name)}, not {now.get(name)}", advice
                )
