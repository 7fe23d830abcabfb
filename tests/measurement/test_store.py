"""The store keeps measurements by content, survives kills, and says what is wrong with it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from record_strategies import quick

from fgdd_fast.errors import StoreError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.place import file_signature
from fgdd_fast.measurement.store import FILE_NAME, Store
from fgdd_fast.measurement.store_format import (
    KnownFile,
    Measurement,
    encode_mask,
)
from fgdd_fast.measurement.store_tables import SCHEMAS, VERSION
from fgdd_fast.models.foreground import Foreground, ScoredBox

SHA = "ab" * 32
BOX = Box(1, 2, 3, 4)
FOUND = Foreground(0.25)
WITH_BOX = Foreground(0.25, (ScoredBox(0, 0, 1, 1, 0.5),))


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
        mask=None if foreground is None or foreground.mask is None else encode_mask(foreground.mask),
    )


def png(mask: NDArray[np.float64]) -> bytes:
    return cv2.imencode(".png", mask.astype(np.uint8), (cv2.IMWRITE_PNG_BILEVEL, 1))[1].tobytes()


def test_what_was_added_is_found_again_after_reopening(tmp_path: Path) -> None:
    boxes = (ScoredBox(0.1, -0.01, 1.002, 1 / 3, 0.7), ScoredBox(0.0, 0.0, 1.0, 1.0, 0.35))
    losses = {Box(0, 0, 1, 1): 0.1 + 0.2, Box(0, 0, 1, 2): 1e-300, Box(0, 0, 2, 1): float("inf")}
    shares = {Box(0, 0, 1, 1): 1 / 3, Box(0, 0, 1, 2): 0.0, Box(0, 0, 2, 1): 1.0}
    path = tmp_path / os.fsdecode(b"\xff\xfe 'name'.jpg")  # no UTF-8
    with Store(tmp_path / "store") as store:
        foreground, teacher = store.fingerprints(["foreground", "teacher"])
        added = measurement(
            path,
            foreground=Foreground(0.25, boxes),
            fingerprints=(foreground, teacher),
            losses=losses,
            shares=shares,
            perceptual_hash=2**64 - 1,
        )
        store.add([added])
    key, label = (SHA, foreground), (SHA, teacher, 0)
    with Store(tmp_path / "store") as store:
        assert store.fingerprints(["new", "foreground", "new"]) == [teacher + 1, foreground, teacher + 1]
        assert store.known_files({path: "signature"}) == {path: KnownFile(SHA, 40, 30)}
        assert store.known_contents([SHA]) == {SHA: KnownFile(SHA, 40, 30)}
        assert store.occupancies([key]) == {key: 0.25}
        assert store.boxes(*key) == boxes
        assert store.losses([label]) == {label: losses}
        assert store.shares([key]) == {key: shares}
        assert store.perceptual_hashes([SHA]) == {SHA: 2**64 - 1}


def test_another_fingerprint_label_signature_or_content_is_unknown(tmp_path: Path) -> None:
    path, other = tmp_path / "a.jpg", "cd" * 32
    with Store(tmp_path) as store:
        store.add([measurement(path, foreground=WITH_BOX, shares={BOX: 0.5}, perceptual_hash=1)])
        store.add_features(2, [(SHA, BOX, np.zeros(3, np.float16))])
        keys = [(SHA, 2), (other, 1)]
        assert store.occupancies(keys) == store.shares(keys) == dict(store.masks(keys)) == {}
        assert store.boxes(SHA, 2) == store.boxes(other, 1) == ()
        assert store.losses([(SHA, 2, 1), (SHA, 1, 0), (other, 2, 0)]) == {}
        assert store.known_files({path: "changed", tmp_path / "b.jpg": "signature"}) == {}
        assert store.known_contents([other]) == store.perceptual_hashes([other]) == {}
        assert store.features(1, [(SHA, BOX)]) == store.features(2, [(SHA, Box(1, 2, 3, 5))]) == {}


def test_what_another_process_measured_first_stays(tmp_path: Path) -> None:
    more = Box(1, 2, 3, 5)
    with Store(tmp_path) as store:
        for value in (0.5, 0.25):
            both = {BOX: value} if value == 0.5 else {BOX: value, more: value}
            store.add([measurement(tmp_path / "a.jpg", fingerprints=(3, 4), losses=both, shares=both)])
        kept = {BOX: 0.5, more: 0.25}
        assert (store.losses([(SHA, 4, 0)]), store.shares([(SHA, 3)])) == (
            {(SHA, 4, 0): kept},
            {(SHA, 3): kept},
        )
        store.add([measurement(tmp_path / "a.jpg", foreground=WITH_BOX)])
        store.add([measurement(tmp_path / "a.jpg", foreground=Foreground(0.7, 2 * WITH_BOX.boxes))])
        assert store.occupancies([(SHA, 1)]) == {(SHA, 1): WITH_BOX.occupancy}
        assert store.boxes(SHA, 1) == WITH_BOX.boxes


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


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_store_of_an_older_version_is_upgraded_and_loses_nothing(tmp_path: Path, version: int) -> None:
    path, sha256 = tmp_path / "a.jpg", bytes.fromhex(SHA)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        for schema in SCHEMAS[:version]:
            database.executescript(schema)
        database.execute("INSERT INTO files VALUES (?, 'signature', ?)", (os.fsencode(path), sha256))
        database.execute("INSERT INTO images VALUES (?, 40, 30)", (sha256,))
        database.execute("INSERT INTO fingerprints VALUES (7, 'foreground')")
        database.execute("INSERT INTO occupancies VALUES (?, 7, 0.25)", (sha256,))
        database.execute("INSERT INTO losses VALUES (?, 8, 3, 1, 2, 3, 4, 1.5)", (sha256,))
        if version > 1:  # masks were PNGs
            database.execute("INSERT INTO masks VALUES (?, 7, ?)", (sha256, png(np.eye(3, 5) * 255)))
            database.execute("INSERT INTO boxes VALUES (?, 7, 0, 0, 0, 1, 1, 0.5)", (sha256,))
        if version > 2:
            database.execute("INSERT INTO shares VALUES (?, 7, 1, 2, 3, 4, 0.5)", (sha256,))
            database.execute("INSERT INTO shares VALUES (?, 7, 1, 2, 3, 5, 1.0)", (sha256,))
            database.execute("INSERT INTO features VALUES (?, 8, 1, 2, 3, 4, ?)", (sha256, b"\0\0"))
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
    for _ in range(2):  # upgraded, then opened again
        with Store(tmp_path) as store:
            assert store.known_files({path: "signature"}) == {path: KnownFile(SHA, 40, 30)}
            assert store.fingerprint("foreground") == 7
            assert store.occupancies([(SHA, 7)]) == {(SHA, 7): 0.25}
            assert store.losses([(SHA, 8, 3)]) == {(SHA, 8, 3): {BOX: 1.5}}
            other = "cd" * 32
            found = Foreground(0.25, WITH_BOX.boxes, np.full((2, 2), 255, np.uint8))
            row = measurement(
                tmp_path / "b.jpg", sha256=other, foreground=found, shares={BOX: 0.75}, perceptual_hash=1
            )
            store.add([row])
            assert store.boxes(other, 1) == found.boxes
            assert np.array_equal(store.mask(other, 1), found.mask)
            if version > 1:
                masks = dict(store.masks([(SHA, 7), (other, 1)]))
                assert masks[SHA, 7].dtype == masks[other, 1].dtype == np.uint8
                assert np.array_equal(masks[SHA, 7], np.eye(3, 5) * 255)
                assert np.array_equal(masks[other, 1], found.mask)
                assert store.boxes(SHA, 7) == WITH_BOX.boxes
            if version > 2:
                assert store.shares([(SHA, 7)]) == {(SHA, 7): {BOX: 0.5, Box(1, 2, 3, 5): 1.0}}
                assert store.features(8, [(SHA, BOX)])[SHA, BOX] == np.zeros(1)
            assert store.shares([(other, 1)]) == {(other, 1): {BOX: 0.75}}
            assert store.perceptual_hashes([SHA, other]) == {other: 1}
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_record_takes_a_kilobyte_at_most_and_its_mask_seven_tenths(tmp_path: Path) -> None:
    """Five crops, paths as long as ImageNet's, and a mask of 320 pixels with a wavy outline."""
    boxes = [Box(place, 0, 300, 300) for place in range(6)]
    rows, columns = np.mgrid[-1:1:320j, -1:1:320j]
    angle, distance = np.arctan2(rows, columns), np.hypot(rows, columns)
    mask = np.where(distance < 0.5 + 0.1 * np.sin(9 * angle) + 0.02 * np.sin(31 * angle), 255, 0)
    sizes, count = [], 500
    for name, found in (("bare", FOUND), ("masked", Foreground(0.25, mask=mask.astype(np.uint8)))):
        with Store(tmp_path / name) as store:
            rows_of = [
                measurement(
                    Path(f"/data/imagenet/train/n01440764/n01440764_{number}.JPEG"),
                    sha256=f"{number * 2**240:064x}",
                    foreground=found,
                    losses=dict.fromkeys(boxes, 1 / 3),
                    shares=dict.fromkeys(boxes[1:], 1 / 3),
                )
                for number in range(count)
            ]
            store.add(rows_of)
        sizes.append((tmp_path / name / FILE_NAME).stat().st_size)
    assert sizes[0] <= 1000 * count
    assert sizes[1] - sizes[0] <= 700 * count


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    bad = measurement(tmp_path / "b.jpg", sha256="not hexadecimal")
    whole = Foreground(0.25, WITH_BOX.boxes, np.zeros((2, 2), np.uint8))
    with Store(tmp_path) as store:
        with pytest.raises(ValueError, match="hexadecimal"):
            store.add([measurement(tmp_path / "a.jpg", foreground=whole), bad])
        assert store.known_contents([SHA]) == {}
        assert store.boxes(SHA, 1) == ()
        assert store.mask(SHA, 1) is None
        store.add([measurement(tmp_path / "a.jpg")])  # and the store still works
        assert store.known_contents([SHA]) != {}


def test_six_processes_may_make_a_store_at_once(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fgdd_fast.measurement.store import Store\n"
        "for number in range(15):\n"
        "    start = Path(sys.argv[1], f'{number}.start')\n"
        "    print(number, flush=True)\n"
        "    while not start.exists(): pass\n"
        "    with Store(start.with_suffix('')) as store:\n"
        "        store.fingerprint(sys.argv[2])\n"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(place)], stdout=subprocess.PIPE)
        for place in range(6)
    ]
    for number in range(15):
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == f"{number}\n".encode(), "a worker failed"
        (tmp_path / f"{number}.start").touch()
    assert [worker.wait() for worker in workers] == [0] * 6
    for number in range(15):
        with Store(tmp_path / str(number)) as store:
            assert sorted(store.fingerprints(list("012345"))) == [1, 2, 3, 4, 5, 6]


def test_a_store_of_a_later_format_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("PRAGMA user_version = 99")
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


def test_a_file_system_without_locks_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fgdd_engines.file_lock.fcntl.fcntl", refuse)
    with pytest.raises(StoreError, match="has no locks") as caught:
        Store(tmp_path / "store")
    assert "--store" in caught.value.advice
    assert not list((tmp_path / "store").iterdir())


def test_no_space_left_keeps_what_was_added_before(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add([measurement(tmp_path / "a.jpg")])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
            with pytest.raises(StoreError, match="failed"):
                add_many(store, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
    with Store(tmp_path) as store:
        keys = [(SHA, 1), (f"{0:064x}", 1)]
        assert store.occupancies(keys) == dict.fromkeys(keys, 0.25)


@pytest.mark.parametrize(
    "damage",
    [
        "occupancies SET occupancy = 'much'",
        "images SET width = 'wide'",
        "images SET sha256 = 'none'",
        "losses SET content = x'00'",
        "masks SET content = x'01'",
        "masks SET content = x''",
        "features SET vector = x'00'",
    ],
)
def test_values_of_another_kind_than_their_column_s_are_told(tmp_path: Path, damage: str) -> None:
    """SQLite keeps any value in any column, so a damaged file may be one that it opens."""
    mask = np.zeros((2, 2), np.uint8)
    with Store(tmp_path) as store:
        store.add([measurement(tmp_path / "a.jpg", foreground=Foreground(0.5, mask=mask))])
        store.add_features(2, [(SHA, BOX, np.zeros(3, np.float16))])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.executescript(f"UPDATE {damage}")
    with Store(tmp_path) as store, pytest.raises(StoreError, match=r"malformed .* remove it"):  # noqa: PT012
        store.known_files({tmp_path / "a.jpg": "signature"})
        store.occupancies([(SHA, 1)])
        store.losses([(SHA, 2, 0)])
        store.mask(SHA, 1)
        store.features(2, [(SHA, BOX)])


def test_a_zero_has_no_sign(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add([replace(measurement(tmp_path / "a.jpg"), losses={BOX: -0.0})])
        (found,) = store.losses([(SHA, 2, 0)]).values()
    assert str(found[BOX]) == "0.0"


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
