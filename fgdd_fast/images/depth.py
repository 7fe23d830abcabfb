"""Pictures of 10, 12 or 14 bits that are stored in 16, as cameras and scanners for science write them.

The upper 8 of their 16 bits are nearly all zero, so that they look black. `scale` reads them by the bits that
they use; images of 8 bits stay as they are.
"""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

from fgdd_fast.images.decode import (
    MAX_PIXELS,
    DecodedImage,
    decode_image,
    read_file,
    read_image,
    read_pixels,
    upright,
)
from fgdd_fast.images.headers import read_header
from fgdd_fast.images.place import Location

SixteenBit = Literal["shift", "scale"]
SIXTEEN_BITS: tuple[SixteenBit, ...] = get_args(SixteenBit)
_DEPTHS = (8, 10, 12, 14, 16)  # of sensors and files; a dark picture is not brightened any further


def read_image_at(path: Location, sixteen_bit: SixteenBit) -> DecodedImage:
    """Read and decode an image file as `read_image` does, with 16 bits as asked; see `at_depth`.

    Raises:
        ImageError: as `read_image` does.
    """
    if sixteen_bit == "shift":
        return read_image(path)
    file = read_file(path)
    return DecodedImage(decode_image(at_depth(file.content, sixteen_bit)), file.sha256)


def at_depth(content: bytes, sixteen_bit: SixteenBit) -> bytes:
    """Bring the bytes of an image to what `decode_image` reads as asked.

    Args:
        content: the whole file.
        sixteen_bit: what becomes of samples of 16 bits: `shift` takes the upper 8 of them; `scale` the upper
            8 of the 8, 10, 12, 14 or 16 that hold the image's largest value.

    Returns:
        The same bytes, but for an image of 16 bits that is scaled: that is a PNG, upright.

    Raises:
        ImageError: no image, or a damaged one.
    """
    if sixteen_bit == "shift":
        return content
    header = read_header(content)
    if header.bit_depth != 16 or header.width * header.height > MAX_PIXELS:
        return content
    stored = read_pixels(content, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or (header.format == "TIFF" and header.has_alpha):
        return content
    pixels = stored.reshape(*stored.shape[:2], -1).copy()
    colour = pixels[..., :3]
    used = int(colour.max()).bit_length()
    colour <<= 16 - next(depth for depth in _DEPTHS if used <= depth)
    if header.format != "TIFF":  # OpenCV turns these itself, whatever it is told
        pixels = upright(pixels, header.orientation)
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
