"""The store keeps measurements by content, survives kills, and says what is wrong with it."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fgdd_fast.errors import StoreError
from fgdd_fast.records import Box
from fgdd_fast.store import FILE_NAME, KnownFile, Measurement, Store, file_signature

SHA = "ab" * 32
BOX = Box(1, 2, 3, 4)


def measurement(
    path: Path, *, sha256: str = SHA, occupancy: float | None = 0.25, label: int = 0
) -> Measurement:
    return Measurement(path, "signature", KnownFile(sha256, 40, 30), occupancy, label, {BOX: 1.5})


def test_what_was_added_is_found_again_after_reopening(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        foreground, teacher = store.fingerprint("foreground"), store.fingerprint("teacher")
        store.add([measurement(tmp_path / "a.jpg")], foreground=foreground, teacher=teacher)
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
        store.add([measurement(tmp_path / "a.jpg")], foreground=foreground, teacher=teacher)
        assert store.occupancy(SHA, other) is None
        assert store.losses(SHA, teacher, 1) == {}
        assert store.losses(SHA, other, 0) == {}
        assert store.known_file(tmp_path / "a.jpg", "changed") is None
        assert store.known_file(tmp_path / "b.jpg", "signature") is None
        assert store.known_content("cd" * 32) is None


def test_a_changed_file_replaces_its_old_content(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for sha256 in (SHA, "cd" * 32):
            store.add([measurement(tmp_path / "a.jpg", sha256=sha256)], foreground=1, teacher=2)
        known = store.known_file(tmp_path / "a.jpg", "signature")
        assert known is not None
        assert known.sha256 == "cd" * 32


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe 'name'.jpg")
    with Store(tmp_path) as store:
        store.add([measurement(path)], foreground=1, teacher=2)
        assert store.known_file(path, "signature") is not None


def test_losses_survive_exactly(tmp_path: Path) -> None:
    losses = {Box(0, 0, 1, 1): 0.1 + 0.2, Box(0, 0, 1, 2): 1e-300, Box(0, 0, 2, 1): float("inf")}
    with Store(tmp_path) as store:
        store.add(
            [Measurement(tmp_path / "a", "s", KnownFile(SHA, 2, 2), None, 3, losses)], foreground=1, teacher=2
        )
        assert store.losses(SHA, 2, 3) == losses


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    bad = Measurement(tmp_path / "b", "s", KnownFile("not hexadecimal", 1, 1), 0.5, 0, {})
    with Store(tmp_path) as store:
        with pytest.raises(ValueError, match="hexadecimal"):
            store.add([measurement(tmp_path / "a.jpg"), bad], foreground=1, teacher=2)
        assert store.known_content(SHA) is None
        store.add([measurement(tmp_path / "a.jpg")], foreground=1, teacher=2)  # and the store still works
        assert store.known_content(SHA) is not None


def test_what_was_added_outlives_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fgdd_fast.store import *\n"
        "store = Store(Path(sys.argv[1]))\n"
        f"row = Measurement(Path('a.jpg'), 's', KnownFile('{SHA}', 4, 3), 0.5, 0, {{}})\n"
        "store.add([row], foreground=1, teacher=2)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert result.returncode == -signal.SIGKILL
    with Store(tmp_path) as store:
        assert store.occupancy(SHA, 1) == 0.5


def test_two_stores_on_one_folder_see_each_others_work(tmp_path: Path) -> None:
    with Store(tmp_path) as first, Store(tmp_path) as second:
        assert first.fingerprint("same") == second.fingerprint("same")
        first.add([measurement(tmp_path / "a.jpg")], foreground=1, teacher=2)
        assert second.occupancy(SHA, 1) == 0.25
        second.add([measurement(tmp_path / "b.jpg", sha256="cd" * 32)], foreground=1, teacher=2)
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
        store.add([row], foreground=1, teacher=2)


def test_no_space_left_keeps_what_was_added_before(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add([measurement(tmp_path / "a.jpg")], foreground=1, teacher=2)
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
