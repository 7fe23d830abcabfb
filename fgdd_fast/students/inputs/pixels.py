"""Pixels as students take them."""

from __future__ import annotations

import torch
from torch import Tensor

from fgdd_fast.images.resize import Pixels

# ImageNet's, of values in [0, 1].
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def normalised(images: Pixels, device: torch.device) -> Tensor:
    """Images uint8 [n, height, width, 3] as students take them, float32 [n, 3, height, width]."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    mean, deviation = (
        torch.tensor(values, device=device).mul_(255).view(1, 3, 1, 1) for values in (MEAN, DEVIATION)
    )
    return (pixels - mean) / deviation
