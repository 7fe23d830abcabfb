"""Shares of the foreground within crops, and perceptual hashes: measured with the rest, or when asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import boxes, quick
from tiny_measuring import SETTINGS, measure

from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import DataSet, scan
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.models.network import Teacher
from fgdd_fast.models.saliency import SaliencyModel
from fgdd_fast.selection.records import ImageRecord

SELECTIVE = replace(SETTINGS, shares=True, hashes=True)


@pytest.fixture
def squares(tmp_path: Path) -> DataSet:
    return scan(tiny.write_squares(tmp_path / "data", 6))


def test_shares_come_with_every_foreground_and_hashes_need_no_network(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain = measure(squares, tmp_path)
    for record in plain:
        assert isinstance(record, ImageRecord)
        assert record.perceptual_hash is None
        assert all(crop.foreground is None for crop in record.crops)
    monkeypatch.setattr(SaliencyModel, "find", _fail)
    monkeypatch.setattr(Teacher, "losses", _fail)
    assert measure(squares, tmp_path, replace(SETTINGS, shares=True))[0].reused == 18
    measured, records = measure(squares, tmp_path, SELECTIVE)
    assert (measured.measured, measured.reused) == (18, 0)
    monkeypatch.setattr("fgdd_fast.measurement.measurer.read_file", _fail)
    assert measure(squares, tmp_path, SELECTIVE)[0].reused == 18
    assert all(isinstance(record, ImageRecord) and record.perceptual_hash is not None for record in records)
    assert measure(squares, tmp_path)[1] == plain


def test_masks_tell_the_shares_of_crops_that_were_added_later(
    squares: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = replace(SETTINGS, crops=5, seed=SETTINGS.seed + 1)
    (tmp_path / "other").mkdir()
    expected = measure(squares, tmp_path / "other", replace(more, shares=True))[1]
    measure(squares, tmp_path)
    monkeypatch.setattr(SaliencyModel, "find", _fail)
    assert measure(squares, tmp_path, more)[0].measured == 18  # their losses alone
    measured, records = measure(squares, tmp_path, replace(more, shares=True))
    assert measured.reused == 18
    assert records == expected


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("this must not be called")


def test_known_shares() -> None:
    mask = np.zeros((10, 20), np.uint8)
    mask[2:6, 4:12] = 255
    halves = [Box(0, 0, 80, 100), Box(80, 0, 120, 100), Box(0, 0, 200, 40), Box(40, 20, 80, 40)]
    assert kept_shares(mask, halves, width=200, height=100) == [0.5, 0.5, 0.5, 1.0]


@st.composite
def images(draw: st.DrawFn) -> tuple[tuple[int, int], list[Box]]:
    width, height = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    return (width, height), draw(st.lists(boxes(width, height), min_size=1, max_size=4))


@quick
@given(images(), st.integers(0, 2**32 - 1))
def test_at_the_image_s_resolution_shares_are_counts(
    image: tuple[tuple[int, int], list[Box]], seed: int
) -> None:
    (width, height), members = image
    mask = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    total = (mask > 127).sum()
    for box, share in zip(members, kept_shares(mask, members, width, height), strict=True):
        inside = mask[box.y : box.y + box.height, box.x : box.x + box.width]
        assert share == (pytest.approx((inside > 127).sum() / total) if total else 1.0)


@quick
@given(images(), st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_at_any_resolution_the_whole_keeps_everything_and_a_part_no_more_than_it(
    image: tuple[tuple[int, int], list[Box]], rows: int, columns: int, seed: int
) -> None:
    (width, height), members = image
    mask = np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)
    inner = [Box(box.x, box.y, (box.width + 1) // 2, (box.height + 1) // 2) for box in members]
    whole, *shares = kept_shares(mask, [Box(0, 0, width, height), *members, *inner], width, height)
    assert whole == 1.0
    for larger, smaller in zip(shares[: len(members)], shares[len(members) :], strict=True):
        assert 0 <= smaller <= larger <= 1
