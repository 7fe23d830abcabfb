"""Image files decoded to RGB, whatever their format, channels and depth."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import ImageError
from fgdd_fast.images.headers import Header, read_header
from fgdd_fast.images.resize import Pixels
from fgdd_fast.parallel import silent_opencv

MAX_PIXELS = 178_956_970  # Pillow's limit: half a gigabyte of RGB

_READS_RGB = hasattr(cv2, "IMREAD_COLOR_RGB")  # OpenCV 4.11 or later
_IMREAD_COLOR: int = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)

# Exif orientation, and what makes such an image upright.
_ORIENT: dict[int, Callable[[Pixels], NDArray[Any]]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels[::-1].transpose(1, 0, 2),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn pixels [height, width, channels] as they are stored upright, by an Exif orientation of 1 to 8."""
    return _ORIENT[orientation](pixels)


@dataclass(frozen=True)
class DecodedImage:
    """An image, upright, and what identifies its file.

    Attributes:
        pixels: uint8 [height, width, 3], RGB, contiguous.
        sha256: hexadecimal hash of the file's bytes.
    """

    pixels: Pixels
    sha256: str


@dataclass(frozen=True)
class FileContent:
    """The bytes of a file, and their hexadecimal SHA-256."""

    content: bytes
    sha256: str


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Read and decode an image file: `read_file`, then `decode_image`.

    Raises:
        ImageError: as these two do; the reason names no path.
    """
    file = read_file(path)
    return DecodedImage(decode_image(file.content, max_pixels=max_pixels), file.sha256)


def read_file(path: Path) -> FileContent:
    """Read a regular file, once, and hash it.

    Raises:
        ImageError: it cannot be read; the reason names no path.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError("not a regular file")
            content = file.read()
    except IsADirectoryError as error:
        raise ImageError("a folder, not a file") from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    return FileContent(content, hashlib.sha256(content).hexdigest())


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the bytes of an image file.

    The Exif orientation is applied; transparency is laid over white; 16 bits become the upper 8; greyscale,
    palettes and CMYK become RGB. Colour profiles are ignored. A TIFF gives its first page, an MPO its first
    picture.

    Returns:
        uint8 [height, width, 3], RGB, contiguous.

    Raises:
        ImageError: the bytes are no image, damaged, truncated or animated, or there are more than
            `max_pixels`, which is found out before anything is decoded.
    """
    header = read_header(content)
    if header.width * header.height > max_pixels:
        raise ImageError(f"too large: {header.width} x {header.height} pixels")
    if header.animated:
        raise ImageError(f"animated {header.format}: it has more than one frame")
    _refuse_unsupported(header)
    pixels = _decode_alpha(content, header) if header.has_alpha else _decode_opaque(content, header)
    if header.format != "TIFF":  # OpenCV turns these itself, whatever it is told
        pixels = _ORIENT[header.orientation](pixels)
    return np.ascontiguousarray(pixels, np.uint8)


def _refuse_unsupported(header: Header) -> None:
    if header.bit_depth > 16:
        raise ImageError(f"{header.format} with samples of {header.bit_depth} bits")
    if header.format == "TIFF" and header.has_alpha and header.bit_depth != 8:
        raise ImageError(f"TIFF with transparency and samples of {header.bit_depth} bits")


def _decode_opaque(content: bytes, header: Header) -> Pixels:
    pixels = _imdecode(content, header, _IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return pixels if _READS_RGB else _convert(pixels, cv2.COLOR_BGR2RGB)


def _decode_alpha(content: bytes, header: Header) -> Pixels:
    stored = _imdecode(content, header, cv2.IMREAD_UNCHANGED)
    if stored.ndim == 2:  # OpenCV does not tell which of a grey image's pixels are transparent
        return _convert(stored, cv2.COLOR_GRAY2RGB)
    if stored.shape[2] == 3:
        return _convert(stored, cv2.COLOR_BGR2RGB)
    rgba = _convert(stored, cv2.COLOR_BGRA2RGBA).astype(np.uint16)
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    if header.format != "TIFF":  # OpenCV's TIFF reader has multiplied by alpha already
        colour = (colour * alpha + 127) // 255
    return np.asarray(np.minimum(colour + (255 - alpha), 255), np.uint8)


def _imdecode(content: bytes, header: Header, flags: int) -> Pixels:
    """Decode to uint8, with as many channels as the flags ask for."""
    pixels = read_pixels(content, flags)
    if pixels is None:
        raise ImageError(f"damaged or unsupported {header.format}")
    return np.asarray(pixels >> 8 if pixels.dtype == np.uint16 else pixels, np.uint8)


def read_pixels(content: bytes, flags: int) -> NDArray[Any] | None:
    """Decode with OpenCV, which prints nothing of what it meets; None where it cannot."""
    with silent_opencv():
        try:
            return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        except cv2.error:
            return None


def _convert(pixels: Pixels, code: int) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
