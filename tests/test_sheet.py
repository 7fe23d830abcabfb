"""The contact sheet of a distilled data set, and the demo, end to end."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner

from fgdd_fast.cli import main


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


def test_a_folder_that_is_no_distilled_data_set_is_refused(workplace: Path) -> None:
    (workplace / "out" / "manifest.json").unlink()
    code, output = sheet(workplace)
    assert code == 1
    assert "manifest" in output
