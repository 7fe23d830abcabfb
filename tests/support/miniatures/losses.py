"""The losses that the miniatures are trained with: of a set of named boxes, and of masks."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional
from transformers import GroundingDinoForObjectDetection, Sam2Model

from fgdd_fast.synthetic.scenes import COLOURS, SHAPES
from miniatures.batches import DetectionBatch

_ENCODER_MATCHES = 6  # proposals that are taught to each object; the decoder has one query for each
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.4, 2.0
_GROUND_WEIGHT, _TOKEN_WEIGHT, _BOX_WEIGHT, _OVERLAP_WEIGHT = 15.0, 12.0, 5.0, 2.0


class TaughtDetector(nn.Module):
    """A detector with a head for training only, which says what each of the encoder's image tokens lies on.

    Published detectors begin with a backbone that knows images. This one does not, and prompts alone teach it
    shapes too slowly.
    """

    def __init__(self, detector: GroundingDinoForObjectDetection) -> None:
        super().__init__()
        self.detector = detector
        self._head = nn.Linear(detector.config.d_model, 1 + len(COLOURS) + 1 + len(SHAPES))

    def ground_loss(self, states: Tensor, ground: Tensor, pixel_mask: Tensor) -> Tensor:
        """Return cross entropies of colour and shape under each token [N, tokens, d] that is not padding."""
        levels = []
        for stride in (8, 16, 32, 64):
            seen = torch.where(pixel_mask > 0, ground, -1)[:, None].float()
            size = [-(-side // stride) for side in ground.shape[1:]]
            levels.append(functional.interpolate(seen, size, mode="nearest-exact").flatten(1))
        under = torch.cat(levels, 1).long()
        logits, name = self._head(states)[under >= 0], under[under >= 0]
        colour = torch.where(name > 0, (name - 1) // len(SHAPES) + 1, 0)
        shape = torch.where(name > 0, (name - 1) % len(SHAPES) + 1, 0)
        of_colour, of_shape = logits.split([1 + len(COLOURS), 1 + len(SHAPES)], dim=-1)
        return functional.cross_entropy(of_colour, colour) + functional.cross_entropy(of_shape, shape)


def detection_loss(taught: TaughtDetector, batch: DetectionBatch) -> Tensor:
    """Return focal loss of the tokens, L1 and generalised IoU of the boxes.

    Over the encoder's proposals, which the class's own loss leaves untaught, and the decoder's layers.
    """
    detector = taught.detector
    outputs = detector(**batch.inputs)
    valid = batch.inputs["attention_mask"].bool()
    proposals = outputs.enc_outputs_coord_logits
    usable = proposals.isfinite().all(-1)
    proposed = torch.where(usable[..., None], proposals, 0.0).sigmoid()
    loss = _set_loss(
        outputs.enc_outputs_class, proposed, batch, valid, matches=_ENCODER_MATCHES, usable=usable
    )
    states, mask = outputs.encoder_last_hidden_state_vision, batch.inputs["pixel_mask"]
    loss = loss + _GROUND_WEIGHT * taught.ground_loss(states, batch.ground, mask)
    references = [outputs.init_reference_points, *outputs.intermediate_reference_points.unbind(1)]
    for layer, states in enumerate(outputs.intermediate_hidden_states.unbind(1)):
        reference = torch.special.logit(references[layer], eps=1e-5)
        boxes = (detector.bbox_embed[layer](states) + reference).sigmoid()
        logits = detector.class_embed[layer](states, outputs.encoder_last_hidden_state_text, valid)
        loss = loss + _set_loss(logits, boxes, batch, valid)
    return loss


def segmentation_loss(
    segmenter: Sam2Model, inputs: dict[str, Tensor], masks: Tensor, *, several: bool
) -> Tensor:
    """Return cross entropy and dice of the masks, and how wrong their predicted IoU is.

    In place of the single mask `several` teaches the three of an ambiguous prompt, each of them.
    """
    outputs = segmenter(**inputs, multimask_output=several)
    logits = outputs.pred_masks
    truth = masks[:, :, None].expand_as(logits)
    probability = logits.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, truth)
    both, either = (probability * truth).sum((-1, -2)), (probability + truth).sum((-1, -2))
    dice = (1 - (2 * both + 1) / (either + 1)).mean()
    with torch.no_grad():
        found, wanted = logits > 0, truth >= 0.5
        iou = (found & wanted).sum((-1, -2)) / (found | wanted).sum((-1, -2)).clamp(min=1)
    score = functional.mse_loss(outputs.iou_scores, iou)
    object_score = outputs.object_score_logits
    there = functional.binary_cross_entropy_with_logits(object_score, torch.ones_like(object_score))
    loss: Tensor = 5 * cross_entropy + dice + score + 0.1 * there
    return loss


def box_overlaps(ones: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU (https://giou.stanford.edu), [n, m], of corners [n, 4] and [m, 4]."""
    low, high = (
        torch.maximum(ones[:, None, :2], others[:, :2]),
        torch.minimum(ones[:, None, 2:], others[:, 2:]),
    )
    both = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (ones, others)]
    union = areas[0][:, None] + areas[1] - both
    low, high = (
        torch.minimum(ones[:, None, :2], others[:, :2]),
        torch.maximum(ones[:, None, 2:], others[:, 2:]),
    )
    around = (high - low).prod(-1)
    return both / union, both / union - (around - union) / around


def _set_loss(
    logits: Tensor,
    boxes: Tensor,
    batch: DetectionBatch,
    valid: Tensor,
    *,
    matches: int = 1,
    usable: Tensor | None = None,
) -> Tensor:
    """Return the loss of predictions as a set: objects match the cheapest; all others should be silent.

    Args:
        logits, boxes: [N, Q, T or more]; [N, Q, 4] as in the batch.
        batch, valid: the truth; [N, T] tokens that are not padding.
        matches, usable: predictions that are matched with each object; [N, Q] those that may be.
    """
    logits = logits[..., : valid.shape[1]].masked_fill(~valid[:, None], 0.0)
    truth = torch.zeros_like(logits)
    found, wanted = [], []
    for row, (true_boxes, tokens) in enumerate(zip(batch.boxes, batch.tokens, strict=True)):
        if len(true_boxes) == 0:
            continue
        cost = _matching_cost(logits[row], boxes[row], true_boxes, tokens)
        if usable is not None:
            cost[~usable[row]] = 1e4
        queries, columns = map(torch.from_numpy, linear_sum_assignment(np.tile(cost.numpy(), matches)))
        objects = columns % len(true_boxes)
        truth[row, queries] = tokens[objects]
        found.append(boxes[row, queries])
        wanted.append(true_boxes[objects])
    probability = logits.sigmoid()
    wrong = torch.where(truth > 0, 1 - probability, probability)
    weight = torch.where(truth > 0, _FOCAL_ALPHA, 1 - _FOCAL_ALPHA) * wrong**_FOCAL_GAMMA * valid[:, None]
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    loss = (weight * entropy).sum() / truth.sum().clamp(min=1) * _TOKEN_WEIGHT
    if found:
        ours, theirs = torch.cat(found), torch.cat(wanted)
        overlap = box_overlaps(_corners(ours), _corners(theirs))[1].diag()
        loss = loss + _BOX_WEIGHT * (ours - theirs).abs().sum(1).mean()
        loss = loss + _OVERLAP_WEIGHT * (1 - overlap).mean()
    return loss


@torch.no_grad()
def _matching_cost(logits: Tensor, boxes: Tensor, true_boxes: Tensor, tokens: Tensor) -> Tensor:
    """Return [Q, objects], as in Grounding DINO: how little tokens fire, and how far boxes are off."""
    probability = logits.sigmoid().clamp(1e-6, 1 - 1e-6)
    gain = -((1 - probability) ** _FOCAL_GAMMA) * probability.log()
    gain = gain + probability**_FOCAL_GAMMA * (1 - probability).log()
    phrase = gain @ (tokens / tokens.sum(1, keepdim=True)).T
    overlap = box_overlaps(_corners(boxes), _corners(true_boxes))[1]
    cost: Tensor = phrase + _BOX_WEIGHT * torch.cdist(boxes, true_boxes, p=1) - _OVERLAP_WEIGHT * overlap
    return cost


def _corners(boxes: Tensor) -> Tensor:
    """Return (x0, y0, x1, y1) of boxes given as (centre x, centre y, width, height), [n, 4]."""
    centres, sides = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centres - sides / 2, centres + sides / 2], 1)
