"""How torchvision documents its random crops, and how far two samples are from one distribution."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def reference_crop(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    dice: random.Random,
) -> tuple[int, int, int, int]:
    """Return x, y, width and height as RandomResizedCrop.get_params draws them."""
    for _ in range(10):
        area = width * height * dice.uniform(*scale)
        aspect = math.exp(dice.uniform(math.log(ratio[0]), math.log(ratio[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top = dice.randint(0, height - high)
            return dice.randint(0, width - wide), top, wide, high
    wide, high = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    return (width - wide) // 2, (height - high) // 2, wide, high


def assert_alike(
    one: Sequence[float] | NDArray[np.generic], other: Sequence[float] | NDArray[np.generic]
) -> None:
    """Compare two samples of one size by Kolmogorov and Smirnov's distance: alike with p > 0.001."""
    points = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (one, other)]
    assert np.abs(shares[0] - shares[1]).max() < 1.95 * math.sqrt(2 / len(one))
