"""What the fair reference's workers make of an image for Grounded SAM 2: bytes, all in one row.

One row is one copy to a GPU. The canvas and the square are the product's, made by its own functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgdd_bench.references.pictures import resize_pixels
from fgdd_engines.base import Array
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import Pixels, ResizeMethod
from fgdd_fast.models.grounded_sam2 import bring_to_canvas
from fgdd_fast.models.prompts import Prompting


@dataclass(frozen=True)
class Canvases:
    """Brings an image to the detector's canvas and to the segmenter's square.

    Attributes:
        canvas: height and width of the canvas.
        side: of the square.
        prompting: how an image comes to the canvas.
        resize: how images are resized.
    """

    canvas: tuple[int, int]
    side: int
    prompting: Prompting
    resize: ResizeMethod

    @property
    def length(self) -> int:
        """Bytes of a row."""
        height, width = self.canvas
        return (height * width + self.side**2) * 3 + 8

    def __call__(self, _: SourceImage, pixels: Pixels) -> Array:
        """From uint8 [height, width, 3] to a row of bytes, uint8 [n]."""
        canvas, valid = bring_to_canvas(pixels, self.canvas, self.prompting, self.resize)
        square = resize_pixels(pixels, (self.side, self.side), self.resize)
        return np.concatenate([canvas.ravel(), square.ravel(), valid.view(np.uint8)])

    def unpack(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a batch of rows, uint8 [images, n], was made of.

        Returns:
            Canvases uint8 [images, height, width, 3]; squares uint8 [images, side, side, 3]; and the rows and
            columns of the canvas that each image fills, int32 [images, 2].
        """
        height, width = self.canvas
        canvases = rows[:, : height * width * 3]
        squares = rows[:, height * width * 3 : -8]
        valid = rows[:, -8:].contiguous().view(torch.int32)
        return canvases.view(-1, height, width, 3), squares.view(-1, self.side, self.side, 3), valid
