"""What drawn pictures are made of: stable random numbers, colours, noise, outlines, and the shapes with them.

Pictures must be the same on every machine. So random numbers come from a bit generator's raw output
(whose stream NumPy guarantees), and pixels only from steps that are exact everywhere: IEEE addition,
multiplication and division, sums of integers, and OpenCV's bit-exact functions on uint8.
"""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Field: TypeAlias = npt.NDArray[np.float32]
Points: TypeAlias = npt.NDArray[np.float64]  # [n, 2] of (x, y), y downwards
Colour: TypeAlias = tuple[int, int, int]  # RGB

T = TypeVar("T")

_SHIFT = 4  # fractional bits of OpenCV's coordinates


class Dice:
    """Random numbers that are the same for the same seed on every machine and NumPy version."""

    def __init__(self, seed: int, *names: str) -> None:
        keys = [zlib.crc32(name.encode()) for name in names]
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, *keys]))

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def whole(self, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""
        return low + int(self.number() * (high - low + 1))

    def chance(self, share: float) -> bool:
        """Return True in `share` of the calls."""
        return self.number() < share

    def choose(self, options: Sequence[T]) -> T:
        """Return one of `options`."""
        return options[self.whole(0, len(options) - 1)]

    def grid(self, height: int, width: int) -> Bytes:
        """Return independent uint8 values, [height, width]."""
        raw = np.asarray(self._bits.random_raw(height * width), np.uint64)
        return (raw >> np.uint64(56)).astype(np.uint8).reshape(height, width)


class Mark(NamedTuple):
    """Paint on a shape, seen only inside it: a filled outline, or an open line of the width `line`."""

    points: Points
    colour: Colour
    line: float = 0.0


class Shape(NamedTuple):
    """A body with a contour, filled or a line as a mark is; it bulges by `relief` towards the viewer."""

    points: Points
    colour: Colour
    marks: Sequence[Mark] = ()
    line: float = 0.0
    relief: float = 1.0


class Subject(NamedTuple):
    """What a picture shows: shapes around (0, 0), about two units wide, from back to front.

    The background avoids `hue` (turns); the subject may lean by `tilt` degrees to either side.
    """

    shapes: Sequence[Shape]
    hue: float
    tilt: float


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Return the RGB of a hue (turns), saturation and value (in [0, 1], clipped)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))
    return round(red * 255), round(green * 255), round(blue * 255)


def darker(tone: Colour, share: float) -> Colour:
    """Return `tone` with each channel at `share` of its value; above 1 it is lighter."""
    red, green, blue = (min(255, round(channel * share)) for channel in tone)
    return red, green, blue


def noise(dice: Dice, height: int, width: int, *cells: int | tuple[int, int]) -> Field:
    """Return multi-octave value noise in about [-1, 1], [height, width].

    `cells` are the sides (or heights and widths) in pixels of each octave's cells, coarsest first, at most
    five; each octave counts about 0.6 times the one before.
    """
    total = np.zeros((height, width), np.uint16)
    weights = [32, 19, 12, 7, 4][: len(cells)]
    for weight, cell in zip(weights, cells, strict=True):
        rows, columns = (cell, cell) if isinstance(cell, int) else cell
        grid = dice.grid(height // rows + 2, width // columns + 2)
        octave = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
        total += np.asarray(octave, np.uint16) * np.uint16(weight)
    middle = np.float32(127.5 * sum(weights))
    return (total - middle) * np.float32(1 / (90 * sum(weights)))


def rotation(degrees: float) -> Points:
    """Return the 2 x 2 matrix that turns points clockwise on screen."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def steps(start: float, stop: float, step: float) -> list[float]:
    """Return the numbers from `start` to before `stop`."""
    return [float(number) for number in np.arange(start, stop, step)]


def polygon(*corners: tuple[float, float]) -> Points:
    """Return the corners as points."""
    return np.array(corners, np.float64)


def ellipse(
    x: float, y: float, radius_x: float, radius_y: float, start: float = 0, stop: float = 360, tilt: float = 0
) -> Points:
    """Return points on an ellipse's arc, turned by `tilt`; angles in degrees, clockwise on screen."""
    angles = np.radians(np.linspace(start, stop, max(8, int(abs(stop - start) / 7))))
    arc = np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], axis=1)
    return arc @ rotation(tilt).T + (x, y)


def smooth(*corners: tuple[float, float] | Points, samples: int = 10) -> Points:
    """Return a closed Catmull-Rom curve through the corners, `samples` points to each."""
    here = np.asarray(corners, np.float64)[:, None]
    before, after, later = (np.roll(here, shift, axis=0) for shift in (1, -1, -2))
    t = (np.arange(samples) / samples)[None, :, None]
    square = (2 * before - 5 * here + 4 * after - later) * t**2
    curve = 2 * here + (after - before) * t + square + (3 * here - before - 3 * after + later) * t**3
    return np.asarray(curve.reshape(-1, 2) / 2, np.float64)


def draw_points(canvas: Bytes, points: Points, tone: tuple[int, ...], width: int = 0) -> None:
    """Fill the closed outline in `points` (pixels), or draw an open line of a width above 0, in place."""
    place = [np.rint(points * 2**_SHIFT).astype(np.int32)]
    if width:
        cv2.polylines(canvas, place, False, tone, width, cv2.LINE_AA, _SHIFT)
    else:
        cv2.fillPoly(canvas, place, tone, cv2.LINE_AA, _SHIFT)
