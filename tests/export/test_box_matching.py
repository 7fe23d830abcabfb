"""Boxes are paired whatever their order, and what differs is measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fgdd_export.graphs.parity import mask_iou, match_boxes

SHARES = st.floats(0, 1, width=32)


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    """Up to six boxes of at least a tenth of each side, as corners, float64."""
    count = draw(st.integers(0, 6))
    near = draw(arrays(np.float64, (count, 2), elements=st.floats(0, 0.8)))
    size = draw(arrays(np.float64, (count, 2), elements=st.floats(0.1, 0.2)))
    return np.concatenate([near, near + size], axis=1)


@given(boxes(), st.randoms(use_true_random=False))
def test_a_shuffled_list_matches_itself(corners: np.ndarray, random: object) -> None:
    order = list(range(len(corners)))
    random.shuffle(order)  # type: ignore[attr-defined]
    scores = np.linspace(0.9, 0.5, len(corners))
    match = match_boxes(corners, scores, corners[order], scores[order])
    assert match.unmatched == 0
    assert match.iou == pytest.approx(np.ones(len(corners)))
    assert match.score_difference == pytest.approx(np.zeros(len(corners)))


@given(boxes(), boxes())
def test_every_box_is_paired_once_or_counted(corners: np.ndarray, others: np.ndarray) -> None:
    match = match_boxes(corners, np.ones(len(corners)), others, np.ones(len(others)))
    assert match.unmatched + 2 * len(match.iou) == len(corners) + len(others)
    assert (match.iou >= 0.5).all()


def test_a_missing_and_a_moved_box_are_seen() -> None:
    corners = np.array([[0, 0, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]])
    match = match_boxes(corners, np.array([0.9, 0.8]), corners[:1] + 0.01, np.array([0.88]))
    assert match.unmatched == 1
    assert match.corner_difference == pytest.approx([0.01])
    assert match.score_difference == pytest.approx([0.02])


def test_mask_iou() -> None:
    left, top = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    left[:, :2] = top[:2] = True
    assert mask_iou(left, top) == pytest.approx(4 / 12)
    assert mask_iou(left, left) == 1
    assert mask_iou(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 1
