"""The tables of the store, version by version: what makes a new store, and brings an older one up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fgdd_engines.file_lock import has_locks
from fgdd_fast.errors import StoreError
from fgdd_fast.measurement.store_format import PackedBoxes, merge_boxes

# Since version 5 images have numbers, in the order in which they came: tables grow at their ends and are read
# in that order, and no row but one has the 32 bytes of a hash; losses and shares of an image are one row.
_TABLES = {
    "images": """(
    image INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, width INTEGER NOT NULL, height INTEGER NOT NULL
)""",
    "files": """(
    path BLOB PRIMARY KEY, signature TEXT NOT NULL, image INTEGER NOT NULL
) WITHOUT ROWID""",
    "occupancies": """(
    image INTEGER NOT NULL, fingerprint INTEGER NOT NULL, occupancy REAL NOT NULL,
    PRIMARY KEY (image, fingerprint)
) WITHOUT ROWID""",
    "losses": """(
    image INTEGER NOT NULL, fingerprint INTEGER NOT NULL, label INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (image, fingerprint, label)
) WITHOUT ROWID""",
    "boxes": """(
    image INTEGER NOT NULL, fingerprint INTEGER NOT NULL, place INTEGER NOT NULL,
    "left" REAL NOT NULL, top REAL NOT NULL, "right" REAL NOT NULL, bottom REAL NOT NULL,
    score REAL NOT NULL,
    PRIMARY KEY (image, fingerprint, place)
) WITHOUT ROWID""",
    "masks": """(
    image INTEGER NOT NULL, fingerprint INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (image, fingerprint)
)""",
    "shares": """(
    image INTEGER NOT NULL, fingerprint INTEGER NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (image, fingerprint)
) WITHOUT ROWID""",
    "perceptual_hashes": """(
    image INTEGER PRIMARY KEY, hash BLOB NOT NULL
)""",
    "features": """(
    image INTEGER NOT NULL, fingerprint INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (image, fingerprint, x, y, width, height)
)""",
}
_NUMBERED = {
    "images": "NULL, sha256, width, height FROM before",
    "files": "path, signature, image",
    "occupancies": "image, fingerprint, occupancy",
    "losses": "image, fingerprint, label, packed(x, y, before.width, before.height, loss)",
    "boxes": 'image, fingerprint, place, "left", top, "right", bottom, score',
    "masks": "image, fingerprint, content",
    "shares": "image, fingerprint, packed(x, y, before.width, before.height, share)",
    "perceptual_hashes": "image, hash",
    "features": "image, fingerprint, x, y, before.width, before.height, vector",
}
_GROUPS = {"losses": "GROUP BY image, fingerprint, label", "shares": "GROUP BY image, fingerprint"}
_FINGERPRINTS = """
CREATE TABLE fingerprints (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE
);
"""
NEW = ";".join(f"CREATE TABLE {name} {columns}" for name, columns in _TABLES.items()) + ";" + _FINGERPRINTS
"""Makes a new store."""


def _number(table: str) -> str:
    """How a table of version 4 becomes one of version 5."""
    joined = "" if table == "images" else "FROM before CROSS JOIN images USING (sha256)"
    return f"""
ALTER TABLE {table} RENAME TO before;
CREATE TABLE {table} {_TABLES[table]};
INSERT INTO {table} SELECT {_NUMBERED[table]} {joined} {_GROUPS.get(table, "")};
DROP TABLE before"""


# What each version adds to the one before: a store is upgraded in place by all that it lacks.
SCHEMAS: tuple[str, ...] = (
    f"""{_FINGERPRINTS}
CREATE TABLE files (
    path BLOB PRIMARY KEY, signature TEXT NOT NULL, sha256 BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE images (
    sha256 BLOB PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL
) WITHOUT ROWID;
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
    ";".join(map(_number, _TABLES)),
)
VERSION = len(SCHEMAS)
BY_CONTENT = (*(name for name in _TABLES if name != "images"), "images")
"""The tables whose rows belong to the bytes of an image."""
ADD_LOSSES, ADD_SHARES = (
    f"INSERT INTO {table} VALUES ({', '.join('?' * (key.count(',') + 2))}) "
    f"ON CONFLICT ({key}) DO UPDATE SET content = merged({table}.content, excluded.content)"
    for table, key in (("losses", "image, fingerprint, label"), ("shares", "image, fingerprint"))
)
"""Add what was measured of boxes to that of the same image; what is known of a box already stays."""


def make_tables(database: sqlite3.Connection, path: Path) -> None:
    """Make what a store lacks of the tables, within a transaction that is open.

    Args:
        database: the store.
        path: of its file, for the message.

    Raises:
        StoreError: it is of a later version.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        database.execute("ROLLBACK")
        raise StoreError(
            f"The store {path} has format {version}, and this version reads format {VERSION}",
            "Name another folder with --store, or remove this one to measure anew.",
        )
    database.create_function("merged", 2, merge_boxes)
    database.create_aggregate("packed", 5, PackedBoxes)  # type: ignore[arg-type]
    for schema in SCHEMAS[version:] if version else (NEW,):
        for statement in schema.split(";"):
            database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")


def require_locks(folder: Path) -> None:
    """Refuse a file system without locks at once: SQLite takes it for another process and waits."""
    try:
        locks = has_locks(folder)
    except OSError:
        return  # a folder that cannot be written is told of by SQLite
    if not locks:
        raise StoreError(
            f"The file system of the store folder {folder} has no locks, by which processes take turns",
            "Name a folder on another disk with --store.",
        )
