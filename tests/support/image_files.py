"""Pictures and image files for tests, written by Pillow, which the package itself does not use."""

from __future__ import annotations

import io
import struct
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


MODES = {
    "JPEG": ["L", "RGB", "CMYK"],
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "GIF": ["1", "L", "P", "RGB"],
    "WEBP": ["L", "RGB", "RGBA"],
    "BMP": ["1", "L", "P", "RGB"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"],
    "PPM": ["1", "L", "RGB"],
}
COMBINATIONS = [(name, mode) for name, modes in MODES.items() for mode in modes]


def in_mode(mode: str, width: int = 48, height: int = 32) -> Image.Image:
    """The picture in one of Pillow's modes."""
    if mode == "I;16":
        return Image.fromarray(picture(width, height, 1)[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(picture(width, height, 4 if mode in ("LA", "RGBA") else 3)).convert(mode)


def bmp_with_alpha(width: int, height: int, pixels: bytes, mask: int = 0xFF000000) -> bytes:
    """A bitmap with a BITMAPV4HEADER, stored from the top down; its pixels are BGRA."""
    header = struct.pack("<IiiHHIIiiII", 108, width, -height, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, mask, b"BGRs") + b"\0" * 48
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + header + pixels


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
