"""The contact sheet of a distilled data set, end to end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_grounded import write_grounded_bundle

from fgdd_fast.cli import main
from fgdd_fast.output.contact_sheet import SheetClass, SheetSource, contact_sheet


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `data`, a distilled `out`, and the tiny models."""
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    tiny.write_squares(tmp_path / "data", 8)
    tiny.foreground_bundle(tmp_path)
    tiny.teacher_bundle(tmp_path)
    words = ["distill", str(tmp_path / "data"), str(tmp_path / "out"), "--ipc", "1", "--size", "16"]
    for name in ("foreground", "teacher"):
        words += [f"--{name}", str(tmp_path / f"tiny-{name}.onnx")]
    result = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "store"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return tmp_path


def sheet(folder: Path, foreground: str | None = "tiny-foreground.onnx") -> tuple[int, str]:
    words = ["sheet", str(folder / "out"), str(folder / "data"), "-o", str(folder / "new" / "sheet.png")]
    named = [] if foreground is None else ["--foreground", str(folder / foreground)]
    result = CliRunner().invoke(main, [*words, *named, "--device", "cpu"])
    return result.exit_code, result.output.replace("\n", " ")


def test_the_sheet_shows_every_class(workplace: Path) -> None:
    code, output = sheet(workplace)
    assert code == 0, output
    picture = cv2.imread(str(workplace / "new" / "sheet.png"))
    saturated = (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 150
    for channel in range(3):  # blue, green and red squares
        assert ((picture.argmax(axis=2) == channel) & saturated).any()


def test_the_model_must_be_the_one_that_measured(workplace: Path) -> None:
    code, output = sheet(workplace, None)  # the manifest names one that no catalogue has
    assert code == 1
    assert "tiny-foreground" in output
    with (workplace / "tiny-foreground.onnx").open("ab") as file:
        file.write(b"\0")
    code, output = sheet(workplace)
    assert code == 1
    assert "SHA-256" in output


def test_a_source_that_changed_is_refused(workplace: Path) -> None:
    for file in (workplace / "data" / "red").iterdir():
        assert cv2.imwrite(str(file), tiny.square("red", 0.3, seed=99))
    code, output = sheet(workplace)
    assert code == 1
    assert "changed since it was distilled" in output


def redistill(folder: Path, foreground: str, *options: str) -> None:
    """Distil into `out` again, with another foreground model."""
    words = [
        "distill",
        str(folder / "data"),
        str(folder / "out"),
        "--ipc",
        "1",
        "--size",
        "16",
        "--overwrite",
    ]
    words += ["--teacher", str(folder / "tiny-teacher.onnx"), "--store", str(folder / "store")]
    result = CliRunner().invoke(main, [*words, "--foreground", foreground, "--device", "cpu", *options])
    assert result.exit_code == 0, result.output


def draw(folder: Path, *options: str) -> str:
    words = ["sheet", str(folder / "out"), str(folder / "data"), "-o", str(folder / "sheet.png")]
    result = CliRunner().invoke(main, [*words, *options, "--device", "cpu"])
    return "" if result.exit_code == 0 else result.output.replace("\n", " ")


def shown(monkeypatch: pytest.MonkeyPatch) -> list[SheetSource]:
    """The sources that the sheets drawn from now on show."""
    sources: list[SheetSource] = []

    def recorded(classes: Iterable[SheetClass], **options: Any) -> Any:
        listed = list(classes)
        sources.extend(source for sheet_class in listed for source in sheet_class.sources)
        return contact_sheet(listed, **options)

    monkeypatch.setattr("fgdd_fast.output.report.contact_sheet", recorded)
    return sources


def test_the_manifest_says_how_grounded_sam2_was_asked(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_grounded_bundle(workplace)
    (workplace / "prompts.json").write_text('{"green": ["blue"]}')
    options = ("--prompts", str(workplace / "prompts.json"), "--box-threshold", "0.2")
    redistill(workplace, str(bundle.onnx), *options)
    sources = shown(monkeypatch)
    assert draw(workplace, "--foreground", str(bundle.onnx)) == ""
    assert sources
    for source in sources:
        assert (source.mask > 127).mean() == source.occupancy  # found again as it was measured
        assert len(source.found) == (source.occupancy > 0)
    assert {source.occupancy > 0 for source in sources} == {True, False}  # nothing blue in a green square


def test_masks_are_named_again(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (workplace / "data").rglob("*.png"):
        mask = workplace / "masks" / file.relative_to(workplace / "data")
        mask.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(mask), np.ptp(cv2.imread(str(file)), axis=2))
    masks = f"masks:{workplace / 'masks'}"
    redistill(workplace, masks)
    assert "--foreground masks:FOLDER" in draw(workplace)
    sources = shown(monkeypatch)
    assert draw(workplace, "--foreground", masks) == ""
    assert all((source.mask > 127).mean() == source.occupancy for source in sources)
    other = str(workplace / "tiny-foreground.onnx")
    assert "is not the one" in draw(workplace, "--foreground", other)
    (workplace / "masks" / "red" / "00.png").unlink()
    assert "is not the one" in draw(workplace, "--foreground", masks)
