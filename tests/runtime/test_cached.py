"""The cache: everything in it is listed with its size and age, and what is pruned is what was asked for."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fgdd_engines.file_lock import exclusive_lock
from fgdd_fast.cli import main
from fgdd_fast.measurement.store import FILE_NAME, Store
from fgdd_fast.runtime.cached import KINDS, list_cached, prune_cache

FILES = {
    "models/saliency.onnx": "model saliency",
    "models/saliency.json": "model saliency",
    "models/saliency.text.onnx": "model saliency",
    "models/saliency.fp16.onnx": "variant saliency.fp16",
    "models/saliency.fp16.json": "variant saliency.fp16",
    "sources/abc-weights.pt": "source abc-weights.pt",
    "onnxruntime/0123/graph.onnx": "optimised 0123",
    "onnxruntime/0123/weights.bin": "optimised 0123",
    "engines/tiny-fp16-77.plan": "engine tiny-fp16-77",
    "engines/tiny-fp16-77.json": "engine tiny-fp16-77",
    "engines/.old.staging/half": "unfinished old",
    "agreement/aa.json": "verdict aa.json",
    "tuning/teacher.bb.cc.json": "tuning teacher.bb.cc.json",
    "benchmarks/random-1/weights": "random random-1",
    "something/else": "other something",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of everything, ten days old, and of a store."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FGDD_FAST_CACHE", str(folder))
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    Store(folder / "store").close()
    then = time.time() - 10 * 86400
    for path in folder.rglob("*"):
        os.utime(path, (then, then))
    return folder


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["cache", *words])


def left(cache: Path) -> set[str]:
    return {f"{item.kind} {item.name}" for item in list_cached(cache)}


def test_everything_is_listed_with_its_size_and_age(cache: Path) -> None:
    items = {f"{item.kind} {item.name}": item for item in list_cached()}
    assert set(items) == {*FILES.values(), "store store"}
    assert {item.kind for item in items.values()} == set(KINDS)
    assert items["model saliency"].bytes == 15
    assert all(9.9 < item.age < 10.1 for item in items.values())
    found = run("list")
    assert found.exit_code == 0, found.output
    assert "saliency.fp16" in found.output
    listed = json.loads(run("list", "--json").output)
    assert listed["folder"] == str(cache)
    assert [row["name"] for row in listed["items"]] == [item.name for item in list_cached()]


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list_cached(tmp_path / "absent") == ()


def test_what_is_old_goes_but_no_store(cache: Path) -> None:
    os.utime(cache / "sources/abc-weights.pt")
    assert "abc-weights" not in run("prune", "--older-than", "9", "--dry-run").output
    assert left(cache) == {*FILES.values(), "store store"}
    done = run("prune", "--older-than", "9")
    assert done.exit_code == 0, done.output
    assert left(cache) == {"source abc-weights.pt", "store store"}
    assert "are free again" in done.output


def test_what_is_named_goes_and_nothing_else(cache: Path) -> None:
    assert run("prune", "--kind", "variant", "--kind", "store").exit_code == 0
    assert left(cache) == {*FILES.values()} - {"variant saliency.fp16"}
    assert not (cache / "store").exists()
    assert (cache / "models/saliency.onnx").exists()
    assert not prune_cache(kinds=["engine"], older_than=11).removed
    assert run("prune").exit_code == 1
    assert "Give --older-than DAYS" in run("prune").output
    assert run("prune", "--kind", "colour").exit_code == 2


def test_what_is_in_use_stays(cache: Path) -> None:
    def wait() -> None:
        raise AssertionError

    with exclusive_lock(cache / "engines", "tiny-fp16-77", wait), Store(cache / "store"):
        done = run("prune", "--kind", "engine", "--kind", "store")
        assert done.exit_code == 0, done.output
        assert "engine tiny-fp16-77 is in use, and stays" in done.output
        assert "store store is in use, and stays" in done.output
    assert left(cache) >= {"engine tiny-fp16-77", "store store"}
    assert len(prune_cache(kinds=["engine", "store"]).removed) == 2


def test_a_damaged_store_can_be_removed(cache: Path) -> None:
    (cache / "store" / FILE_NAME).write_bytes(b"no database at all" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(cache / "store" / FILE_NAME).execute("SELECT * FROM sqlite_master")
    assert len(prune_cache(kinds=["store"]).removed) == 1
    assert not (cache / "store").exists()
