"""Grounded SAM 2 in PyTorch as it is published: transformers' own networks, nothing changed, no graph.

What the exported graphs are held to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)

from fgdd_export.grounding_dino.network import GroundingDino
from fgdd_export.sam2.network import Sam2
from fgdd_fast.images.resize import resize
from fgdd_fast.models.foreground import Pixels

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """Every box that a detector proposes for one image.

    Attributes:
        scores: float32 [queries], from 0 to 1.
        corners: float32 [queries, 4]; left, top, right, bottom as shares of the image.
    """

    scores: Floats
    corners: Floats

    def above(self, threshold: float, limit: int) -> Detections:
        """The boxes that score higher than a threshold, best first, at most `limit` of them."""
        order = np.argsort(-self.scores, kind="stable")[:limit]
        kept = order[self.scores[order] > threshold]
        return Detections(self.scores[kept], self.corners[kept])

    def rows(self) -> Floats:
        """Corners and score of each box, [queries, 5]."""
        return np.column_stack([self.corners, self.scores])


class DetectorReference:
    """Grounding DINO, called one image at a time."""

    def __init__(self, detector: GroundingDino) -> None:
        self.detector = detector
        self._tokenizer = Tokenizer.from_str(detector.tokenizer)
        self._tokenizer.no_padding()
        self._processor = GroundingDinoImageProcessorPil(
            size={"shortest_edge": detector.shortest_edge, "longest_edge": detector.longest_edge},
            image_mean=list(detector.image_mean),
            image_std=list(detector.image_std),
        )

    def detect(self, pixels: Pixels, prompt: str) -> Detections:
        """Find boxes in an image as transformers does: its own resizing, nothing padded."""
        prepared: Any = self._processor(images=pixels, return_tensors="pt")
        return self._detect(prepared["pixel_values"], prepared["pixel_mask"], prompt)

    def detect_on_canvas(self, canvas: Pixels, valid: NDArray[np.int32], prompt: str) -> Detections:
        """Find boxes in an image that fills some rows and columns at the top left of a canvas."""
        rows, columns = (int(length) for length in valid)
        mask = torch.zeros(1, *canvas.shape[:2], dtype=torch.int64)
        mask[:, :rows, :columns] = 1
        planes = _normalised(canvas, self.detector.image_mean, self.detector.image_std)
        return self._detect(planes * mask[:, None], mask, prompt)

    def _detect(self, planes: Tensor, mask: Tensor, prompt: str) -> Detections:
        tokens = self._tokenizer.encode(prompt)
        ids = torch.tensor([tokens.ids])
        with torch.inference_mode():
            found = self.detector.model(
                pixel_values=planes,
                pixel_mask=mask,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                token_type_ids=torch.zeros_like(ids),
            )
        scores = found.logits[0].sigmoid().amax(-1)
        return Detections(scores.numpy(), box_corners(found.pred_boxes[0].numpy()))


class SegmenterReference:
    """SAM 2, called one image at a time."""

    def __init__(self, segmenter: Sam2) -> None:
        self.segmenter = segmenter

    def mask_logits(self, pixels: Pixels, corners: Floats) -> Tensor:
        """Segment boxes of an image.

        Args:
            pixels: uint8 [height, width, 3], RGB; squashed to the network's square.
            corners: float32 [boxes, 4], as shares of the image.

        Returns:
            float32 [boxes, side, side] at the decoder's own resolution; above 0 is the object.
        """
        side = self.segmenter.image_size
        if not len(corners):
            return torch.zeros(0, side // 4, side // 4)
        square = resize(pixels, (side, side), "pil")
        planes = _normalised(square, self.segmenter.image_mean, self.segmenter.image_std)
        with torch.inference_mode():
            found = self.segmenter.model(
                pixel_values=planes,
                input_boxes=torch.from_numpy(corners)[None] * side,
                multimask_output=False,
            )
        return found.pred_masks[0, :, 0]  # type: ignore[no-any-return]


def union(logits: Tensor, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Where any of the boxes' objects is.

    Args:
        logits: see `SegmenterReference.mask_logits`.
        size: height and width to which the logits are enlarged first, as transformers' `post_process_masks`
            does; their own resolution when None.

    Returns:
        bool [height, width]; nothing where there is no box.
    """
    if size is not None and len(logits):
        logits = functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    covered: NDArray[np.bool_] = (logits > 0).any(0).numpy()
    return covered


def box_corners(boxes: Floats) -> Floats:
    """Centre x, centre y, width, height [n, 4] to left, top, right, bottom."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _normalised(pixels: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [height, width, 3] to float32 [1, 3, height, width]."""
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    return (planes - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
