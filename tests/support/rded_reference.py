"""RDED's synthesis of one class, written plainly from its published description, with NumPy and Pillow.

Source: Sun et al., "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation
Paradigm" (CVPR 2024), and the order of operations of its public repository LINs-lab/RDED. Nothing of
fgdd_fast is used here, so that the two can be held against each other. The crop boxes are given; RDED draws
them with torchvision's RandomResizedCrop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Synthesis:
    """What RDED makes of one class.

    Attributes:
        losses: the teacher's cross-entropy on each crop, [images, crops].
        ranking: (image, crop) of the patches that stay, best first.
        mosaics: for each mosaic, (image, crop) of its cells, row by row.
        pixels: the mosaics themselves, uint8 [ipc, size, size, 3].
    """

    losses: Floats
    ranking: list[tuple[int, int]]
    mosaics: list[list[tuple[int, int]]]
    pixels: NDArray[np.uint8]

    def smallest_margin(self) -> float:
        """The least difference of two losses on which the outcome depends: how near a tie was."""
        by_image = np.sort(self.losses, axis=1)
        within = (by_image[:, 1:] - by_image[:, :1]).min(initial=np.inf)
        between = np.diff(np.sort(by_image[:, 0])).min(initial=np.inf)
        return float(min(within, between))


def synthesise(
    images: Sequence[Image.Image],
    boxes: Sequence[Sequence[tuple[int, int, int, int]]],
    label: int,
    teacher: Callable[[Floats], Floats],
    *,
    ipc: int,
    factor: int,
    size: int,
    input_size: int,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Synthesis:
    """Run RDED's synthesis on one class.

    Args:
        images: RGB images at full resolution.
        boxes: the crops of each image as (x, y, width, height); as many for every image.
        label: the class's place among the teacher's logits.
        teacher: takes normalised images, float64 [count, 3, input_size, input_size], and gives logits,
            [count, classes].
        ipc, factor, size: mosaics per class, tiles along a side, and the side of a mosaic in pixels.
        input_size: side of the teacher's input in pixels.
        mean, std: of the teacher's normalisation, for values in [0, 1].
    """
    side = size // factor
    patches = []  # [images][crops] of PIL images
    losses = np.empty((len(images), len(boxes[0])))
    for i, image in enumerate(images):
        row = []
        for j, (x, y, width, height) in enumerate(boxes[i]):
            patch = image.crop((x, y, x + width, y + height)).resize((side, side), Image.Resampling.BILINEAR)
            normalised = (np.asarray(patch, np.float64) / 255 - mean) / std
            padded = zero_pad(normalised.transpose(2, 0, 1), input_size)
            losses[i, j] = cross_entropy(teacher(padded[np.newaxis])[0], label)
            row.append(patch)
        patches.append(row)

    best = [(losses[i].min(), i, int(losses[i].argmin())) for i in range(len(images))]
    ranking = [(i, j) for _, i, j in sorted(best)][: ipc * factor * factor]

    mosaics = [[ranking[k * ipc + m] for k in range(factor * factor)] for m in range(ipc)]
    pixels = np.zeros((ipc, side * factor, side * factor, 3), np.uint8)
    for m, cells in enumerate(mosaics):
        k = 0
        for row_of_cells in range(factor):
            for column_of_cells in range(factor):
                i, j = cells[k]
                top, left = row_of_cells * side, column_of_cells * side
                pixels[m, top : top + side, left : left + side] = np.asarray(patches[i][j])
                k += 1
    return Synthesis(losses, ranking, mosaics, pixels)


def zero_pad(patch: Floats, size: int) -> Floats:
    """Centre a patch [3, side, side] in zeros [3, size, size]; an odd rest goes below and right."""
    before = (size - patch.shape[1]) // 2
    after = size - patch.shape[1] - before
    return np.pad(patch, ((0, 0), (before, after), (before, after)))


def cross_entropy(logits: Floats, label: int) -> float:
    """Cross-entropy in nats of one sample."""
    shifted = np.asarray(logits, np.float64) - np.max(logits)
    return float(np.log(np.exp(shifted).sum()) - shifted[label])
