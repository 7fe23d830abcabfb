"""The record of a run says what was measured, and a data set is whole without it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_distillation import IMAGES, contents, distill
from tiny_pipeline import coloured

from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.outlines import outline
from fgdd_fast.output.run_record import RunLog, read_run_record


def polygons(path: str) -> list[np.ndarray]:
    """The points of each polygon of an outline, [points, 2], in thousandths."""
    found, start = [], np.zeros(2, int)
    for part in re.findall("m([^z]*)z", path):
        points = np.array(re.findall(r"-?\d+", part), int).reshape(-1, 2).cumsum(axis=0) + start
        found.append(points)
        start = points[0]
    return found


def filled(path: str, side: int = 1000) -> np.ndarray:
    """What an outline encloses, uint8 [side, side]."""
    canvas = np.zeros((side, side), np.uint8)
    if path:
        cv2.fillPoly(canvas, [points.astype(np.int32) * side // 1000 for points in polygons(path)], 255)
    return canvas


def test_an_outline_is_the_border_of_what_is_found() -> None:
    mask = np.zeros((50, 100), np.uint8)
    mask[10:40, 20:60] = 255
    mask[20:30, 30:40] = 0
    border, hole = polygons(outline(mask))
    assert border.min(axis=0) == pytest.approx([205, 210], abs=1)  # middles of the outermost pixels
    assert border.max(axis=0) == pytest.approx([595, 790], abs=1)
    assert hole.min(axis=0) == pytest.approx([295, 390], abs=1)
    assert hole.max(axis=0) == pytest.approx([405, 610], abs=1)
    assert outline(np.zeros((9, 9), np.uint8)) == ""
    assert filled(outline(np.full((9, 9), 255, np.uint8))).mean() > 0.75 * 255


@given(arrays(np.uint8, (12, 12), elements=st.sampled_from([0, 127, 128, 255])))
def test_any_mask_has_an_outline_of_numbers(mask: np.ndarray) -> None:
    path = outline(mask)
    assert re.fullmatch(r"(m\d+([ -]\d+)+z)?(m-?\d+([ -]\d+)+z)*", path)
    assert all(points.min() >= 0 and points.max() <= 1000 for points in polygons(path))


def test_a_run_is_recorded(workplace: Path) -> None:
    assert distill(workplace).exit_code == 0
    out = workplace / "out"
    record, manifest = read_run_record(out), open_distilled(out).manifest
    assert record is not None
    assert set(record.seconds) == {"opening the models", "measuring", "deciding", "writing"}
    assert (record.measured, record.threads) == (3 * IMAGES, 2)
    for name in manifest.classes:
        part, threshold = record.classes[name], manifest.thresholds[name]
        assert len(part.occupancies) == IMAGES
        assert list(part.occupancies) == sorted(part.occupancies)
        below, above = (
            [record.sources[source].occupancy for source in side] for side in (part.below, part.above)
        )
        assert max(below) < threshold <= min(above)
        assert max(below) == max(value for value in part.occupancies if value < threshold)
        assert min(above) == min(value for value in part.occupancies if value >= threshold - 1e-5)
    for tile in (tile for image in manifest.images for tile in image.tiles):
        source = record.sources[tile.source]
        assert (source.sha256, source.occupancy) == (tile.sha256, pytest.approx(tile.occupancy, abs=1e-5))
        drawn = coloured(workplace / "data" / tile.source)
        assert source.size == drawn.shape[::-1]
        assert source.outline is not None
        inside = cv2.resize(filled(source.outline), source.size, interpolation=cv2.INTER_AREA) > 127
        assert (inside & drawn).sum() / (inside | drawn).sum() > 0.6  # the model's mask has 16 x 16 pixels


def test_a_second_run_says_that_all_was_known(workplace: Path) -> None:
    distill(workplace)
    distill(workplace, "again")
    record = read_run_record(workplace / "again")
    assert record is not None
    assert record.measured == 0
    assert contents(workplace / "again") == contents(workplace / "out")


def test_a_rule_without_a_threshold_has_no_images_near_it(workplace: Path) -> None:
    distill(workplace, rule="always-full")
    record = read_run_record(workplace / "out")
    assert record is not None
    assert {part.near for part in record.classes.values()} == {()}


def change(**values: Any) -> bytes:
    base = {"format": 1, "begun": "", "processor": "", "threads": 1, "seconds": {}, "measured": 0}
    return json.dumps(
        {**base, "mean_full_loss": None, "warnings": [], "classes": {}, "sources": {}, **values}
    ).encode()


SOURCE = {"sha256": "0", "size": [1, 1], "occupancy": 0.5, "loss": None, "outline": None}


def test_a_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(change(sources={"a": SOURCE}))
    record = read_run_record(tmp_path)
    assert record is not None
    assert record.sources["a"].loss is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        change(format=2),
        change(seconds=[1]),
        change(sources={"a": {**SOURCE, "outline": '"/><script>'}}),
        change(sources={"a": {**SOURCE, "size": [1]}}),
        change(sources={"a": {**SOURCE, "occupancy": float("nan")}}),
        change(sources={"a": {**SOURCE, "occupancy": 2}}),
    ],
)
def test_a_damaged_record_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert read_run_record(tmp_path) is None


def test_stages_add_up_and_warnings_are_kept_once() -> None:
    log = RunLog()
    for _ in range(2):
        with log.stage("measuring"):
            log.warn("odd")
    assert log.warnings == ["odd"]
    assert list(log.seconds) == ["measuring"]
