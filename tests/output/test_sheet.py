"""The contact sheet: what is drawn, where, of what; and that odd images and names do no harm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_distillation import distill
from tiny_grounded import write_grounded_bundle

from fgdd_fast.cli import main
from fgdd_fast.images.crops import Box
from fgdd_fast.models.foreground import ScoredBox
from fgdd_fast.output.contact_sheet import (
    FOREGROUND,
    KIND_COLOURS,
    MAX_HEIGHT,
    SheetClass,
    SheetSource,
    contact_sheet,
)
from fgdd_fast.selection.records import TileKind

Pixels = npt.NDArray[np.uint8]
THUMB = 200
GREY = 90


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


def grey(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), GREY, np.uint8)


def a_source(
    pixels: Pixels, *, mask: Pixels | None = None, box: Box | None = None, kind: TileKind = "full"
) -> SheetSource:
    whole = Box(0, 0, pixels.shape[1], pixels.shape[0])
    return SheetSource(pixels, mask, box or whole, kind, occupancy=0.25, loss=1.5)


def a_class(*sources: SheetSource, mosaics: int = 1, name: str = "mug") -> SheetClass:
    return SheetClass(name, 0.4, 10, 7, sources, [grey(112, 112)] * mosaics)


def sheet_of(*classes: SheetClass) -> Pixels:
    return contact_sheet(classes, total=len(classes), thumb=THUMB)


def thumbnail(source: SheetSource) -> Pixels:
    """The square in which a source is shown."""
    return sheet_of(a_class(source))[178 : 178 + THUMB, 36 : 36 + THUMB]


def span(window: Pixels, tone: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (just outside) of a colour."""
    rows, columns = np.nonzero((window == tone).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_a_sheet_is_a_picture_of_whole_rows() -> None:
    few = sheet_of(a_class(*[a_source(grey(40, 60))] * 6))
    more = sheet_of(a_class(*[a_source(grey(40, 60))] * 7))
    most = sheet_of(a_class(*[a_source(grey(40, 60))] * 99))

    assert few.dtype == np.uint8
    assert few.shape[2] == 3
    assert few.shape[1] == more.shape[1] == most.shape[1]
    assert more.shape[0] == few.shape[0] + THUMB + 50
    assert most.shape == more.shape


def test_the_outline_runs_along_the_border_of_the_mask() -> None:
    mask = np.zeros((50, 50), np.uint8)
    mask[10:40, 15:35] = 255
    window = thumbnail(a_source(grey(400, 400), mask=mask)).astype(int)
    yellow = window[..., 0] - window[..., 2] > 80
    dark = window.sum(axis=2) < 3 * 60

    rows, columns = np.nonzero(yellow)
    assert [rows.min(), rows.max() + 1] == pytest.approx([40, 160], abs=2)
    assert [columns.min(), columns.max() + 1] == pytest.approx([60, 140], abs=2)
    assert yellow[100, 58:62].any()
    assert yellow[38:42, 100].any()
    assert not yellow[60:140, 70:130].any()
    assert dark[100, 55:66].any()


@pytest.mark.parametrize(
    ("box", "kind", "height", "frame"),
    [
        (Box(0, 0, 400, 400), "full", 400, (0, 0, 200, 200)),
        (Box(0, 0, 400, 200), "full", 200, (0, 50, 200, 150)),
        (Box(100, 40, 200, 120), "crop", 400, (50, 20, 150, 80)),
        (Box(100, 40, 200, 120), "crop", 200, (50, 70, 150, 130)),
    ],
)
def test_what_is_taken_is_framed_and_the_rest_faded(
    box: Box, kind: TileKind, height: int, frame: tuple[int, int, int, int]
) -> None:
    window = thumbnail(a_source(grey(height, 400), box=box, kind=kind))
    assert span(window, KIND_COLOURS[kind]) == frame
    assert (window[(frame[1] + frame[3]) // 2, 100] == GREY).all()
    assert kind == "full" or (window[frame[3] + 10, 20] > GREY + 30).all()


def test_mosaics_stand_beside_the_sources() -> None:
    mosaic = np.full((50, 50, 3), (1, 2, 3), np.uint8)
    sheet = sheet_of(SheetClass("mug", 0.4, 10, 7, [a_source(grey(40, 40))], [mosaic]))
    left, top, right, bottom = span(sheet, (1, 2, 3))
    assert (right - left, bottom - top, top) == (THUMB, THUMB, 178)
    assert left > 36 + 6 * THUMB


@settings(max_examples=25, deadline=None)
@given(data=st.data(), height=st.integers(1, 60), width=st.integers(1, 60), stretch=st.sampled_from([1, 90]))
def test_any_image_and_box_can_be_shown(data: st.DataObject, height: int, width: int, stretch: int) -> None:
    width *= stretch
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    mask = np.full((data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))), 255, np.uint8)
    mask[0, 0] = 0

    sheet = sheet_of(a_class(a_source(grey(height, width), mask=mask, box=box, kind="crop")))

    assert sheet.shape == sheet_of(a_class(a_source(grey(5, 5)))).shape


@pytest.mark.parametrize("name", ["Größe", "帽子", "a\nb\tc", "\udcff.jpg", "🧢", "", "x" * 5000])
def test_any_name_can_be_written_and_stays_within_its_column(name: str) -> None:
    sheet = sheet_of(a_class(name=name, mosaics=0))
    title = sheet[124 + 4 : 178, 36:]

    assert sheet.shape == sheet_of(a_class(mosaics=0)).shape
    used = np.nonzero((title < 200).any(axis=(0, 2)))[0]
    between = sheet[124 + 4 : 178, 36 + 6 * (THUMB + 14) : 36 + 6 * (THUMB + 14) + 14]
    assert used.size
    assert (between == 255).all()


def test_a_sheet_of_many_classes_ends_in_time_and_asks_for_no_more() -> None:
    taken = 0

    def classes() -> Iterator[SheetClass]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield a_class(mosaics=0)

    full = contact_sheet(classes(), total=1000, columns=2, mosaic_columns=1, thumb=100)

    assert MAX_HEIGHT - 300 < full.shape[0] <= MAX_HEIGHT
    assert taken < 1000
    footer = full[-56:]
    assert (footer < 200).any(axis=2).sum() > 100
    assert (contact_sheet([a_class()], total=1)[-56:] == 255).all()


def test_what_was_found_is_framed_thinly() -> None:
    found = ScoredBox(0.25, 0.1, 0.75, 0.6, 0.5)
    window = thumbnail(replace(a_source(grey(400, 400)), found=(found,)))
    assert span(window, FOREGROUND) == (50, 20, 150, 120)
    assert (window[30:110, 60:140] == GREY).all()


def test_a_found_box_may_reach_over_the_edges() -> None:
    found = (ScoredBox(-0.02, -0.5, 1.03, 1.5, 0.9), ScoredBox(0.5, 0.5, 0.5, 0.5, 0.1))
    plain = sheet_of(a_class(a_source(grey(30, 400))))
    sheet = sheet_of(a_class(replace(a_source(grey(30, 400)), found=found)))
    changed = (sheet != plain).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert columns.min() >= 36
    assert columns.max() < 36 + THUMB
    assert np.ptp(rows) <= THUMB
