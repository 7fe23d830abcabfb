"""Grounded SAM 2 as one network, or as two: from bytes and a prompt's features to occupancy.

Boxes are found as transformers' `post_process_grounded_object_detection` finds them, and segmented as
the published Grounded SAM 2 scripts do (repository IDEA-Research/Grounded-SAM-2): one mask a box, no
suppression of overlapping boxes. Only their union counts here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fgdd_export.graphs.torch_export import Network
from fgdd_fast.models.grounded_tensors import (
    DETECTOR_OUTPUTS,
    IMAGES,
    SEGMENTER_INPUTS,
    SEGMENTER_OUTPUTS,
    THRESHOLD,
    Specs,
    with_lengths,
)

MASK_STRIDE = 4  # pixels of the segmenter's image for each of the decoder's mask, along each side
NOTHING = -32.0  # logit of a box that does not count: no doubt in any precision


class BoxFinder(nn.Module):
    """A detector, and the best of its boxes.

    Args:
        detector: gives logits [batch, queries, tokens] and boxes [batch, queries, 4] (centre and size, as
            shares of the image).
        boxes: how many are kept, at most.
    """

    def __init__(self, detector: nn.Module, boxes: int) -> None:
        super().__init__()
        self.detector = detector
        self.boxes = boxes

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (left, top, right, bottom) [batch, boxes, 4] and scores [batch, boxes], best first.

        The last input is `threshold` float32 [batch]: only a box with a higher score counts. Score and edges
        of the others are 0.
        """
        *prompted, threshold = inputs
        logits, boxes = self.detector(*prompted)
        scores, places = logits.amax(-1).sigmoid().topk(self.boxes, dim=1)
        best = boxes.gather(1, places.unsqueeze(-1).expand(-1, -1, 4))
        centre, half = best[..., :2], best[..., 2:] / 2
        found = (scores > threshold.unsqueeze(1)).to(scores.dtype)
        corners = torch.cat([centre - half, centre + half], dim=-1)
        return corners * found.unsqueeze(-1), scores * found


class ForegroundSegmenter(nn.Module):
    """A segmenter asked for boxes, the union of its masks, and what share of the image that covers.

    Args:
        image_encoder: `images` uint8 to the embeddings that the decoder takes.
        mask_decoder: embeddings and boxes in pixels to mask logits [batch, boxes, side, side] and scores.
        image_size: pixels of each side of `images`.
    """

    def __init__(self, image_encoder: nn.Module, mask_decoder: nn.Module, image_size: int) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.mask_decoder = mask_decoder
        self.image_size = image_size

    def forward(self, images: Tensor, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Occupancy float32 [batch], at the image's resolution; and mask uint8 [batch, side, side], 0 or 255.

        Args:
            images: uint8 [batch, image_size, image_size, 3], RGB; each the whole image, squashed.
            boxes: float32 [batch, boxes, 4]; left, top, right, bottom as shares of the image.
            scores: float32 [batch, boxes]; 0 for a box that does not count.
        """
        logits, _ = self.mask_decoder(*self.image_encoder(images), boxes * self.image_size)
        found = (scores > 0)[:, :, None, None]
        foreground = torch.where(found, logits, NOTHING).amax(1, keepdim=True)
        # Outlines run between the decoder's coarse cells: enlarged as the published code enlarges logits.
        fine = functional.interpolate(foreground, scale_factor=MASK_STRIDE, mode="bilinear")
        occupancy = (fine > 0).to(logits.dtype).mean(dim=(1, 2, 3))
        # TensorRT computes nothing in uint8, and takes it only as what a conversion gives at the very end.
        mask = (foreground[:, 0] > 0).to(logits.dtype) * 255
        return occupancy, mask.to(torch.uint8)


class GroundedForeground(nn.Module):
    """Both in one network."""

    def __init__(self, finder: BoxFinder, segmenter: ForegroundSegmenter) -> None:
        super().__init__()
        self.finder = finder
        self.segmenter = segmenter

    def forward(self, images: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Occupancy, boxes, scores and mask; see `BoxFinder` and `ForegroundSegmenter`."""
        boxes, scores = self.finder(*inputs)
        occupancy, mask = self.segmenter(images, boxes, scores)
        return occupancy, boxes, scores, mask


def finder_network(finder: BoxFinder, detector_inputs: Specs) -> Network:
    """Declare the first half of the split form."""
    outputs = with_lengths(DETECTOR_OUTPUTS, {"boxes": finder.boxes})
    return Network("box_finder", finder.eval(), (*detector_inputs, THRESHOLD), outputs)


def segmenter_network(segmenter: ForegroundSegmenter, boxes: int) -> Network:
    """Declare the second half of the split form."""
    inputs = with_lengths(SEGMENTER_INPUTS, {"side": segmenter.image_size, "boxes": boxes})
    return Network("foreground_segmenter", segmenter.eval(), inputs, _covered(segmenter))


def joint_network(finder: BoxFinder, segmenter: ForegroundSegmenter, detector_inputs: Specs) -> Network:
    """Declare the whole as one network."""
    (images,) = with_lengths((IMAGES,), {"side": segmenter.image_size})
    occupancy, mask = _covered(segmenter)
    return Network(
        "grounded_foreground",
        GroundedForeground(finder, segmenter).eval(),
        (images, *detector_inputs, THRESHOLD),
        (occupancy, *with_lengths(DETECTOR_OUTPUTS, {"boxes": finder.boxes}), mask),
    )


def _covered(segmenter: ForegroundSegmenter) -> Specs:
    side = segmenter.image_size // MASK_STRIDE
    return with_lengths(SEGMENTER_OUTPUTS, {"mask rows": side, "mask columns": side})
