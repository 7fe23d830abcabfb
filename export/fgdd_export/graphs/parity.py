"""How an exported network is compared with its source: images, figures, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Preprocessing, Role
from fgdd_fast.errors import BundleError

ABSOLUTE_TOLERANCE = 1e-3  # of a teacher's logits and losses (nats)
RELATIVE_TOLERANCE = 1e-5  # of its largest logit: float32 holds seven digits
UNKNOWN_LICENCE = "NOASSERTION"  # as SPDX says it


def drawn_images(height: int, width: int) -> NDArray[np.uint8]:
    """Draw objects on plain, graded and speckled backgrounds.

    Returns:
        uint8 [4, height, width, 3], RGB: a red disc on grey, a bright bar on a gradient, a blue ring on
        speckle, and a dim green disc in a corner of a dark gradient.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    u, v = x * 256 // width, y * 256 // height  # both 0 to 255 at any size
    speckle = (u * 73 + v * 151 + u * v * 11) % 61
    grey = np.stack([128 + 0 * u] * 3, axis=-1)
    gradient = np.stack([u, v, (u + v) // 2], axis=-1)
    from_centre = (u - 128) ** 2 + (v - 128) ** 2
    from_corner = (u - 60) ** 2 + (v - 70) ** 2
    scenes = [
        (from_centre < 70**2, (200, 30, 40), grey),
        ((abs(u - 150) < 40) & (abs(v - 120) < 90), (250, 240, 210), gradient),
        ((from_centre < 90**2) & (from_centre > 45**2), (20, 40, 220), 90 + grey // 4 + speckle[..., None]),
        (from_corner < 45**2, (40, 120, 50), gradient // 4 + speckle[..., None] // 4),
    ]
    pictures = [np.where(inside[..., None], colour, background) for inside, colour, background in scenes]
    return np.stack(pictures).astype(np.uint8)


@dataclass(frozen=True)
class Prepared:
    """A model made from its source, with the parity that was measured.

    Attributes:
        model: the serialised ONNX graph.
        role: what it is for.
        preprocessing: what the graph does to its input.
        parity: the differences from the source network.
    """

    model: bytes
    role: Role
    preprocessing: Preprocessing
    parity: Mapping[str, float]


def cross_entropy(logits: NDArray[np.float64], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the loss of each sample in nats, [n], of logits [n, classes] and labels [n]."""
    losses: NDArray[np.float64] = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return losses


def teacher_differences(
    found: Mapping[str, NDArray[Any]], logits: NDArray[Any], losses: NDArray[Any]
) -> dict[str, float]:
    """Compare a teacher's outputs with the logits and losses (nats) that they should be."""
    return {
        "max_logit": float(np.abs(logits).max()),
        "max_logit_difference": float(np.abs(found["logits"] - logits).max()),
        "max_loss_difference": float(np.abs(found["loss"] - losses).max()),
    }


def teacher_tolerance(largest: float) -> float:
    """Return what differences of logits and losses (nats) are rounding, where the largest logit is this."""
    return ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * largest


def check_teacher_parity(name: str, parity: Mapping[str, Any]) -> None:
    """Refuse a teacher that differs from the network that it was made from; see `check_parity`."""
    tolerance = teacher_tolerance(parity["max_logit"])
    check_parity(name, parity, {"max_logit_difference": tolerance, "max_loss_difference": tolerance})


def check_parity(name: str, parity: Mapping[str, float], tolerances: Mapping[str, float]) -> None:
    """Raise BundleError where a difference from the source network is above its tolerance, or no number."""
    for measure, tolerance in tolerances.items():
        if not parity[measure] <= tolerance:
            raise BundleError(
                f"The model {name} differs from its source: {measure.replace('_', ' ')} is "
                f"{parity[measure]:.3g}, above {tolerance:.3g}",
                "Nothing was written. Try the versions of onnx, onnxslim and onnxruntime in constraints.txt.",
            )


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
