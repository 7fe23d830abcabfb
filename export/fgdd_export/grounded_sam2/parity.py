"""Compare an exported Grounded SAM 2 with the networks that it was made from, image by image.

The bundle runs as the pipeline runs it, in ONNX Runtime. It is compared twice: with the unpatched networks
on the very images that it is given, which is the parity that a bundle must have; and with the whole of
Grounded SAM 2 as it is published, with its own resizing, which tells what canvas and segmenter's size change.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fgdd_engines.bundle.bundle import Bundle
from fgdd_export.graphs.parity import mask_iou, match_boxes
from fgdd_export.grounded_sam2.pytorch_reference import (
    Detections,
    DetectorReference,
    SegmenterReference,
    union,
)
from fgdd_fast.models.foreground import Foreground, Inputs
from fgdd_fast.models.grounded_sam2 import GroundedSam2
from fgdd_fast.models.network import Runtime
from fgdd_fast.models.prompts import Prompting
from fgdd_fast.runtime.sample_images import SampleImage
from fgdd_fast.runtime.tolerances import same_path

_log = logging.getLogger(__name__)

TOLERANCES = {
    "max_score_difference": 1e-3,
    "max_box_difference": 1e-3,  # share of the image
    "unmatched_boxes": 0,
    "mask_iou_loss": 1e-3,
    "max_occupancy_error": 2e-3,
    "other_paths": 0,
    "max_batch_difference": 1e-4,
}
BATCH = 3


@dataclass(frozen=True)
class _Case:
    """One image, what the bundle takes of it, and a threshold for the boxes."""

    check: SampleImage
    inputs: Inputs
    prompt: str
    proposals: Detections
    threshold: float


def measure_parity(
    bundle: Bundle,
    detector: DetectorReference,
    segmenter: SegmenterReference,
    published: SegmenterReference,
    images: Sequence[SampleImage],
    threads: int,
) -> dict[str, Any]:
    """Run images through both, and measure how far they are apart; `published` has the checkpoint's size.

    Each image is asked twice: with the bundle's own threshold, and with one that lies in the widest gap
    between the best scores, so that several boxes are found and none is a near-tie; the first image a third
    time, with a threshold that no box passes.

    Returns:
        The measures of `TOLERANCES`, further figures, and what canvas and segmenter's size change.
    """
    prompting = Prompting.of(bundle)
    classes = list(dict.fromkeys(check.image.class_name for check in images))
    options: dict[str, Any] = {"resize": "area", "classes": classes, "prompts": {}, "threshold": None}
    with closing(GroundedSam2(bundle, Runtime("cpu", "fp32", threads), batch=1, **options)) as model:
        _log.info("Running the PyTorch networks")
        cases = [case for check in images for case in _cases(check, model, detector, prompting)]
        cases.append(_with_threshold(cases[0], 1.0))
        _log.info("Running the bundle")
        with ThreadPoolExecutor(model.streams) as executor:
            found = list(executor.map(lambda case: model.find([case.inputs], masks=True)[0], cases))
    _log.info("Comparing")
    figures = _graph_figures(cases, found, segmenter, prompting.boxes)
    pairs = zip(cases, found, strict=True)
    own = [(case, one) for case, one in pairs if case.threshold == prompting.threshold]
    _log.info("Running the published Grounded SAM 2")
    figures["canvas"] = _canvas_figures(own, detector, published, prompting)
    _log.info("Running the bundle in batches")
    batch = min(BATCH, len(cases))
    with closing(GroundedSam2(bundle, Runtime("cpu", "fp32", 1), batch=batch, **options)) as model:
        together = model.find([case.inputs for case in cases[-batch:]])
    batched = zip(found[-batch:], together, strict=True)
    figures["max_batch_difference"] = _largest(max(_differences(one, other)) for one, other in batched)
    return figures


def _cases(
    check: SampleImage, model: GroundedSam2, detector: DetectorReference, prompting: Prompting
) -> list[_Case]:
    inputs = model.prepare(check.pixels, check.image)
    prompt = model.prompt(check.image.class_name)
    proposals = detector.detect_on_canvas(inputs["canvas"], inputs["valid"], prompt)
    case = _Case(check, inputs, prompt, proposals, prompting.threshold)
    return [case, _with_threshold(case, _widest_gap(proposals, prompting.boxes))]


def _with_threshold(case: _Case, threshold: float) -> _Case:
    inputs = {**case.inputs, "threshold": np.asarray(threshold, np.float32)}
    return replace(case, inputs=inputs, threshold=threshold)


def _widest_gap(proposals: Detections, boxes: int) -> float:
    """The middle of the widest gap between two successive scores that leaves two boxes or more."""
    best = -np.sort(-proposals.scores)[: boxes + 1].astype(np.float64)
    least = min(2, boxes)
    place = least - 1 + int(np.argmax(best[least - 1 : -1] - best[least:]))
    return float((best[place] + best[place + 1]) / 2)


def _graph_figures(
    cases: Sequence[_Case], found: Sequence[Foreground], segmenter: SegmenterReference, boxes: int
) -> dict[str, Any]:
    expected = [case.proposals.above(case.threshold, boxes) for case in cases]
    logits = [
        segmenter.mask_logits(case.inputs["images"], one.corners)
        for case, one in zip(cases, expected, strict=True)
    ]
    matches = [
        match_boxes(one.corners, one.scores, _corners(other), _scores(other))
        for one, other in zip(expected, found, strict=True)
    ]
    side = segmenter.segmenter.image_size
    occupancies = np.array([union(one, (side, side)).mean() for one in logits])
    masks = [one.mask > 127 for one in found if one.mask is not None]
    return {
        "images": len({id(case.check) for case in cases}),
        "boxes": int(sum(len(one.scores) for one in expected)),
        "images_without_a_box": sum(not len(one.scores) for one in expected),
        "max_score_difference": _largest(value for match in matches for value in match.score_difference),
        "max_box_difference": _largest(value for match in matches for value in match.corner_difference),
        "unmatched_boxes": sum(match.unmatched for match in matches),
        "mask_iou_loss": _largest(
            1 - mask_iou(union(one), mask) for one, mask in zip(logits, masks, strict=True)
        ),
        "max_occupancy_error": _largest(np.abs(occupancies - [one.occupancy for one in found])),
        "other_paths": _other_paths(occupancies, np.array([one.occupancy for one in found])),
    }


def _canvas_figures(
    own: Sequence[tuple[_Case, Foreground]],
    detector: DetectorReference,
    segmenter: SegmenterReference,
    prompting: Prompting,
) -> dict[str, Any]:
    """What the bundle's canvas, its segmenter's size and its coarse mask change against what is published."""
    published, matches = [], []
    for case, found in own:
        pixels = case.check.pixels
        boxes = detector.detect(pixels, case.prompt).above(prompting.threshold, prompting.boxes)
        height, width = pixels.shape[:2]
        published.append(union(segmenter.mask_logits(pixels, boxes.corners), (height, width)).mean())
        matches.append(match_boxes(boxes.corners, boxes.scores, _corners(found), _scores(found)))
    errors = np.abs(np.array(published) - [found.occupancy for _, found in own])
    overlaps = np.concatenate([match.iou for match in matches])
    return {
        "mean_occupancy_change": float(errors.mean()),
        "max_occupancy_change": float(errors.max()),
        "mean_box_iou": float(overlaps.mean()) if len(overlaps) else None,
        "matched_boxes": len(overlaps),
        "unmatched_boxes": sum(match.unmatched for match in matches),
        "other_paths": _other_paths(np.array(published), np.array([found.occupancy for _, found in own])),
    }


def _other_paths(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> int:
    """Images that would take another path, each side with the threshold of its own occupancies."""
    return int((~same_path(expected, found)).sum())


def _differences(one: Foreground, other: Foreground) -> list[float]:
    match = match_boxes(_corners(one), _scores(one), _corners(other), _scores(other))
    changes = [abs(one.occupancy - other.occupancy), float(match.unmatched)]
    return [*changes, *match.corner_difference, *match.score_difference]


def _corners(found: Foreground) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([box[:4] for box in found.boxes], np.float64).reshape(-1, 4)


def _scores(found: Foreground) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([box.score for box in found.boxes], np.float64)


def _largest(values: Any) -> float:
    return float(max(values, default=0.0))
