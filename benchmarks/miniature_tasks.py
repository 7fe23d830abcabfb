"""What the miniatures are trained on: batches of drawn scenes, and the losses of finding and of segmenting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional
from transformers import BertTokenizerFast
from transformers.image_transforms import center_to_corners_format, corners_to_center_format
from transformers.loss.loss_for_object_detection import generalized_box_iou

from fgdd_fast.benchmarks.miniature_networks import (
    IMAGE_MEAN,
    IMAGE_STD,
    LONGEST_EDGE,
    SEGMENTER_SIDE,
    SHORTEST_EDGE,
)
from fgdd_fast.drawing.scenes import Scene, absent_name, draw_scene
from fgdd_fast.drawing.tools import Dice

Pixels: TypeAlias = npt.NDArray[np.uint8]

_ENCODER_MATCHES = 6  # proposals that are taught to each object; the decoder has one query for each
_FOCAL_ALPHA = 0.4
_FOCAL_GAMMA = 2.0
_BOX_WEIGHT, _OVERLAP_WEIGHT = 5.0, 2.0


@dataclass(frozen=True)
class DetectionBatch:
    """Images with prompts, and what a detector should find.

    Attributes:
        inputs: of the network: pixel_values [N, 3, H, W] padded to the right and below, pixel_mask,
            input_ids [N, T], attention_mask, token_type_ids.
        boxes: of each image, [objects, 4] as (centre x, centre y, width, height), shares of the image.
        tokens: of each image, [objects, T]: 1.0 where a token belongs to the object's phrase.
    """

    inputs: dict[str, Tensor]
    boxes: list[Tensor]
    tokens: list[Tensor]


@dataclass(frozen=True)
class SegmentationBatch:
    """Images with boxes as prompts, and the masks that they mean.

    Attributes:
        inputs: of the network: pixel_values [N, 3, S, S], input_boxes [N, P, 4] in pixels of the square.
        masks: [N, P, S / 4, S / 4], the share of each cell that the object covers.
    """

    inputs: dict[str, Tensor]
    masks: Tensor


def detector_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) that the detector's image processor gives an image: shape kept, sides limited."""
    scale = min(SHORTEST_EDGE / min(height, width), LONGEST_EDGE / max(height, width))
    return round(height * scale), round(width * scale)


def normalised(pixels: Pixels) -> Tensor:
    """Float [3, height, width] of uint8 RGB, by ImageNet's mean and standard deviation."""
    values = (pixels.astype(np.float32) / 255 - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def detection_batch(
    dice: Dice, tokenizer: BertTokenizerFast, count: int, objects: int | None = None
) -> DetectionBatch:
    """Draw a batch: images of one orientation, prompts of one or two names that are there or not."""
    upright = dice.chance(0.5)
    scenes, images, phrases = [], [], []
    for _ in range(count):
        scene = _draw(dice, upright, objects)
        size = detector_size(*scene.pixels.shape[:2])
        scenes.append(scene)
        images.append(normalised(_resized(scene.pixels, size)))
        phrases.append(_choose_phrases(dice, scene))
    text = tokenizer([". ".join(names) + "." for names in phrases], return_tensors="pt", padding=True)
    stop = int(tokenizer.convert_tokens_to_ids("."))
    boxes, tokens = [], []
    for scene, names, ids in zip(scenes, phrases, text["input_ids"], strict=True):
        spans = _phrase_tokens(ids, len(names), stop)
        wanted = [item for item in scene.objects if item.name in names]
        height, width = scene.pixels.shape[:2]
        corners = torch.tensor([item.box for item in wanted]).reshape(-1, 4)
        boxes.append(corners_to_center_format(corners) / torch.tensor([width, height, width, height]))
        tokens.append(spans[[names.index(item.name) for item in wanted]])
    pixels, mask = _padded(images)
    return DetectionBatch({"pixel_values": pixels, "pixel_mask": mask, **text}, boxes, tokens)


def detection_loss(outputs: Any, batch: DetectionBatch, boxes_by_layer: Tensor, logits_by_layer: Tensor) -> Tensor:
    """Focal loss of the tokens, L1 and generalised IoU of the boxes, over the encoder's proposals and every layer.

    Args:
        outputs: of `GroundingDinoForObjectDetection`.
        batch: what it was given.
        boxes_by_layer: [layers, N, queries, 4].
        logits_by_layer: [layers, N, queries, T].
    """
    valid = batch.inputs["attention_mask"].bool()
    length = valid.shape[1]
    proposals = outputs.enc_outputs_coord_logits
    usable = proposals.isfinite().all(-1)
    proposed = torch.where(usable[..., None], proposals, 0.0).sigmoid()
    loss = _set_loss(
        outputs.enc_outputs_class[..., :length], proposed, batch, valid, matches=_ENCODER_MATCHES, usable=usable
    )
    for logits, boxes in zip(logits_by_layer, boxes_by_layer, strict=True):
        loss = loss + _set_loss(logits[..., :length], boxes, batch, valid)
    return loss


def segmentation_batch(dice: Dice, count: int, prompts: int) -> SegmentationBatch:
    """Draw a batch: images squashed to the square, boxes a few per cent off."""
    side = SEGMENTER_SIDE
    images, boxes, masks = [], [], []
    for _ in range(count):
        scene = _draw(dice, dice.chance(0.5), None)
        height, width = scene.pixels.shape[:2]
        images.append(normalised(_resized(scene.pixels, (side, side))))
        for _ in range(prompts):
            item = dice.choose(scene.objects)
            box = np.array(item.box) * (side / width, side / height) * 2
            boxes.append(box)
            masks.append(_resized(item.mask.astype(np.uint8) * 255, (side // 4, side // 4)))
    return SegmentationBatch(
        {"pixel_values": torch.stack(images), "input_boxes": torch.tensor(np.array(boxes), dtype=torch.float32)},
        torch.from_numpy(np.array(masks, np.float32) / 255).reshape(count, prompts, side // 4, side // 4),
    )
