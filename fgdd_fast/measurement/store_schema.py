"""The tables of the store, version by version."""

from __future__ import annotations

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
)
VERSION = len(SCHEMAS)
