"""Whether two implementations of a path answer alike: figures, and what is accepted of them.

This project is compared twice: with its own fp32 in ONNX Runtime, by what is decided, and with each PyTorch
reference, by tolerances that only another network, other crops or other prompts would miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from fgdd_bench.harness.implementation import Answer, PathName
from fgdd_bench.harness.subject import Original, Task, by_class, records_of
from fgdd_engines.base import Array
from fgdd_export.graphs.parity import mask_iou, match_boxes
from fgdd_fast.errors import DataError, FgddError
from fgdd_fast.images.crops import Box
from fgdd_fast.runtime.tolerances import Tolerance, loss_figures, occupancy_figures, same_path
from fgdd_fast.selection.select import PLAIN, select
from fgdd_fast.selection.thresholds import parse_rule

Figures = Mapping[str, float]
Tolerances = Mapping[str, Tolerance]

FP32 = "fp32"  # what this project's own reference is called in a report
FOREGROUND = 128  # a mask's value from which a pixel is foreground
# Nothing is shown where the reference finds nothing in any image.
_SOME = Tolerance(1e-3, at_least=True)
# Against fp32 in ONNX Runtime.
DECISIONS: Tolerances = {
    "mean_tile_error": Tolerance(0.5),
    "mean_mosaic_error": Tolerance(0.5),
    "with_foreground": _SOME,
    "same_path": Tolerance(0.99, at_least=True),
    "same_or_near_crop": Tolerance(0.99, at_least=True),
}
# int8 takes crops that are almost as good more often: it is judged by what that costs, as by `--device auto`.
INT8_DECISIONS: Tolerances = {
    **{name: bar for name, bar in DECISIONS.items() if name != "same_or_near_crop"},
    "mean_regret": Tolerance(0.02),
}
# Against a PyTorch reference, which may resize by another library, in another precision.
SAME_WORK: Tolerances = {
    "mean_tile_error": Tolerance(6),
    "mean_mosaic_error": Tolerance(6),
    "with_foreground": _SOME,
    "mean_occupancy_error": Tolerance(0.05),
    "loss_rank_correlation": Tolerance(0.97, at_least=True),
}


class DisagreementError(FgddError):
    """This project does not answer as a reference does, so that its speed means nothing."""


@dataclass(frozen=True)
class ComparisonResult:
    """How our answers compare with those of another: figures, and what is accepted of some of them.

    `same_...` are shares, occupancies shares of an image, losses nats, errors of tiles and mosaics grey
    levels of 255.
    """

    against: str
    figures: Figures
    tolerances: Tolerances

    @property
    def failed(self) -> tuple[str, ...]:
        """The figures that are not accepted, by name."""
        return tuple(name for name, bar in self.tolerances.items() if not bar.met_by(self.figures[name]))

    @property
    def failures(self) -> tuple[str, ...]:
        """The same in words."""
        return tuple(
            f"{name.replace('_', ' ')} against {self.against} is {self.figures[name]:.3g} "
            f"({self.tolerances[name]} is accepted)"
            for name in self.failed
        )


def compare(
    path: PathName,
    against: str,
    expected: Answer,
    found: Answer,
    originals: Sequence[Original],
    task: Task,
    precisions: Iterable[str],
) -> ComparisonResult:
    """Compare our answer to a path, computed in some precisions, with what `against` expects."""
    figures = compare_answers(expected, found, originals, task)
    chosen = SAME_WORK if against != FP32 else INT8_DECISIONS if "int8" in precisions else DECISIONS
    tolerances = {name: limit for name, limit in chosen.items() if name in figures}
    if path == "all":  # another tile makes another mosaic; the tiles themselves are compared
        tolerances.pop("mean_mosaic_error", None)
    return ComparisonResult(against, figures, tolerances)


def compare_answers(
    expected: Answer, found: Answer, originals: Sequence[Original], task: Task
) -> dict[str, float]:
    """Return all figures for which both answers have the arrays."""
    both = expected.keys() & found.keys()
    figures: dict[str, float] = {}
    for name in ("tiles", "mosaics"):
        if name in both:
            figures |= _pixel_figures(name.removesuffix("s"), expected[name], found[name])
    if "occupancy" in both:
        figures |= occupancy_figures(expected["occupancy"], found["occupancy"])
        figures["same_path"] = _same_path(expected["occupancy"], found["occupancy"], originals)
    if "boxes" in both:
        figures |= _box_figures(expected["boxes"], found["boxes"])
    if "masks" in both:
        figures |= _mask_figures(expected["masks"], found["masks"])
    if "losses" in both:
        figures |= loss_figures(expected["losses"], found["losses"])
        one, other = (selected_tiles(answer, originals, task) for answer in (expected, found))
        figures["same_tiles"] = len(one & other) / max(len(one), 1)
    return figures


def _pixel_figures(name: str, expected: Array, found: Array) -> dict[str, float]:
    """Compare images uint8 [n, side, side, 3], in grey levels; one at a time, for there may be many."""
    errors = [cv2.absdiff(one, other) for one, other in zip(expected, found, strict=True)]
    return {
        f"mean_{name}_error": float(np.mean([error.mean() for error in errors])),
        f"largest_{name}_error": float(max(error.max() for error in errors)),
    }


def _same_path(expected: Array, found: Array, originals: Sequence[Original]) -> float:
    """Return the share of images that take the same path; each class has its own threshold."""
    places = by_class(range(len(originals)), lambda place: originals[place].image.class_name)
    same = [same_path(expected[members], found[members]) for members in places.values()]
    return float(np.concatenate(same).mean())


def _box_figures(expected: Array, found: Array) -> dict[str, float]:
    """Compare boxes [images, most, 5]; a box without a partner counts as an overlap of 0."""
    overlaps: list[float] = []
    score_errors: list[float] = []
    for one, other in zip(expected, found, strict=True):
        ones, others = one[one[:, 4] > 0], other[other[:, 4] > 0]
        match = match_boxes(ones[:, :4], ones[:, 4], others[:, :4], others[:, 4])
        overlaps += [*match.iou.tolist(), *[0.0] * match.unmatched]
        score_errors += match.score_difference.tolist()
    return {
        "mean_box_iou": float(np.mean(overlaps)) if overlaps else 1.0,
        "matched_boxes": float(np.mean(np.array(overlaps) > 0)) if overlaps else 1.0,
        "mean_score_error": float(np.mean(score_errors)) if score_errors else 0.0,
    }


def _mask_figures(expected: Array, found: Array) -> dict[str, float]:
    """Compare masks uint8 [images, height, width], each pair at the size of the first."""
    ious = []
    for one, other in zip(expected, found, strict=True):
        resized = cv2.resize(other, one.shape[::-1], interpolation=cv2.INTER_LINEAR)
        ious.append(mask_iou(one >= FOREGROUND, resized >= FOREGROUND))
    return {"mean_mask_iou": float(np.mean(ious)), "lowest_mask_iou": float(min(ious))}


def selected_tiles(answer: Answer, originals: Sequence[Original], task: Task) -> set[tuple[str, Box]]:
    """Return the tiles that a mosaic of each class would be made of: their images and boxes.

    Where the answer has no occupancies, every image gives its best crop, as in RDED. None of a class that
    cannot be decided, because an occupancy or its losses are no numbers.
    """
    settings = task.mosaics(1)
    rule = settings.rule if "occupancy" in answer else parse_rule("always-patch")
    limits = settings.selection if "kept" in answer else PLAIN
    found: set[tuple[str, Box]] = set()
    for records in by_class(records_of(originals, task, answer), lambda one: one.class_name).values():
        with suppress(DataError):
            count = min(settings.tiles_per_class, len(records))
            selection = select(records, rule, count, task.seed, settings=limits)
            found |= {(tile.source, tile.box) for tile in selection.tiles}
    return found


def as_json(result: ComparisonResult) -> dict[str, Any]:
    """Return it for a report; a figure that is not finite, for which JSON has no word, becomes None."""
    figures = {name: value if np.isfinite(value) else None for name, value in result.figures.items()}
    tolerances = {name: str(limit) for name, limit in result.tolerances.items()}
    return {"figures": figures, "tolerances": tolerances, "failed": list(result.failed)}
