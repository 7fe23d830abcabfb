"""Images for measuring parity: drawn with integer arithmetic, so the same on every machine and NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def drawn_images(height: int, width: int) -> NDArray[np.uint8]:
    """Draw objects on plain, graded and speckled backgrounds.

    Returns:
        uint8 [4, height, width, 3], RGB: a red disc on grey, a bright bar on a gradient, a blue ring on
        speckle, and a dim green disc in a corner of a dark gradient.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    u, v = x * 256 // width, y * 256 // height  # both 0 to 255 at any size
    speckle = (u * 73 + v * 151 + u * v * 11) % 61
    grey = np.stack([128 + 0 * u] * 3, axis=-1)
    gradient = np.stack([u, v, (u + v) // 2], axis=-1)
    from_centre = (u - 128) ** 2 + (v - 128) ** 2
    from_corner = (u - 60) ** 2 + (v - 70) ** 2
    scenes = [
        (from_centre < 70**2, (200, 30, 40), grey),
        ((abs(u - 150) < 40) & (abs(v - 120) < 90), (250, 240, 210), gradient),
        ((from_centre < 90**2) & (from_centre > 45**2), (20, 40, 220), 90 + grey // 4 + speckle[..., None]),
        (from_corner < 45**2, (40, 120, 50), gradient // 4 + speckle[..., None] // 4),
    ]
    pictures = [np.where(inside[..., None], colour, background) for inside, colour, background in scenes]
    return np.stack(pictures).astype(np.uint8)
