"""Image files as the references open them: with Pillow, or with OpenCV."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

from fgdd_bench.harness.subject import unusable
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import Pixels


def read_content(image: SourceImage, _: None) -> bytes:
    """Return the bytes of an image's file; a DataError where it cannot be read."""
    try:
        return image.path.read_bytes()
    except OSError as error:
        raise unusable(image.source, f"cannot be read: {error.strerror}") from error


def decode_pillow(image: SourceImage, content: bytes) -> Image.Image:
    """Decode with Pillow, upright, RGB; a DataError where it cannot."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except Exception as error:  # its readers raise whatever they trip over
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise unusable(image.source, f"Pillow cannot decode it: {reason}") from error


def decode_opencv(image: SourceImage, content: bytes) -> Pixels:
    """Decode with OpenCV, upright, to uint8 [height, width, 3] in RGB; a DataError where it cannot."""
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # of an empty file
        pixels = None
    if pixels is None:
        raise unusable(image.source, "OpenCV cannot decode it")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), np.uint8)


def resize_opencv(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize uint8 [height, width, 3] to (width, height)."""
    # INTER_AREA averages only where no axis grows.
    shrunk = (min(pixels.shape[1], size[0]), min(pixels.shape[0], size[1]))
    pixels = np.asarray(cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def cut_tile(pixels: Pixels, box: Box, tile_size: int) -> Pixels:
    """Return a box of an image as a tile, uint8 [tile_size, tile_size, 3]."""
    part = pixels[box.y : box.y + box.height, box.x : box.x + box.width]
    return resize_opencv(part, (tile_size, tile_size))


def resized_whole(size: tuple[int, int], _: SourceImage, pixels: Pixels) -> Pixels:
    """Return the whole of an image in a size, (width, height)."""
    return resize_opencv(pixels, size)
