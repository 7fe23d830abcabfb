"""Resizing of images, always with antialiasing where an image shrinks."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

ResizeMethod = Literal["area", "pil", "reduced"]
RESIZE_METHODS: tuple[ResizeMethod, ...] = ("area", "pil", "reduced")

Pixels = NDArray[np.uint8]

WEIGHT_BITS = 22  # Pillow's fixed-point precision: 255 << 22 still fits into 32 bits


def resize(pixels: Pixels, size: tuple[int, int], method: ResizeMethod) -> Pixels:
    """Resize an image.

    The result depends on the arguments alone, wherever the pixels lie in memory and whatever the thread.

    Args:
        pixels: uint8 [height, width, 3].
        size: width and height wanted.
        method: `area` averages the pixels that each new pixel covers, and interpolates linearly along an axis
            that grows: OpenCV's INTER_AREA within one grey level (`resize_arithmetic`); `pil` is Pillow's
            `Image.resize(size, BILINEAR)`, within one grey level (and exactly, where one axis changes or
            Pillow is older than 13), and so torchvision's resizing of PIL images; `reduced` is `area`, of
            what `fgdd_fast.images.decode.decoding` has made smaller.

    Returns:
        uint8 [size[1], size[0], 3], contiguous.
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(pixels)
    return _resize_pil(pixels, size) if method == "pil" else _resize_area(pixels, size)


def resize_arithmetic(method: ResizeMethod) -> str:
    """What computes a method in this process, for the keys of what is measured.

    That is the method's name, but where Intel's IPP averages, which is several times as fast as
    OpenCV's own code: a mean that lies between two grey levels may be rounded the other way.
    """
    return f"{method}, Intel IPP" if method != "pil" and _ipp_averages() else method


def _resize_area(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    # When an axis grows, INTER_AREA interpolates both without antialiasing: shrink first, then let grow.
    height, width = pixels.shape[:2]
    shrunk = (min(width, size[0]), min(height, size[1]))
    if shrunk != (width, height):
        pixels = _average(pixels, shrunk)
    if shrunk != size:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return pixels


def _average(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """INTER_AREA where no axis grows, by Intel's IPP where OpenCV has it."""
    # OpenCV leaves this to IPP only if results may differ from its own. The setting is the calling thread's;
    # it is put back, for linear interpolation would become slower.
    before = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(True)
    try:
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    finally:
        cv2.ipp.setUseIPP_NotExact(before)


@cache
def _ipp_averages() -> bool:
    """Whether it is IPP that computes `_average`: found by trying, since OpenCV decides."""
    halves = np.tile(np.array([0, 1], np.uint8)[:, None], (64, 32, 3))
    # IPP rounds a half to the even level, OpenCV's own code upwards.
    return bool((_average(halves, (32, 32)) == 0).all())


def _resize_pil(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    # Width, rounding to uint8, then height; Pillow 13 does it the other way round where that is faster.
    height, width = pixels.shape[:2]
    if width != size[0]:
        pixels = _transpose(_resize_rows(_transpose(pixels), size[0]))
    if height != size[1]:
        pixels = _resize_rows(pixels, size[1])
    return pixels


def _transpose(pixels: Pixels) -> Pixels:
    """Swap height and width in memory."""
    return np.asarray(cv2.transpose(pixels), np.uint8)


def _resize_rows(pixels: Pixels, length: int) -> Pixels:
    """Resize the first axis of [rows, columns, 3] to `length` in Pillow's fixed-point arithmetic."""
    first, weights = _triangle_weights(pixels.shape[0], length)
    wide = pixels.reshape(pixels.shape[0], -1).astype(np.int32)
    total = np.full((length, wide.shape[1]), 1 << (WEIGHT_BITS - 1), np.int32)
    product = np.empty_like(total)
    for tap in range(weights.shape[1]):
        np.take(wide, first + tap, axis=0, out=product, mode="clip")
        product *= weights[:, tap, None]
        total += product
    total >>= WEIGHT_BITS
    return total.astype(np.uint8).reshape(length, *pixels.shape[1:])


@lru_cache(maxsize=256)
def _triangle_weights(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Where each new pixel's neighbourhood begins, [new], and its weights, [new, taps], in 1 / 2**22.

    The weights form a triangle as wide as two new pixels, and no narrower than two old ones.
    """
    scale = old / new
    support = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.intp), 0)
    end = np.minimum((centre + support + 0.5).astype(np.intp), old)
    position = first[:, None] + np.arange((end - first).max())
    distance = np.abs(position - centre[:, None] + 0.5) / support
    weights = np.where(position < end[:, None], np.maximum(1.0 - distance, 0.0), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return first, (weights * (1 << WEIGHT_BITS) + 0.5).astype(np.int32)
