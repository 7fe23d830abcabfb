"""How much of the foreground a crop keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import boxes, quick

from fgdd_fast.images.crops import Box
from fgdd_fast.measurement.coverage import kept_shares


def test_known_shares() -> None:
    mask = np.zeros((10, 20), np.uint8)
    mask[2:6, 4:12] = 255
    halves = [Box(0, 0, 80, 100), Box(80, 0, 120, 100), Box(0, 0, 200, 40), Box(40, 20, 80, 40)]
    assert kept_shares(mask, halves, width=200, height=100) == [0.5, 0.5, 0.5, 1.0]


def test_what_is_not_above_a_half_is_no_foreground() -> None:
    mask = np.array([[127, 128, 255, 255]], np.uint8)
    assert kept_shares(mask, [Box(0, 0, 1, 1), Box(0, 0, 2, 1)], 4, 1) == [0.0, pytest.approx(1 / 3)]


def test_nothing_is_lost_where_nothing_is_foreground() -> None:
    assert kept_shares(np.zeros((3, 3), np.uint8), [Box(0, 0, 1, 1), Box(1, 1, 2, 2)], 3, 3) == [1.0, 1.0]
    assert kept_shares(np.zeros((3, 3), np.uint8), [], 3, 3) == []


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
