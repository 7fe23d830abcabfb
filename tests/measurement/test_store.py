"""The store keeps measurements by content, survives kills, and says what is wrong with it."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import quick

from fgdd_fast.errors import StoreError
from fgdd_fast.images.crops import Box
from fgdd_fast.measurement.store import FILE_NAME, KnownFile, Measurement, Store, file_signature
from fgdd_fast.measurement.store_format import SCHEMAS, VERSION
from fgdd_fast.models.foreground import Foreground, ScoredBox

SHA = "ab" * 32
BOX = Box(1, 2, 3, 4)
FOUND = Foreground(0.25)

# What the first version made.
VERSION_1 = """
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
PRAGMA user_version = 1;
"""


def measurement(
    path: Path,
    *,
    sha256: str = SHA,
    foreground: Foreground | None = FOUND,
    fingerprints: tuple[int, int] = (1, 2),
    losses: Mapping[Box, float] | None = None,
    shares: Mapping[Box, float] | None = None,
    perceptual_hash: int | None = None,
) -> Measurement:
    return Measurement(
        path=path,
        signature="signature",
        known=KnownFile(sha256, 40, 30),
        foreground=foreground,
        foreground_fingerprint=fingerprints[0],
        losses={BOX: 1.5} if losses is None else losses,
        label=0,
        loss_fingerprint=fingerprints[1],
        shares=shares or {},
        perceptual_hash=perceptual_hash,
    )


def test_what_was_added_is_found_again_after_reopening(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        foreground, teacher = store.fingerprint("foreground"), store.fingerprint("teacher")
        store.add([measurement(tmp_path / "a.jpg", fingerprints=(foreground, teacher))])
    with Store(tmp_path / "store") as store:
        assert store.fingerprint("foreground") == foreground
        assert store.known_file(tmp_path / "a.jpg", "signature") == KnownFile(SHA, 40, 30)
        assert store.known_content(SHA) == KnownFile(SHA, 40, 30)
        assert store.occupancy(SHA, foreground) == 0.25
        assert store.losses(SHA, teacher, 0) == {BOX: 1.5}


def test_another_fingerprint_label_signature_or_content_is_unknown(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        foreground, teacher = store.fingerprint("foreground"), store.fingerprint("teacher")
        other = store.fingerprint("other")
        store.add([measurement(tmp_path / "a.jpg", fingerprints=(foreground, teacher))])
        assert store.occupancy(SHA, other) is None
        assert store.losses(SHA, teacher, 1) == {}
        assert store.losses(SHA, other, 0) == {}
        assert store.known_file(tmp_path / "a.jpg", "changed") is None
        assert store.known_file(tmp_path / "b.jpg", "signature") is None
        assert store.known_content("cd" * 32) is None


def test_a_changed_file_replaces_its_old_content(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for sha256 in (SHA, "cd" * 32):
            store.add([measurement(tmp_path / "a.jpg", sha256=sha256)])
        known = store.known_file(tmp_path / "a.jpg", "signature")
        assert known is not None
        assert known.sha256 == "cd" * 32


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe 'name'.jpg")
    with Store(tmp_path) as store:
        store.add([measurement(path)])
        assert store.known_file(path, "signature") is not None


def test_losses_survive_exactly(tmp_path: Path) -> None:
    losses = {Box(0, 0, 1, 1): 0.1 + 0.2, Box(0, 0, 1, 2): 1e-300, Box(0, 0, 2, 1): float("inf")}
    with Store(tmp_path) as store:
        store.add([measurement(tmp_path / "a.jpg", losses=losses)])
        assert store.losses(SHA, 2, 0) == losses


def test_boxes_come_back_in_their_order_and_exactly(tmp_path: Path) -> None:
    boxes = (ScoredBox(0.1, -0.01, 1.002, 1 / 3, 0.7), ScoredBox(0.0, 0.0, 1.0, 1.0, 0.35))
    with Store(tmp_path) as store:
        store.add([measurement(tmp_path / "a.jpg", foreground=Foreground(0.5, boxes))])
        assert store.boxes(SHA, 1) == boxes
        assert store.boxes(SHA, 2) == store.boxes("cd" * 32, 1) == ()
        again = Foreground(0.7, boxes[::-1])  # measured by another process in the meantime
        store.add([measurement(tmp_path / "a.jpg", foreground=again)])
        assert (store.occupancy(SHA, 1), store.boxes(SHA, 1)) == (0.5, boxes)


@quick
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_masks_come_back_as_black_and_white(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    mask = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    with Store(tmp_path_factory.mktemp("store")) as store:
        store.add([measurement(Path("a.jpg"), foreground=Foreground(0.5, mask=mask))])
        found = store.mask(SHA, 1)
        assert found is not None
        assert found.dtype == np.uint8
        assert np.array_equal(found, np.where(mask > 127, 255, 0))


def test_masks_are_compact_and_belong_to_what_found_them(tmp_path: Path) -> None:
    mask = np.zeros((320, 320), np.uint8)
    cv2.ellipse(mask, (150, 160), (100, 60), 30, 0, 360, 255, -1)
    with Store(tmp_path) as store:
        store.add([measurement(tmp_path / "a.jpg")])
        assert store.mask(SHA, 1) is None
        store.add([measurement(tmp_path / "a.jpg", foreground=Foreground(0.25, mask=mask))])
        assert store.mask(SHA, 1) is not None
        assert store.mask(SHA, 2) is None
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        (size,) = database.execute("SELECT length(png) FROM masks").fetchone()
    assert size < 1000


def test_a_store_of_the_first_version_is_upgraded_and_loses_nothing(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "a.jpg")
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.executescript(VERSION_1)
        sha256 = bytes.fromhex(SHA)
        database.execute("INSERT INTO files VALUES (?, 'signature', ?)", (path, sha256))
        database.execute("INSERT INTO images VALUES (?, 40, 30)", (sha256,))
        database.execute("INSERT INTO fingerprints VALUES (7, 'foreground')")
        database.execute("INSERT INTO occupancies VALUES (?, 7, 0.25)", (sha256,))
        database.execute("INSERT INTO losses VALUES (?, 8, 3, 1, 2, 3, 4, 1.5)", (sha256,))
        database.commit()
    for _ in range(2):  # upgraded, then opened again
        with Store(tmp_path) as store:
            assert store.known_file(tmp_path / "a.jpg", "signature") == KnownFile(SHA, 40, 30)
            assert store.fingerprint("foreground") == 7
            assert store.occupancy(SHA, 7) == 0.25
            assert store.losses(SHA, 8, 3) == {BOX: 1.5}
            found = Foreground(0.25, (ScoredBox(0, 0, 1, 1, 0.5),), np.full((2, 2), 255, np.uint8))
            store.add([measurement(tmp_path / "b.jpg", sha256="cd" * 32, foreground=found)])
            assert store.boxes("cd" * 32, 1) == found.boxes
            assert store.mask("cd" * 32, 1) is not None
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_store_of_the_second_version_is_upgraded_and_lacks_only_what_is_new(tmp_path: Path) -> None:
    sha256 = bytes.fromhex(SHA)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        for schema in SCHEMAS[:2]:
            database.executescript(schema)
        database.execute("INSERT INTO images VALUES (?, 40, 30)", (sha256,))
        database.execute("INSERT INTO occupancies VALUES (?, 7, 0.25)", (sha256,))
        database.execute("INSERT INTO boxes VALUES (?, 7, 0, 0, 0, 1, 1, 0.5)", (sha256,))
        database.execute("PRAGMA user_version = 2")
        database.commit()
    with Store(tmp_path) as store:
        assert store.occupancy(SHA, 7) == 0.25
        assert store.boxes(SHA, 7) == (ScoredBox(0, 0, 1, 1, 0.5),)
        assert store.shares(SHA, 7) == {}
        assert store.perceptual_hash(SHA) is None
        assert store.features(SHA, 7, BOX) is None
        again = measurement(tmp_path / "a.jpg", fingerprints=(7, 8), shares={BOX: 0.75}, perceptual_hash=1)
        store.add([again])
        assert store.shares(SHA, 7) == {BOX: 0.75}
        assert store.perceptual_hash(SHA) == 1


def test_shares_and_hashes_survive_exactly_and_belong_to_their_fingerprint(tmp_path: Path) -> None:
    shares = {Box(0, 0, 1, 1): 1 / 3, Box(0, 0, 1, 2): 0.0, Box(0, 0, 2, 1): 1.0}
    largest = 2**64 - 1
    with Store(tmp_path) as store:
        store.add([measurement(tmp_path / "a.jpg", shares=shares, perceptual_hash=largest)])
        assert store.shares(SHA, 1) == shares
        assert store.shares(SHA, 2) == store.shares("cd" * 32, 1) == {}
        assert store.perceptual_hash(SHA) == largest


def test_features_come_back_in_half_precision(tmp_path: Path) -> None:
    vector = np.array([0.1, -65504, 3], np.float16)
    with Store(tmp_path) as store:
        store.add_features(2, [(SHA, BOX, vector), (SHA, Box(0, 0, 1, 1), 2 * vector[:1])])
        store.add_features(2, [(SHA, BOX, 0 * vector)])  # by another process; the first ones stay
        found = store.features(SHA, 2, BOX)
        assert found is not None
        assert found.dtype == np.float16
        assert np.array_equal(found, vector)
        assert store.features(SHA, 1, BOX) is None
        assert store.features(SHA, 2, Box(1, 2, 3, 5)) is None
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        (size,) = database.execute("SELECT max(length(vector)) FROM features").fetchone()
    assert size == 2 * len(vector)


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    bad = measurement(tmp_path / "b.jpg", sha256="not hexadecimal")
    whole = Foreground(0.25, (ScoredBox(0, 0, 1, 1, 0.5),), np.zeros((2, 2), np.uint8))
    with Store(tmp_path) as store:
        with pytest.raises(ValueError, match="hexadecimal"):
            store.add([measurement(tmp_path / "a.jpg", foreground=whole), bad])
        assert store.known_content(SHA) is None
        assert store.boxes(SHA, 1) == ()
        assert store.mask(SHA, 1) is None
        store.add([measurement(tmp_path / "a.jpg")])  # and the store still works
        assert store.known_content(SHA) is not None


def test_what_was_added_outlives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fgdd_fast.models.foreground import Foreground\n"
        "from fgdd_fast.measurement.store import *\n"
        "store = Store(Path(sys.argv[1]))\n"
        f"row = Measurement(Path('a.jpg'), 's', KnownFile('{SHA}', 4, 3), Foreground(0.5), 1, {{}}, 0, 2)\n"
        "store.add([row])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert result.returncode == -signal.SIGKILL
    with Store(tmp_path) as store:
        assert store.occupancy(SHA, 1) == 0.5


def test_two_stores_on_one_folder_see_each_others_work(tmp_path: Path) -> None:
    with Store(tmp_path) as first, Store(tmp_path) as second:
        assert first.fingerprint("same") == second.fingerprint("same")
        first.add([measurement(tmp_path / "a.jpg")])
        assert second.occupancy(SHA, 1) == 0.25
        second.add([measurement(tmp_path / "b.jpg", sha256="cd" * 32)])
        assert first.occupancy("cd" * 32, 1) == 0.25


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="not a database") as caught:
        Store(tmp_path)
    assert "remove it" in caught.value.advice


def test_a_store_of_a_later_format_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StoreError, match="format 99"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be made"):
        Store(tmp_path / "file" / "store")


def add_many(store: Store, folder: Path) -> None:
    for number in range(10_000):
        row = measurement(folder / f"{number}.jpg", sha256=f"{number:064x}")
        store.add([row])


def test_no_space_left_keeps_what_was_added_before(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add([measurement(tmp_path / "a.jpg")])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            with pytest.raises(StoreError, match="failed"):
                add_many(store, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
    with Store(tmp_path) as store:
        assert store.occupancy(SHA, 1) == 0.25
        assert store.occupancy(f"{0:064x}", 1) == 0.25


def test_the_signature_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"one")
    before = file_signature(file)
    assert file_signature(file) == before
    replacement = tmp_path / "b.jpg"
    replacement.write_bytes(b"two")
    os.utime(replacement, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    replacement.replace(file)
    assert file_signature(file) != before
