"""How well a pair of miniatures, loaded from its folders, finds and segments what drawn scenes contain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoProcessor, GroundingDinoForObjectDetection, Sam2Model

from fgdd_bench.references.grounded.miniature_networks import SEGMENTER_SIDE
from fgdd_fast.synthetic.scenes import Scene, absent_name, draw_scene
from fgdd_fast.synthetic.tools import Dice
from miniatures.batches import normalised, resized
from miniatures.losses import box_overlaps

THRESHOLD = 0.4
_GOOD_OVERLAP = 0.7
_HELD_OUT = 2**41  # training draws its scenes from smaller seeds


@dataclass(frozen=True)
class Scores:
    """Means over held-out scenes.

    Attributes:
        scenes: how many.
        found: share of the named objects that a box above the threshold overlaps with an IoU above 0.7.
        spurious: boxes above the threshold for a name that is there which overlap none of its objects with an
            IoU above 0.5, per name asked for.
        false_alarms: share of the absent names for which any box is above the threshold.
        mask_iou: IoU of the masks that true boxes give.
        occupancy_error: absolute error of the share of the image that detector and segmenter find for a name.
        worst_occupancy_error: the largest one.
        absent_zero: share of the absent names whose occupancy is exactly 0.
    """

    scenes: int
    found: float
    spurious: float
    false_alarms: float
    mask_iou: float
    occupancy_error: float
    worst_occupancy_error: float
    absent_zero: float


class Pair:
    """The two networks of a folder in single precision, used as the published ones are."""

    def __init__(self, folder: Path) -> None:
        processor: Any = AutoProcessor
        detector: Any = GroundingDinoForObjectDetection
        segmenter: Any = Sam2Model
        self._processor = processor.from_pretrained(folder / "grounding-dino")
        self._detector = detector.from_pretrained(folder / "grounding-dino", dtype=torch.float32).eval()
        self._segmenter = segmenter.from_pretrained(folder / "sam2", dtype=torch.float32).eval()

    @torch.no_grad()
    def boxes(self, pixels: npt.NDArray[np.uint8], name: str) -> Tensor:
        """[n, 4] corners in pixels of what is above the threshold."""
        inputs = self._processor(images=pixels, text=f"a {name}.", return_tensors="pt")
        outputs = self._detector(**inputs)
        results = self._processor.post_process_grounded_object_detection(
            outputs, threshold=THRESHOLD, target_sizes=[pixels.shape[:2]]
        )
        return Tensor(results[0]["boxes"])

    @torch.no_grad()
    def masks(self, pixels: npt.NDArray[np.uint8], boxes: Tensor) -> Tensor:
        """Bool [n, height, width] of what lies in the boxes [n, 4]."""
        height, width = pixels.shape[:2]
        if len(boxes) == 0:
            return torch.zeros(0, height, width, dtype=torch.bool)
        side = SEGMENTER_SIDE
        scale = torch.tensor([side / width, side / height] * 2)
        logits = self._segmenter(
            pixel_values=normalised(resized(pixels, (side, side)))[None],
            input_boxes=(boxes * scale)[None],
            multimask_output=False,
        ).pred_masks[0]
        return functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)[:, 0] > 0


def score(pair: Pair, count: int, seed: int) -> Scores:
    """Ask for every name of `count` held-out scenes, and for as many that are absent."""
    found, spurious, false_alarms, mask_ious, errors, zeros = [], [], [], [], [], []
    for scene, absent in held_out(count, seed):
        for name in sorted({item.name for item in scene.objects}):
            items = [item for item in scene.objects if item.name == name]
            boxes = pair.boxes(scene.pixels, name)
            overlaps, _ = box_overlaps(torch.tensor([item.box for item in items]), boxes)
            found += [bool((row > _GOOD_OVERLAP).any()) for row in overlaps]
            spurious.append(int((~(overlaps > 0.5).any(0)).sum()))
            union = pair.masks(scene.pixels, boxes).any(0).numpy()
            errors.append(abs(float(union.mean()) - scene.occupancy(name)))
        masks = pair.masks(scene.pixels, torch.tensor([item.box for item in scene.objects])).numpy()
        for item, mask in zip(scene.objects, masks, strict=True):
            mask_ious.append((item.mask & mask).sum() / (item.mask | mask).sum())
        boxes = pair.boxes(scene.pixels, absent)
        false_alarms.append(len(boxes) > 0)
        zeros.append(not pair.masks(scene.pixels, boxes).any())
    return Scores(
        scenes=count,
        found=float(np.mean(found)),
        spurious=float(np.mean(spurious)),
        false_alarms=float(np.mean(false_alarms)),
        mask_iou=float(np.mean(mask_ious)),
        occupancy_error=float(np.mean(errors)),
        worst_occupancy_error=float(max(errors)),
        absent_zero=float(np.mean(zeros)),
    )


def held_out(count: int, seed: int) -> Iterator[tuple[Scene, str]]:
    """Scenes of many sizes that no training shows, each with a name that is absent from it."""
    for index in range(count):
        dice = Dice(seed, "held out", str(index))
        scene = draw_scene(_HELD_OUT + dice.whole(0, 2**40), (dice.whole(160, 400), dice.whole(160, 400)))
        yield scene, absent_name(scene, dice.whole(0, 2**40))
