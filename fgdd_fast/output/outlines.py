"""The border of a foreground as a few numbers, so that it can be drawn without its mask."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

LETTERS = frozenset("0123456789- mz")
"""All that a path is made of."""
_SIDE = 1000  # of the path's image
_LEAST_AREA = 0.001  # of the image; smaller spots and holes are left out
_TOLERANCE = 0.005  # of the mask's longer side, by which the outline may miss the border


def outline(mask: npt.NDArray[np.uint8]) -> str:
    """Return the border of a mask as the path of an SVG image whose width and height are 1000 each.

    Args:
        mask: uint8 [height, width]; above 127 is foreground.

    Returns:
        Closed polygons, holes among them, each point relative to the one before, such as
        `m100 100 800 0-400 700z`; empty where nothing is large enough to be seen.
    """
    height, width = mask.shape
    inside = cv2.copyMakeBorder((mask > 127).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts, start = [], np.zeros(2, np.int64)
    for contour in sorted(contours, key=cv2.contourArea, reverse=True):
        if cv2.contourArea(contour) < _LEAST_AREA * height * width:
            break
        points = cv2.approxPolyDP(contour, _TOLERANCE * max(height, width), True)[:, 0]
        if len(points) > 2:
            placed = np.rint(np.clip((points - 0.5) / (width, height), 0, 1) * _SIDE).astype(np.int64)
            steps = np.diff(placed, axis=0, prepend=start[None])
            parts.append("m" + " ".join(map(str, steps.flat)).replace(" -", "-") + "z")
            start = placed[0]
    return "".join(parts)
