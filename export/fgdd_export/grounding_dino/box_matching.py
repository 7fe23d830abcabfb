"""Pair the boxes of two detectors, so that equal boxes in another order count as equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Match:
    """How the boxes of two lists agree.

    Attributes:
        unmatched: boxes of either list without a partner.
        iou: intersection over union of each pair, [pairs].
        corner_difference: largest difference of an edge of each pair, as a share of the image, [pairs].
        score_difference: of each pair, [pairs].
    """

    unmatched: int
    iou: Floats
    corner_difference: Floats
    score_difference: Floats


def match_boxes(
    corners: Floats, scores: Floats, other_corners: Floats, other_scores: Floats, least_iou: float = 0.5
) -> Match:
    """Pair boxes one to one: those that overlap most first, equal overlaps by the closest score.

    Args:
        corners, other_corners: [n, 4] and [m, 4]; left, top, right, bottom.
        scores, other_scores: [n] and [m].
        least_iou: boxes that overlap less than this are no pair.
    """
    overlap = box_iou(corners, other_corners)
    gap = np.abs(scores[:, None] - other_scores[None, :])
    order = np.lexsort((gap.ravel(), -np.round(overlap, 3).ravel()))
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    other_taken: set[int] = set()
    for place in order:
        one, other = divmod(int(place), len(other_corners))
        if overlap[one, other] < least_iou:
            break
        if one not in taken and other not in other_taken:
            pairs.append((one, other))
            taken.add(one)
            other_taken.add(other)
    ones, others = (np.array([pair[side] for pair in pairs], dtype=np.intp) for side in (0, 1))
    return Match(
        unmatched=len(corners) + len(other_corners) - 2 * len(pairs),
        iou=overlap[ones, others],
        corner_difference=np.abs(corners[ones] - other_corners[others]).max(axis=1, initial=0),
        score_difference=gap[ones, others],
    )


def box_iou(corners: Floats, other_corners: Floats) -> Floats:
    """Intersection over union of every box with every other, [n, m]; 0 where both have no area."""
    near = np.maximum(corners[:, None, :2], other_corners[None, :, :2])
    far = np.minimum(corners[:, None, 2:], other_corners[None, :, 2:])
    shared = np.clip(far - near, 0, None).prod(axis=2)
    area, other_area = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (corners, other_corners))
    union = area[:, None] + other_area[None, :] - shared
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def mask_iou(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape; 1 where both are empty."""
    union = int((mask | other).sum())
    return float((mask & other).sum() / union) if union else 1.0


def nearest_distances(rows: Floats, other_rows: Floats) -> Floats:
    """How far each row is from the nearest of the others: the largest difference of a column, [n].

    For proposals in any order: equal ones are 0 apart, whatever their places.
    """
    return np.array([np.abs(other_rows - row).max(axis=1).min() for row in rows])
