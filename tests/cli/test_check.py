"""`fgdd-fast check`, and its lines at the head of the commands that do the long work."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from odd_data import numbered, put_pictures
from tiny_distillation import contents, distill

from fgdd_engines.bundle.bundle import load_bundle
from fgdd_fast.cli import main
from fgdd_fast.output.distilled import open_distilled


def check(data: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["check", str(data), *options], catch_exceptions=False)


def flat(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return put_pictures(tmp_path / "data", {"cat": numbered(4), "dog": numbered(4)})


def test_nothing_odd_is_said_and_the_status_is_0(data: Path) -> None:
    result = check(data, "--fail-on", "note")
    assert (result.exit_code, result.output) == (0, "Nothing odd was found.\n")


def test_findings_are_said_with_what_to_do_and_fail_when_asked(data: Path) -> None:
    shutil.copy(data / "cat/photo-a.png", data / "dog/photo-z.png")
    (data / "dog/list.txt").touch()
    result = check(data)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "error two-classes: The same image lies in two classes, 1 time: cat/photo-a.png = dog/photo-z.png",
        "  Take each out of the class to which it does not belong.",
        "note left-aside: 1 file is no image, and left aside: 1 .txt",
        "  Convert those that are pictures.",
        "1 error, 1 note",
    ]
    assert check(data, "--fail-on", "two-classes").exit_code == 3
    assert check(data, "--fail-on", "warning", "--quick").exit_code == 3  # or what is worse
    assert check(data, "--fail-on", "leak").exit_code == 0
    assert check(data, "--fail-on", "note", "--ignore", "list.txt", "--ignore", "photo-z.png").exit_code == 0
    result = check(data, "--fail-on", "nonsense")
    assert result.exit_code == 2
    assert "none of error, warning, note" in result.output


def test_a_program_reads_the_findings_as_json(data: Path) -> None:
    (data / "cat/odd [bold]name.HEIC").touch()
    result = check(data, "--json")
    (found,) = json.loads(result.stdout)["findings"]
    assert found["code"] == "unreadable-format"
    assert found["files"] == ["cat/odd [bold]name.HEIC"]
    assert set(found) == {"code", "severity", "message", "advice", "files", "groups"}
    assert check(data, "--json", str(data.parent / "found.json")).exit_code == 0
    assert json.loads((data.parent / "found.json").read_text())["findings"] == [found]


def test_names_that_are_no_utf8_are_shown_and_written(data: Path) -> None:
    Path(os.fsdecode(os.fsencode(data) + b"/cat/\xff.heic")).touch()
    shutil.copy(data / "cat/photo-a.png", Path(os.fsdecode(os.fsencode(data) + b"/cat/\xfe.png")))
    assert "\\udcfe.png" in check(data).output
    assert check(data, "--json", str(data.parent / "found.json")).exit_code == 0
    found = json.loads((data.parent / "found.json").read_text())["findings"]
    assert {file for each in found for file in each["files"]} >= {"cat/\udcff.heic", "cat/\udcfe.png"}


def test_what_cannot_be_checked_is_refused_in_two_lines(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(tmp_path / "nothing")])
    assert result.exit_code == 1
    assert "There is no folder" in result.output


def test_the_head_of_distill_says_what_is_odd_and_changes_nothing(workplace: Path) -> None:
    assert distill(workplace, "before").exit_code == 0
    (workplace / "data/red/notes.txt").touch()
    (workplace / "validation").mkdir()
    shutil.copytree(workplace / "data/blue", workplace / "validation/blue")
    result = distill(workplace, "after", "--validation", str(workplace / "validation"))
    assert result.exit_code == 0, result.output
    said = flat(result)
    assert "warning leak: 8 of 8 validation images are also in DATA" in said
    assert "warning validation-classes:" in said
    assert "note left-aside:" in said
    assert contents(workplace / "after") == contents(workplace / "before")


def test_what_is_left_out_of_a_distillation_stands_in_its_manifest(workplace: Path) -> None:
    (workplace / "data/masks").mkdir()
    result = distill(workplace, "refused")
    assert result.exit_code == 1
    assert "--skip-empty" in result.output
    held = workplace / "validation/red"
    held.mkdir(parents=True)
    shutil.copy(workplace / "data/red/00.png", held / "same.png")
    options = ("--skip-empty", "--ignore", "blue/07.png", "--exclude-leaks", "--validation", str(held.parent))
    result = distill(workplace, "out", *options)
    assert result.exit_code == 0, result.output
    manifest = open_distilled(workplace / "out").manifest
    assert {item.source: item.reason for item in manifest.skipped} == {
        "blue/07.png": "left out by --ignore blue/07.png",
        "masks": "class folder without images",
        "red/00.png": "among the held-out images: same bytes as red/same.png",
    }
    assert "leak" not in flat(result)


def test_measure_says_it_too(workplace: Path) -> None:
    (workplace / "data/red/1.heic").touch()
    words = ["measure", workplace / "data", "--teacher", workplace / "tiny-teacher.onnx", "--device", "cpu"]
    words += ["--foreground", workplace / "tiny-foreground.onnx", "--store", workplace / "store"]
    words += ["--size", 16, "--ignore", "green"]
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert "warning unreadable-format: 1 image of the format .heic" in flat(result)
    assert "16 images measured" in flat(result)


def test_pictures_of_12_bits_are_distilled_as_those_of_8_when_asked(workplace: Path) -> None:
    assert distill(workplace, "eight").exit_code == 0
    for file in (workplace / "data").rglob("*.png"):
        cv2.imwrite(str(file), cv2.imread(str(file)).astype(np.uint16) << 4)
    result = distill(workplace, "dark")
    assert "warning sixteen-bit: 24 images hold 16 bits, and their values use 12 of them" in flat(result)
    result = distill(workplace, "scaled", sixteen_bit="scale")
    assert result.exit_code == 0, result.output
    assert "sixteen-bit" not in flat(result)
    eight, dark, scaled = (contents(workplace / name) for name in ("eight", "dark", "scaled"))
    mosaics = [name for name in eight if name.startswith("images/")]
    assert [scaled[name] for name in mosaics] == [eight[name] for name in mosaics]
    assert [dark.get(name) for name in mosaics] != [eight[name] for name in mosaics]
    settings = open_distilled(workplace / "scaled").manifest.settings
    assert settings["sixteen_bit"] == "scale"
    assert "sixteen_bit" not in open_distilled(workplace / "eight").manifest.settings


def films(folder: Path) -> Path:
    """Squares named as frames of two films for each class."""
    tiny.write_squares(folder, 12)
    for file in [*folder.rglob("*.png")]:
        place = int(file.stem)
        file.rename(file.with_name(f"film{place % 2}_{place // 2:03}.png"))
    return folder


def test_frames_are_held_out_together_when_asked(workplace: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    tiny.backbone_bundle(workplace)
    data = films(workplace / "films")
    words = ["teacher", "fit", data, "-o", workplace / "fitted", "--device", "cpu"]
    words += ["--backbone", workplace / "tiny-backbone.onnx"]
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert "warning recordings: 36 of 36 images are numbered frames of 6 recordings" in flat(result)
    result = CliRunner().invoke(main, [*map(str, words), "--group", r"(film\d)_"])
    assert result.exit_code == 0, result.output
    accuracy = load_bundle(workplace / "fitted.onnx").accuracy
    assert (accuracy["images"], accuracy["held_out"]) == (18, r"0.2 of each class, in groups by (film\d)_")
    assert "warning" not in flat(result)
    result = CliRunner().invoke(main, [*map(str, words), "--group", "film"])
    assert result.exit_code == 1
    assert "a single group" in flat(result)
    result = CliRunner().invoke(main, [*map(str, words), "--group", "("])
    assert "is no regular expression" in flat(result)
