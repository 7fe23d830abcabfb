"""The file of a stream's candidates: its tables, and how records lie in them."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from fgdd_engines.bundle.schema import (
    SchemaError,
    array,
    either,
    flag,
    free,
    number,
    one_of,
    or_null,
    read_json,
    record,
    string,
    table,
    whole,
)
from fgdd_fast.errors import ImageError, SettingsError, StoreError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.decode import decode_image
from fgdd_fast.images.resize import Pixels, ResizeMethod
from fgdd_fast.output.mosaic import Format
from fgdd_fast.selection.records import ImageRecord, View
from fgdd_fast.streaming.bounds import RANKINGS

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

# What holds of every row of a sound file: SQLite itself keeps values of any type in any column.
_SOUND = {
    "facts": "typeof(name) = 'text' AND typeof(value) = 'text'",
    "classes": "typeof(name) = 'blob' AND typeof(seen) = 'integer' AND overflowed IN (0, 1)",
    "samples": "typeof(class) = 'integer' AND typeof(draw) = 'blob' AND length(draw) = 8 "
    "AND typeof(occupancy) = 'real' AND occupancy BETWEEN 0 AND 1 AND typeof(loss) IN ('real', 'null')",
    "images": "typeof(class) = 'integer' AND typeof(sha256) = 'blob' AND length(sha256) = 32 "
    "AND typeof(source) = 'blob' AND typeof(record) = 'text'",
    "tiles": "typeof(class) = 'integer' AND typeof(sha256) = 'blob' AND typeof(box) = 'text' "
    "AND typeof(png) = 'blob'",
}
_SIDE = 1 << 31  # pixels; no image has more
_BOX = array(whole(0, _SIDE), shortest=4, longest=4)
_SHARE = number(0, 1)


def _loss(value: Any, where: str) -> None:
    """A number, which is nan where a view is no tile any more."""
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise SchemaError(f"{where} must be a number")


def _record(value: Any, where: str) -> None:
    """What `encode_record` writes: an occupancy, then the whole image and its crops."""
    array(free, shortest=2)(value, where)
    _SHARE(value[0], f"{where}[0]")
    for place, view in enumerate(value[1:], 1):
        array(free, shortest=3, longest=3)(view, f"{where}[{place}]")
        for check, part in zip((_BOX, _loss, or_null(_SHARE)), view, strict=True):
            check(part, f"{where}[{place}]")


_PAIR = array(string(), shortest=2, longest=2)
_FACTS = {
    "how": record(
        {
            "settings": record(
                {
                    **{"ranking": one_of(*RANKINGS), "ipc": either(string(), whole(1)), "rule": string()},
                    **{"factor": whole(1, _SIDE), "size": whole(1, _SIDE), "seed": whole()},
                    **{"resize": one_of(*get_args(ResizeMethod)), "format": one_of(*get_args(Format))},
                    "reservoir": whole(1),
                },
                {"keep_foreground": _SHARE, "least_area": _SHARE},
                rest=or_null(either(string(), flag, number())),
            ),
            **{"models": table(array(or_null(string()), shortest=2, longest=3)), "runtime": string()},
            "prompts": table(array(string(), shortest=1)),
        }
    ),
    "counts": table(whole()),
    "skipped": array(_PAIR),
    "positions": table(whole()),
    "hashes": array(whole(0, 2**64 - 1)),
    "unwritten": flag,
}


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
    """Return what `encode_record` wrote; SchemaError where it is something else."""
    occupancy, *rows = read_json(text, _record)
    full, *crops = (View(Box(*box), loss, share) for box, loss, share in rows)
    return ImageRecord(source, sha256.hex(), class_name, occupancy, full, tuple(crops))


def unusable(path: Path, error: sqlite3.Error) -> StoreError:
    """Return the error that SQLite's is to users."""
    advice = "Another stream or merge is using them: let that end first." if "locked" in str(error) else ""
    return StoreError(f"The candidates {path} cannot be used: {error}", advice)


def damaged(path: Path, what: object) -> StoreError:
    """Return the error that says that a file is not what was written."""
    return StoreError(
        f"The candidates {path} are damaged: {what}", "Copy them again; or begin anew: --overwrite"
    )


def check_rows(run: Callable[[str], list[Any]], path: Path) -> None:
    """Make sure that every value in a file is of its column's kind.

    Raises:
        StoreError: one is not.
    """
    for name, sound in _SOUND.items():
        if run(f"SELECT 1 FROM {name} WHERE NOT coalesce({sound}, 0) LIMIT 1"):
            raise damaged(path, f"a row of '{name}' is not what it should be")


def decode_records(path: Path, class_name: str, rows: Iterable[Sequence[Any]]) -> list[ImageRecord]:
    """Return what was measured of images, from rows of source, content and record.

    Raises:
        StoreError: one is not what `encode_record` wrote.
    """
    try:
        return [decode_record(decode_name(source), sha256, class_name, text) for source, sha256, text in rows]
    except SchemaError as error:
        raise damaged(path, f"a record: {error}") from error


def decode_tile(path: Path, rows: Sequence[Sequence[bytes]], side: int) -> Pixels:
    """Return the pixels of a tile, uint8 RGB [side, side, 3], from the rows that hold its PNG.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    try:
        pixels = decode_image(rows[0][0]) if rows else None
    except ImageError as error:
        raise damaged(path, f"a tile: {error.problem}") from error
    if pixels is None or pixels.shape[:2] != (side, side):
        raise damaged(path, "the pixels of a tile are missing")
    return pixels


def decode_fact(path: Path, name: str, text: str) -> Any:
    """Return the JSON values that lie under a name.

    Raises:
        StoreError: they are not what belongs there.
    """
    try:
        return read_json(text, _FACTS[name])
    except SchemaError as error:
        raise damaged(path, f"'{name}': {error}") from error


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
            check_rows(lambda query: database.execute(query).fetchall(), path)
            rows = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchall()
    except sqlite3.Error as error:
        raise unusable(path, error) from error
    if not rows:
        raise StoreError(f"The candidates {path} do not say how they were chosen", "Begin anew.")
    return decode_fact(path, name, rows[0][0])


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
