"""What the miniatures learn from: batches of drawn scenes, with what should be found and segmented there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import BertTokenizer

from fgdd_fast.synthetic.scenes import NAMES, Scene, absent_name, draw_scene
from fgdd_fast.synthetic.tools import Dice
from miniatures.networks import IMAGE_MEAN, IMAGE_STD, LONGEST_EDGE, SEGMENTER_SIDE, SHORTEST_EDGE

Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DetectionBatch:
    """Images with prompts, and what a detector should find.

    Attributes:
        inputs: of the network; images [N, 3, H, W] are padded to the right and below.
        boxes: of each image, [objects, 4] as (centre x, centre y, width, height), shares of the image.
        tokens: of each image, [objects, T]: 1.0 where a token belongs to the object's phrase.
        ground: [N, H, W] what each pixel shows, asked for or not: 0 nothing, or 1 + an index of `NAMES`.
    """

    inputs: dict[str, Tensor]
    boxes: list[Tensor]
    tokens: list[Tensor]
    ground: Tensor


def normalised(pixels: Pixels) -> Tensor:
    """Return uint8 RGB as float [3, height, width], by ImageNet's mean and standard deviation."""
    mean, deviation = np.asarray(IMAGE_MEAN, np.float32), np.asarray(IMAGE_STD, np.float32)
    values = (pixels.astype(np.float32) / 255 - mean) / deviation
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return uint8 pixels in another (height, width)."""
    smaller = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=interpolation), np.uint8)


def detection_batch(dice: Dice, tokenizer: BertTokenizer, count: int) -> DetectionBatch:
    """Draw a batch: images of one orientation, prompts of one to four names that are there or not."""
    upright = dice.chance(0.5)
    scenes, images, grounds, phrases = [], [], [], []
    for _ in range(count):
        scene = _draw(dice, upright)
        height, width = scene.pixels.shape[:2]
        scale = min(SHORTEST_EDGE / min(height, width), LONGEST_EDGE / max(height, width))
        size = round(height * scale), round(width * scale)
        scenes.append(scene)
        images.append(normalised(resized(scene.pixels, size)))
        grounds.append(_ground(scene, size))
        phrases.append(_choose_phrases(dice, scene))
    article = "a " if dice.chance(0.7) else ""
    prompts = [" ".join(f"{article}{name}." for name in names) for names in phrases]
    text = tokenizer(prompts, return_tensors="pt", padding=True)
    stop = tokenizer.get_vocab()["."]
    boxes, tokens = [], []
    for scene, names, ids in zip(scenes, phrases, text["input_ids"], strict=True):
        spans = _phrase_tokens(ids, len(names), stop)
        wanted = [item for item in scene.objects if item.name in names]
        height, width = scene.pixels.shape[:2]
        corners = torch.tensor([item.box for item in wanted]).reshape(-1, 4)
        corners = corners / torch.tensor([width, height, width, height])
        boxes.append(torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1))
        tokens.append(spans[[names.index(item.name) for item in wanted]])
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    pixels = torch.zeros(count, 3, height, width)
    mask, ground = torch.zeros(2, count, height, width, dtype=torch.long)
    for row, (image, below) in enumerate(zip(images, grounds, strict=True)):
        window = (row, ..., slice(image.shape[1]), slice(image.shape[2]))
        pixels[window], mask[window], ground[window] = image, 1, below
    return DetectionBatch({"pixel_values": pixels, "pixel_mask": mask, **text}, boxes, tokens, ground)


def segmentation_batch(dice: Dice, count: int, prompts: int) -> tuple[dict[str, Tensor], Tensor]:
    """Draw a batch: images squashed to the square, boxes that are a few per cent off.

    Returns:
        (the network's inputs, masks [N, prompts, S / 4, S / 4]: the share of each cell that is covered).
    """
    side, cells = SEGMENTER_SIDE, SEGMENTER_SIDE // 4
    images, boxes, masks = [], [], []
    for _ in range(count):
        scene = _draw(dice, dice.chance(0.5))
        height, width = scene.pixels.shape[:2]
        images.append(normalised(resized(scene.pixels, (side, side))))
        for _ in range(prompts):
            item = dice.choose(scene.objects)
            left, top, right, bottom = item.box
            slack = [dice.number(-0.06, 0.06) * extent for extent in (right - left, bottom - top) * 2]
            box = np.clip(np.add(item.box, slack), 0, (width, height, width, height))
            boxes.append(box * np.tile((side / width, side / height), 2))
            mask = item.mask.astype(np.float32)
            masks.append(cv2.resize(mask, (cells, cells), interpolation=cv2.INTER_AREA))
    input_boxes = torch.tensor(np.array(boxes, np.float32)).reshape(count, prompts, 4)
    inputs = {"pixel_values": torch.stack(images), "input_boxes": input_boxes}
    return inputs, torch.from_numpy(np.array(masks)).reshape(count, prompts, cells, cells)


def _draw(dice: Dice, upright: bool) -> Scene:
    """Draw a scene of any shape up to 1 : 2, at 1 to 2 times the detector's resolution."""
    short = round(SHORTEST_EDGE * dice.choose((1.0, 1.0, dice.number(1, 2))))
    long = round(short * dice.number(1, 2))
    return draw_scene(dice.whole(0, 2**40), (long, short) if upright else (short, long))


def _ground(scene: Scene, size: tuple[int, int]) -> Tensor:
    ground = np.zeros(scene.pixels.shape[:2], np.uint8)
    for item in scene.objects:
        ground[item.mask] = 1 + NAMES.index(item.name)
    return torch.from_numpy(cv2.resize(ground, size[::-1], interpolation=cv2.INTER_NEAREST)).long()


def _choose_phrases(dice: Dice, scene: Scene) -> list[str]:
    """Draw one name in half of the cases, or up to four: 55 of 100 of the scene, and else absent.

    An absent one is in most cases an object's colour with another shape: shapes are far harder to learn.
    """
    names: list[str] = []
    there = {item.name for item in scene.objects}
    colours = {name.split(maxsplit=1)[0] for name in there}
    near = [name for name in NAMES if name not in there and name.split(maxsplit=1)[0] in colours]
    for _ in range(1 if dice.chance(0.5) else dice.whole(2, 4)):
        if dice.chance(0.55):
            name = dice.choose(scene.objects).name
        elif near and dice.chance(0.6):
            name = dice.choose(near)
        else:
            name = absent_name(scene, dice.whole(0, 2**40))
        names += [name] if name not in names else []
    return names


def _phrase_tokens(ids: Tensor, phrases: int, stop: int) -> Tensor:
    """Return [phrases, T]: 1.0 where a token belongs to the phrase, each of which `stop` ends."""
    ends = (ids == stop).nonzero()[:, 0].tolist()
    tokens = torch.zeros(phrases, len(ids))
    for row, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        tokens[row, begin + 1 : end] = 1
    return tokens
