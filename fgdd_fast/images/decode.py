"""Image files decoded to RGB, whatever their format, channels and depth."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import ImageError
from fgdd_fast.images.headers import Header, read_header
from fgdd_fast.images.place import Location, Place
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.tiff_grey import read_grey_alpha
from fgdd_fast.parallel import DECODING, silent_opencv

_log = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970  # Pillow's limit: half a gigabyte of RGB
_RGB = 3  # bytes of a pixel
_PEAK = 3  # times the decoded pixels: what decoders hold at most, their own buffers and copies included
_ROWS = 16  # of a picture that are laid over white at once
# Bits that may follow a JPEG's data: as many as decoders read ahead, and too few for a part of the picture.
_AFTER_THE_END = (bytes(16), bytes.fromhex("5ac3967b1de8b4425ac3967b1de8b442"), b"\xff\0" * 8)

LARGE = 8_000_000  # pixels, from which on a JPEG may be decoded smaller
_SCALES = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}

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


def read_image(path: Location, *, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Read and decode an image file: `read_file`, then `decode_image`.

    Raises:
        ImageError: as these two do; the reason names no path.
    """
    file = read_file(path)
    return DecodedImage(decode_image(file.content, max_pixels=max_pixels), file.sha256)


def read_file(path: Location) -> FileContent:
    """Read a regular file, or what lies at a place, once, and hash it.

    Raises:
        ImageError: it cannot be read; the reason names no path.
        RemoteError: its store cannot be reached.
    """
    try:
        if isinstance(path, Place):
            content = path.read_bytes()
            return FileContent(content, hashlib.sha256(content).hexdigest())
        # Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError("not a regular file")
            content = file.read()
    except IsADirectoryError as error:
        raise ImageError("a folder, not a file") from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or 'it is gone'}") from error
    return FileContent(content, hashlib.sha256(content).hexdigest())


def decode_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the bytes of an image file.

    The Exif orientation is applied; transparency is laid over white; 16 bits become the upper 8; greyscale,
    palettes and CMYK become RGB. Colour profiles are ignored. A TIFF gives its first page, an MPO its first
    picture. A JPEG may lack the marker of its end, if its picture is whole.

    Returns:
        uint8 [height, width, 3], RGB, contiguous.

    Raises:
        ImageError: the bytes are no image, damaged, truncated or animated; or the decoded pixels, all
            channels in their depth, take more than `max_pixels` of RGB, which is found out before anything is
            decoded.
    """
    with decoding(content, max_pixels=max_pixels) as pixels:
        return pixels


@contextmanager
def decoding(content: bytes, *, max_pixels: int = MAX_PIXELS, reduced: bool = False) -> Iterator[Pixels]:
    """Decode an image as `decode_image` does, and have other threads wait where memory would run out.

    What the image takes counts until the block ends. Blocks must not lie within each other.

    Args:
        content: the bytes of the file.
        max_pixels: see `decode_image`.
        reduced: whether a JPEG of `LARGE` or more pixels gives a half, a quarter or an eighth of its width
            and height, and so a quarter of `LARGE` pixels at least. Each 8 x 8 are made of fewer
            coefficients, which averages them, in about half the time.

    Raises:
        ImageError: as `decode_image` does.
    """
    header = _readable_header(content, max_pixels)
    with DECODING.holding(_PEAK * header.decoded_bytes + len(content)):
        yield _decode(content, header, _scale(header) if reduced else 1)


def upright_size(content: bytes) -> tuple[int, int]:
    """Width and height of the whole image, upright, by its header alone.

    Raises:
        ImageError: the bytes are no image.
    """
    header = read_header(content)
    sides = header.width, header.height
    return sides[::-1] if header.orientation >= 5 else sides


def _scale(header: Header) -> int:
    """What the sides of an image are divided by; see `decoding`."""
    if header.format != "JPEG":
        return 1
    fitting = [scale for scale in _SCALES if header.width * header.height >= LARGE * (scale / 2) ** 2]
    return max(fitting, default=1)


def decode_alpha(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels | None:
    """Decode how opaque an image is, from the bytes of its file; upright, as `decode_image` gives it.

    Returns:
        uint8 [height, width], 0 where it is transparent and 255 where it is opaque; None of an image without
        transparency, which may have a channel for it.

    Raises:
        ImageError: as `decode_image` does.
    """
    header = _readable_header(content, max_pixels)
    if not header.has_alpha:
        return None
    with DECODING.holding(_PEAK * header.decoded_bytes + len(content)):
        stored = _read_stored(content, header)
        if stored.ndim == 3 and stored.shape[2] == 4:
            alpha = _upper_8(stored[..., 3])
        elif stored.ndim == 2 and header.grey_key is not None:
            alpha = np.where(stored == _key(header, stored.dtype), np.uint8(0), np.uint8(255))
        else:
            return None
        if alpha.min() == 255:
            return None
        if header.format != "TIFF":
            alpha = upright(alpha[..., None], header.orientation)[..., 0]
        return np.ascontiguousarray(alpha, np.uint8)


def _readable_header(content: bytes, max_pixels: int) -> Header:
    """The header of an image that can be decoded; see `decode_image`."""
    header = read_header(content)
    if header.decoded_bytes > _RGB * max_pixels:
        decoded = header.decoded_bytes / 1e6
        raise ImageError(f"too large: {header.width} x {header.height} pixels, {decoded:.1f} MB once decoded")
    if header.animated:
        raise ImageError(f"animated {header.format}: it has more than one frame")
    _refuse_unsupported(header)
    if header.pages:
        _say_pages()
    return header


def _decode(content: bytes, header: Header, scale: int = 1) -> Pixels:
    """Decode an image, its sides divided by 1 or, if it is a JPEG, a scale of `_SCALES`, and rounded up."""
    pixels = _decode_alpha(content, header) if header.has_alpha else _decode_opaque(content, header, scale)
    height, width = pixels.shape[:2]
    if {height, width} != {-(-header.height // scale), -(-header.width // scale)}:
        raise ImageError(
            f"damaged {header.format}: it says {header.width} x {header.height} pixels, and has "
            f"{width} x {height}"
        )
    if header.format != "TIFF":  # OpenCV turns these itself, whatever it is told
        pixels = _ORIENT[header.orientation](pixels)
    return np.ascontiguousarray(pixels, np.uint8)


@functools.cache
def _say_pages() -> None:
    """Say, once in a process, what becomes of further pages."""
    _log.warning("Some TIFF files have several pages: the first page of each is read")


def _refuse_unsupported(header: Header) -> None:
    if header.bit_depth > 16:
        raise ImageError(f"{header.format} with samples of {header.bit_depth} bits")
    if header.format == "TIFF" and header.has_alpha and header.bit_depth != 8:
        raise ImageError(f"TIFF with transparency and samples of {header.bit_depth} bits")


def _decode_opaque(content: bytes, header: Header, scale: int) -> Pixels:
    flags = _SCALES.get(scale, _IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = _imdecode(content, header, flags) if header.ended else _decode_endless(content, flags)
    is_rgb = _READS_RGB and scale == 1  # OpenCV decodes smaller to BGR alone
    return pixels if is_rgb else _convert(pixels, cv2.COLOR_BGR2RGB)


def _decode_endless(content: bytes, flags: int) -> Pixels:
    """Decode a JPEG without the marker of its end, which is whole if nothing that might follow shows.

    OpenCV gives no picture where the data end before it does.
    """
    body = content.rstrip(b"\xff")
    pixels = read_pixels(body + _AFTER_THE_END[0], flags)
    for after in _AFTER_THE_END[1:]:
        other = None if pixels is None else read_pixels(body + after, flags)
        if pixels is None or other is None or (other != pixels).any():
            raise ImageError("truncated JPEG")
    return np.asarray(pixels, np.uint8)


def _decode_alpha(content: bytes, header: Header) -> Pixels:
    stored = _read_stored(content, header)
    laid = np.empty((*stored.shape[:2], 3), np.uint8)
    for start in range(0, len(stored), _ROWS):  # a few rows at once: the widened numbers take twice as much
        laid[start : start + _ROWS] = _over_white(stored[start : start + _ROWS], header)
    return laid


def _read_stored(content: bytes, header: Header) -> NDArray[Any]:
    """Pixels with transparency, as OpenCV gives them."""
    stored = read_pixels(content, cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise _damaged(header)
    return _grey_tiff(content, header) if stored.ndim == 2 and header.format == "TIFF" else stored


def _grey_tiff(content: bytes, header: Header) -> Pixels:
    """A grey TIFF with transparency as OpenCV would give a coloured one: upright, multiplied, uint8 BGRA."""
    found = read_grey_alpha(content, lambda changed: read_pixels(changed, cv2.IMREAD_UNCHANGED))
    grey, alpha = found.grey, np.ascontiguousarray(found.alpha)
    if not found.multiplied:
        grey = np.asarray((grey.astype(np.uint16) * alpha + 127) // 255, np.uint8)
    return np.ascontiguousarray(_ORIENT[header.orientation](np.dstack([grey, grey, grey, alpha])), np.uint8)


def _over_white(stored: NDArray[Any], header: Header) -> Pixels:
    if stored.ndim == 2:
        grey = np.asarray(_upper_8(stored))
        if header.grey_key is not None:
            grey = np.where(stored == _key(header, stored.dtype), np.uint8(255), grey)
        return _convert(grey, cv2.COLOR_GRAY2RGB)
    pixels = _upper_8(stored)
    if pixels.shape[2] == 3:
        return _convert(pixels, cv2.COLOR_BGR2RGB)
    colour, alpha = _convert(pixels, cv2.COLOR_BGRA2RGB), pixels[..., 3]
    if alpha.min() == 255:
        return colour
    alphas: Pixels = np.asarray(cv2.merge([alpha] * 3), np.uint8)
    laid = colour.astype(np.uint16)
    if header.format != "TIFF":  # OpenCV's TIFF reader has multiplied by alpha already
        cv2.multiply(colour, alphas, laid, dtype=cv2.CV_16U)
        laid += 127
        laid //= 255
    laid += 255 - alphas
    return np.asarray(np.minimum(laid, 255), np.uint8)


def _key(header: Header, stored: np.dtype[Any]) -> int:
    """The transparent sample of a grey picture, whose fewer bits are stretched to those of a byte."""
    assert header.grey_key is not None
    if stored == np.uint8 and header.bit_depth < 8:
        return header.grey_key * 255 // ((1 << header.bit_depth) - 1)
    return header.grey_key


def _imdecode(content: bytes, header: Header, flags: int) -> Pixels:
    """Decode to uint8, with as many channels as the flags ask for."""
    pixels = read_pixels(content, flags)
    if pixels is None:
        raise _damaged(header)
    return _upper_8(pixels)


def _upper_8(pixels: NDArray[Any]) -> Pixels:
    return np.asarray(pixels >> 8 if pixels.dtype == np.uint16 else pixels, np.uint8)


def _damaged(header: Header) -> ImageError:
    return ImageError(f"damaged or unsupported {header.format}")


def read_pixels(content: bytes, flags: int) -> NDArray[Any] | None:
    """Decode with OpenCV, which prints nothing of what it meets; None where it cannot."""
    with silent_opencv():
        try:
            return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        except cv2.error:
            return None


def _convert(pixels: Pixels, code: int) -> Pixels:
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
