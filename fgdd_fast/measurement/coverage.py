"""How much of an image's foreground each crop of it keeps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_fast.images.crops import Box

_LIMIT = 127  # of a mask's 0 to 255, above which a pixel is foreground


def kept_shares(mask: NDArray[np.uint8], boxes: Sequence[Box], width: int, height: int) -> list[float]:
    """The share of the foreground that lies within each box.

    Args:
        mask: uint8 [rows, columns], 0 to 255, of the whole image at any resolution.
        boxes: in pixels of the image; their edges are rounded to pixels of the mask.
        width, height: of the image in pixels.

    Returns:
        A share in [0, 1] for each box; 1 where nothing is foreground, as then nothing is lost.
    """
    rows, columns = mask.shape
    summed = cv2.integral(cv2.threshold(mask, _LIMIT, 1, cv2.THRESH_BINARY)[1])
    total = summed.item(rows, columns)

    def kept(box: Box) -> float:
        left, right = (round(x * columns / width) for x in (box.x, box.x + box.width))
        top, bottom = (round(y * rows / height) for y in (box.y, box.y + box.height))
        inside = (
            summed.item(bottom, right)
            - summed.item(top, right)
            - summed.item(bottom, left)
            + summed.item(top, left)
        )
        return float(inside / total)

    return [kept(box) if total else 1.0 for box in boxes]
