"""Drawn scenes of named shapes: "red disc", "blue cross". What is where is known exactly, by name.

They teach and check a detector that looks for what it is told in words, and a segmenter of what it found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from fgdd_fast.synthetic.tools import (
    Bytes,
    Colour,
    Dice,
    Field,
    Points,
    colour,
    draw_points,
    ellipse,
    noise,
    polygon,
    rotation,
)  # fmt: skip

Mask: TypeAlias = npt.NDArray[np.bool_]

_ARM = 1 / 3  # half width of a cross's arms, in units of their length

# Outlines around (0, 0) that touch the unit circle from within.
_OUTLINES: dict[str, Points] = {
    "disc": ellipse(0, 0, 1, 1),
    "square": polygon((-1, -1), (1, -1), (1, 1), (-1, 1)) / np.sqrt(2),
    "triangle": polygon((0, -1), (np.sqrt(3) / 2, 0.5), (-np.sqrt(3) / 2, 0.5)),
    "cross": polygon(
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    )
    / float(np.hypot(1, _ARM)),
}  # fmt: skip
# Hues in turns.
_HUES = {"red": 0.99, "orange": 0.075, "yellow": 0.155, "green": 0.36, "blue": 0.61, "purple": 0.80}

SHAPES = tuple(_OUTLINES)
COLOURS = tuple(_HUES)
NAMES = tuple(f"{colour_name} {shape}" for colour_name in COLOURS for shape in SHAPES)

_SMALLEST, _LARGEST = 0.02, 0.5  # share of the image that an object covers
_MOST_OBJECTS = 4
_COVERED = 0.1  # the most that an object may hide of another, and lie on others itself
_TILT = 15.0  # degrees to either side: a small network knows shapes by the directions of their edges


@dataclass(frozen=True)
class SceneObject:
    """One shape of a scene.

    Attributes:
        name: its colour and shape, such as "red disc".
        mask: bool [height, width], its visible part.
        box: (x0, y0, x1, y1) in pixels around the visible part; the far edges are exclusive.
    """

    name: str
    mask: Mask
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """A drawn picture, uint8 RGB [height, width, 3], and its objects, from back to front, masks disjoint."""

    pixels: Bytes
    objects: tuple[SceneObject, ...]

    def occupancy(self, name: str) -> float:
        """Return the share of the image that all objects of this name cover: 0.0 where there is none."""
        return float(sum(item.mask.mean() for item in self.objects if item.name == name))


def draw_scene(seed: int, size: tuple[int, int], objects: int | None = None) -> Scene:
    """Draw shapes of known names on a textured ground, the same for the same arguments.

    Every shape lies wholly inside the image and hides little of another; some share their name. One covers
    about 0.02 to 0.5 of the image, and less where several must share it.

    Args:
        seed: any whole number from 0.
        size: (height, width) in pixels.
        objects: how many, from 1 to 4; left out, the seed chooses.

    Raises:
        ValueError: `objects` is not from 1 to 4.
    """
    if objects is not None and not 1 <= objects <= _MOST_OBJECTS:
        raise ValueError(f"a scene has 1 to {_MOST_OBJECTS} objects, not {objects}")
    dice = Dice(seed, "scene")
    count = objects or dice.whole(1, _MOST_OBJECTS)
    # The ground: muted, it grades from one tone to another and has texture.
    one, other = (colour(dice.number(), dice.number(0, 0.3), dice.number(0.2, 0.95)) for _ in range(2))
    canvas = np.rint(_shaded(dice, one, other, *size, contrast=dice.number(0.02, 0.25))).astype(np.uint8)
    names = _choose_names(dice, count)
    largest = _LARGEST / count**0.7
    shares = sorted((_SMALLEST * (largest / _SMALLEST) ** dice.number() for _ in names), reverse=True)
    placed: list[tuple[str, Mask]] = []
    for name, share in zip(names, shares, strict=True):
        coverage = _place(dice, name, share, placed, size)
        _paint(dice, canvas, coverage, name)
        mask = coverage >= 128
        placed = [(other, visible & ~mask) for other, visible in placed] + [(name, mask)]
    return Scene(canvas, tuple(SceneObject(name, mask, _box(mask)) for name, mask in placed))


def absent_name(scene: Scene, seed: int) -> str:
    """Return a name that no object of the scene has; two of three seeds share a colour or a shape with it."""
    present = {item.name for item in scene.objects}
    absent = [name for name in NAMES if name not in present]
    words = {word for name in present for word in name.split()}
    dice = Dice(seed, "absent")
    similar = [name for name in absent if words & set(name.split())]
    return dice.choose(similar if dice.chance(2 / 3) else absent)


def _choose_names(dice: Dice, count: int) -> list[str]:
    """Return names in any order; some repeat an earlier one, or share its colour or its shape."""
    names = [dice.choose(NAMES)]
    while len(names) < count:
        tone, shape = dice.choose(names).split()
        kind = dice.number()
        if 0.2 <= kind < 0.4:
            shape = dice.choose(SHAPES)
        elif 0.4 <= kind < 0.6:
            tone = dice.choose(COLOURS)
        names.append(f"{tone} {shape}" if kind < 0.6 else dice.choose(NAMES))
    return names


def _place(
    dice: Dice, name: str, share: float, placed: list[tuple[str, Mask]], size: tuple[int, int]
) -> Bytes:
    """Return how far the new object covers each pixel, 0 to 255, at a free place; smaller until it fits."""
    height, width = size
    tone, shape = name.split()
    outline = _OUTLINES[shape]
    area = float(cv2.contourArea(outline.astype(np.float32)))
    radius = min((share * height * width / area) ** 0.5, 0.46 * min(size))
    while True:
        margin = radius + 1.5
        centre = (dice.number(margin, width - margin), dice.number(margin, height - margin))
        points = outline @ rotation(dice.number(-_TILT, _TILT)).T * radius + centre
        coverage = np.zeros(size, np.uint8)
        draw_points(coverage, points - 0.5, (255,))
        if all(_compatible(coverage >= 128, tone, other, mask) for other, mask in placed):
            return coverage
        radius *= 0.97


def _compatible(new: Mask, tone: str, other: str, mask: Mask) -> bool:
    """Return whether an object may lie here beside or on another: well away from one of its own colour."""
    if other.startswith(f"{tone} "):
        gap = 2 * (min(mask.shape) // 64) + 3
        return not (cv2.dilate(new.astype(np.uint8), np.ones((gap, gap), np.uint8)).astype(bool) & mask).any()
    smaller = min(np.count_nonzero(new), np.count_nonzero(mask))
    return bool(np.count_nonzero(new & mask) <= _COVERED * smaller)


def _paint(dice: Dice, canvas: Bytes, coverage: Bytes, name: str) -> None:
    """Lay the object's paint on the canvas where it covers it, in place."""
    hue = _HUES[name.split(maxsplit=1)[0]] + dice.number(-0.012, 0.012)
    tone = colour(hue, dice.number(0.82, 1), dice.number(0.72, 1))
    x, y, width, height = cv2.boundingRect(coverage)
    window = (slice(y, y + height), slice(x, x + width))
    paint = _shaded(dice, tone, tone, height, width, contrast=0.06)
    opacity = cv2.merge([coverage[window].astype(np.float32) / np.float32(255)] * 3)
    canvas[window] = np.rint(canvas[window] + (paint - canvas[window]) * opacity).astype(np.uint8)


def _shaded(dice: Dice, one: Colour, other: Colour, height: int, width: int, *, contrast: float) -> Field:
    """Return float RGB in [0, 255], [height, width, 3]: a grained grade between two tones, any direction."""
    right, down = rotation(dice.number(0, 360))[0] * 0.7
    x = np.linspace(-right / 2, right / 2, width, dtype=np.float32)
    y = np.linspace(-down / 2, down / 2, height, dtype=np.float32)
    mix = np.float32(0.5) + x[None] + y[:, None]
    coarse = max(4, min(height, width) // dice.whole(3, 16))
    grain = noise(dice, height, width, coarse, coarse // 2, 2)
    light = 1 + np.float32(contrast) * grain + np.float32(dice.number(0, 0.12)) * (mix - np.float32(0.5))
    channels = [(np.float32(a) + np.float32(b - a) * mix) * light for a, b in zip(one, other, strict=True)]
    return np.asarray(np.clip(cv2.merge(channels), 0, 255), np.float32)


def _box(mask: Mask) -> tuple[float, float, float, float]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
