"""The contact sheet of a distilled data set, end to end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_distillation import distill
from tiny_grounded import write_grounded_bundle

from fgdd_fast.cli import main
from fgdd_fast.output.contact_sheet import SheetClass, SheetSource, contact_sheet


def distilled(folder: Path, **options: Any) -> None:
    result = distill(folder, **options)
    assert result.exit_code == 0, result.output


def draw(folder: Path, foreground: object = None) -> str:
    """Draw `new/sheet.png`; what is said if that fails."""
    words = ["sheet", str(folder / "out"), str(folder / "data"), "-o", str(folder / "new" / "sheet.png")]
    named = [] if foreground is None else ["--foreground", str(foreground)]
    result = CliRunner().invoke(main, [*words, *named, "--device", "cpu"])
    assert result.exit_code in (0, 1)
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


def test_the_sheet_shows_every_class(workplace: Path) -> None:
    distilled(workplace)
    assert draw(workplace, workplace / "tiny-foreground.onnx") == ""
    picture = cv2.imread(str(workplace / "new" / "sheet.png"))
    saturated = (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 150
    for channel in range(3):  # blue, green and red squares
        assert ((picture.argmax(axis=2) == channel) & saturated).any()


def test_what_was_not_measured_cannot_be_shown(workplace: Path) -> None:
    distilled(workplace)
    assert "tiny-foreground" in draw(workplace)  # the manifest names one that no catalogue has
    bundle = workplace / "tiny-foreground.onnx"
    for file in (workplace / "data" / "red").iterdir():
        assert cv2.imwrite(str(file), tiny.square("red", 0.3, seed=99))
    assert "changed since it was distilled" in draw(workplace, bundle)
    bundle.write_bytes(bundle.read_bytes() + b"\0")
    assert "SHA-256" in draw(workplace, bundle)


def test_the_manifest_says_how_grounded_sam2_was_asked(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_grounded_bundle(workplace)
    (workplace / "prompts.json").write_text('{"green": ["blue"]}')
    distilled(workplace, foreground=bundle.onnx, prompts=workplace / "prompts.json", box_threshold=0.2)
    sources = shown(monkeypatch)
    assert draw(workplace, bundle.onnx) == ""
    assert sources
    for source in sources:
        assert (source.mask > 127).mean() == source.occupancy  # found again as it was measured
        assert len(source.found) == (source.occupancy > 0)
    assert {source.occupancy > 0 for source in sources} == {True, False}  # nothing blue in a green square


def test_masks_are_named_again(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = f"masks:{tiny.write_masks(workplace)}"
    distilled(workplace, foreground=masks)
    assert "--foreground masks:FOLDER" in draw(workplace)
    sources = shown(monkeypatch)
    assert draw(workplace, masks) == ""
    assert all((source.mask > 127).mean() == source.occupancy for source in sources)
    assert "is not the one" in draw(workplace, workplace / "tiny-foreground.onnx")
    (workplace / "masks" / "red" / "00.png").unlink()
    assert "is not the one" in draw(workplace, masks)
