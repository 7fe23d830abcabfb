"""What drawn pictures are made with: stable random numbers, colours, noise and outlines.

Pictures must be the same on every machine. So random numbers come from a bit generator's raw output
(whose stream NumPy guarantees), and pixels only from steps that are exact everywhere: IEEE addition,
multiplication and division, sums of integers, and OpenCV's bit-exact functions on uint8.
"""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Field: TypeAlias = npt.NDArray[np.float32]
Points: TypeAlias = npt.NDArray[np.float64]
Colour: TypeAlias = tuple[int, int, int]

T = TypeVar("T")


class Dice:
    """Random numbers that are the same for the same seed on every machine and NumPy version."""

    def __init__(self, seed: int, *names: str) -> None:
        keys = [zlib.crc32(name.encode()) for name in names]
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, *keys]))

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def whole(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + int(self.number() * (high - low + 1))

    def chance(self, share: float) -> bool:
        """True in `share` of the calls."""
        return self.number() < share

    def choose(self, options: Sequence[T]) -> T:
        """One of `options`."""
        return options[self.whole(0, len(options) - 1)]

    def grid(self, height: int, width: int) -> Bytes:
        """Independent uint8 values, [height, width]."""
        raw = np.asarray(self._bits.random_raw(height * width), np.uint64)
        return (raw >> np.uint64(56)).astype(np.uint8).reshape(height, width)


def colour(hue: float, saturation: float, value: float) -> Colour:
    """RGB of a hue (turns), saturation and value (in [0, 1], clipped)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return round(red * 255), round(green * 255), round(blue * 255)


def darker(tone: Colour, share: float) -> Colour:
    """`tone` with each channel at `share` of its value; above 1 it is lighter."""
    red, green, blue = (min(255, round(channel * share)) for channel in tone)
    return red, green, blue


def noise(dice: Dice, height: int, width: int, *, cells: Sequence[tuple[int, int]]) -> Field:
    """Multi-octave value noise in about [-1, 1], [height, width].

    Args:
        dice: where the values come from.
        height: rows.
        width: columns.
        cells: (height, width) in pixels of each octave's cells, coarsest first, at most five; each counts
            about 0.6 times the one before.
    """
    total = np.zeros((height, width), np.uint16)
    weights = [32, 19, 12, 7, 4][: len(cells)]
    for weight, (cell_height, cell_width) in zip(weights, cells, strict=True):
        grid = dice.grid(height // cell_height + 2, width // cell_width + 2)
        octave = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
        total += np.asarray(octave, np.uint16) * np.uint16(weight)
    middle = np.float32(127.5 * sum(weights))
    return (total - middle) * np.float32(1 / (90 * sum(weights)))


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, start: float = 0, stop: float = 360, tilt: float = 0
) -> Points:
    """Points on an ellipse's arc from `start` to `stop`, turned by `tilt`: degrees, clockwise on screen."""
    angles = np.radians(np.linspace(start, stop, max(8, int(abs(stop - start) / 7))))
    arc = np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], axis=1)
    return arc @ rotation(tilt).T + (x, y)


def rotation(degrees: float) -> Points:
    """The 2 x 2 matrix that turns points clockwise on screen."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def smooth(corners: Sequence[tuple[float, float]] | Points, samples: int = 10) -> Points:
    """A closed Catmull-Rom curve through `corners`, `samples` points to each."""
    here = np.asarray(corners, np.float64)[:, None]
    before, after, later = (np.roll(here, shift, axis=0) for shift in (1, -1, -2))
    t = (np.arange(samples) / samples)[None, :, None]
    curve = (
        2 * here
        + (after - before) * t
        + (2 * before - 5 * here + 4 * after - later) * t**2
        + (3 * here - before - 3 * after + later) * t**3
    )
    return np.asarray(curve.reshape(-1, 2) / 2, np.float64)


def polygon(*corners: tuple[float, float]) -> Points:
    """The corners as points."""
    return np.array(corners, np.float64)
