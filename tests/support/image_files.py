"""Pictures and image files for tests, written by Pillow, which the package itself does not use."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

CLOTHING = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing"

needs_clothing = pytest.mark.skipif(
    not CLOTHING.is_dir(), reason="the clothing photographs are not beside the repository"
)


def clothing_photographs(count: int) -> list[Path]:
    """Photographs spread evenly over the classes."""
    files = sorted((CLOTHING / "train").glob("*/*.jpg"))
    return files[:: max(1, len(files) // count)][:count]


def picture(width: int = 48, height: int = 32, channels: int = 3) -> NDArray[np.uint8]:
    """A smooth picture without any symmetry, uint8 [height, width, channels]."""
    y, x = np.mgrid[:height, :width]
    planes = (
        x * 255 / width,
        y * 255 / height,
        (x + 2 * y) * 255 / (width + 2 * height),
        255 - x * 200 / width,
    )
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def encode(image: Image.Image | NDArray[np.uint8], file_format: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    """An Exif block that holds an orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block
