"""`--dry-run`: what would be measured and written is told, and nothing is written."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_distillation import IMAGES, arguments, assert_refused, distill

from fgdd_fast.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_squares(tmp_path / "data", IMAGES)
    tiny.foreground_bundle(tmp_path)
    tiny.teacher_bundle(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def told(folder: Path, *flags: str, **options: Any) -> dict[str, Any]:
    """What a dry run tells; it leaves all files as they are."""
    before = everything(folder)
    result = distill(folder, "out", "--dry-run", "--json", *flags, **options)
    assert result.exit_code == 0, result.output
    assert everything(folder) == before
    assert "to measure" in result.stderr
    return dict(json.loads(result.stdout))


def test_what_is_missing_is_told_with_its_time_and_size(folder: Path) -> None:
    new = told(folder, "--label-epochs", "3")
    assert (new["images"], new["to_measure"], new["mosaics"]) == (3 * IMAGES, 3 * IMAGES, 3)
    assert new["seconds"] > 0
    assert new["store_bytes"] > 0
    assert new["labels_bytes"] == 3 * (5 * 2 * 3 + 3 * (2 * 3 + 14))
    assert distill(folder, "first").exit_code == 0
    written = sum(file.stat().st_size for file in (folder / "first" / "images").rglob("*.png"))
    assert new["out_bytes"] == pytest.approx(written, rel=0.5)
    known = told(folder)
    assert (known["to_measure"], known["seconds"], known["sample"]) == (0, 0, 0)
    (folder / "data").rename(folder / "moved")
    tiny.write_squares(folder / "data", IMAGES)  # the same bytes in other files
    assert told(folder)["to_measure"] == 0
    shutil.copy(
        folder / "data" / "red" / "07.png", folder / "data" / "blue" / "red.png"
    )  # with another label
    assert told(folder)["to_measure"] == 1
    assert told(folder, crops=4)["to_measure"] == 3 * IMAGES + 1


def test_whole_images_are_told_apart_from_crops(folder: Path) -> None:
    assert told(folder, foreground=None)["rule"] == "always-full"
    assert distill(folder, "whole", foreground=None).exit_code == 0
    assert told(folder, foreground=None)["to_measure"] == 0
    assert told(folder)["to_measure"] == 3 * IMAGES


def test_measuring_is_told_likewise(folder: Path) -> None:
    words = [
        word for word in arguments(folder) if word not in ("distill", "--no-report", str(folder / "out"))
    ]
    del words[words.index("--ipc") : words.index("--ipc") + 2]
    before = everything(folder)
    result = CliRunner().invoke(main, ["measure", *words, "--dry-run", "-q"])
    assert result.exit_code == 0, result.output
    assert f"{3 * IMAGES} of {3 * IMAGES} images" in result.stdout
    assert everything(folder) == before


def test_what_would_be_refused_is_refused(folder: Path) -> None:
    assert_refused(distill(folder, "out", "--dry-run", ipc=50), "too small")
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("")
    assert_refused(distill(folder, "out", "--dry-run"), "out")
    assert distill(folder, "first").exit_code == 0
    with sqlite3.connect(folder / "store" / "measurements.sqlite3") as database:
        database.execute("PRAGMA user_version = 1")
    assert_refused(distill(folder, "second", "--dry-run"), "format 1")
