"""Textured backgrounds for drawn pictures: wood, brick, cloth, grass and the like, a little out of focus."""

from __future__ import annotations

import cv2
import numpy as np

from fgdd_fast.synthetic.tools import Bytes, Dice, Field, colour, noise


def paint_background(dice: Dice, height: int, width: int, *, avoid_hue: float) -> Bytes:
    """Return a textured surface, uint8 RGB [height, width, 3].

    `avoid_hue` (turns) is the hue of the object that will lie on it; only greyish surfaces come near it.
    """
    allowed = [kind for kind in _KINDS if kind[2] < 0.2 or abs((kind[1] - avoid_hue + 0.5) % 1 - 0.5) > 0.14]
    painter, hue, saturation, low, high = dice.choose(allowed)
    tone = colour(hue + dice.number(-0.03, 0.03), saturation * dice.number(0.6, 1), dice.number(low, high))
    texture = painter(dice, height, width)
    surface = cv2.merge([np.clip(texture * np.float32(value), 0, 255).astype(np.uint8) for value in tone])
    focus = dice.choose((3, 5, 7))
    return np.asarray(cv2.GaussianBlur(surface, (focus, focus), 0), np.uint8)


def _unit(height: int, width: int) -> float:
    """Return the pixels that are one pixel in a picture whose shorter side is 400."""
    return min(height, width) / 400


def _turned(dice: Dice, height: int, width: int, *, degrees: float) -> tuple[Field, Field]:
    """Return coordinates in pixels along and across a direction up to `degrees` off level or upright."""
    angle = np.radians(dice.number(-degrees, degrees) + dice.choose((0, 90)))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine + np.float32(4096), y * cosine - x * sine + np.float32(4096)


def _tones(dice: Dice, index: Field, spread: float) -> Field:
    """Return a tone about 1 for each whole number in `index`."""
    table = 1 + spread * (dice.grid(1, 1024)[0].astype(np.float32) / 127.5 - 1)
    return np.asarray(table[index.astype(np.int64) % 1024], np.float32)


def _plaster(dice: Dice, height: int, width: int) -> Field:
    return 1 + 0.10 * noise(dice, height, width, 96, 40, 16, 6, 3)


def _wood(dice: Dice, height: int, width: int) -> Field:
    upright = dice.chance(0.5)
    rows, columns = (width, height) if upright else (height, width)
    grain = noise(dice, rows, columns, (14, 260), (6, 120), (3, 60), (2, 24))
    y = np.arange(rows, dtype=np.float32)[:, None] + np.zeros((rows, columns), np.float32)
    plank = np.floor(y / np.float32(_unit(height, width) * dice.number(50, 95)))
    seam = np.zeros_like(y)
    seam[1:] = plank[1:] != plank[:-1]
    planks: Field = (1 + 0.16 * grain) * _tones(dice, plank, 0.12) * (1 - 0.5 * seam)
    return planks.T if upright else planks


def _bricks(dice: Dice, height: int, width: int) -> Field:
    x, y = _turned(dice, height, width, degrees=4)
    brick_height = np.float32(_unit(height, width) * dice.number(26, 44))
    brick_width = brick_height * np.float32(dice.choose((1.0, 2.2, 2.6)))
    row = np.floor(y / brick_height)
    shifted = x / brick_width + np.float32(0.5) * (row % 2)
    column = np.floor(shifted)
    joint = np.float32(0.1)
    in_joint = (y / brick_height - row < joint) | ((shifted - column) * (brick_width / brick_height) < joint)
    rough = 1 + 0.09 * noise(dice, height, width, 30, 10, 4, 2)
    wall: Field = np.where(in_joint, np.float32(1.22), _tones(dice, row * 37 + column, 0.11)) * rough
    return wall


def _cloth(dice: Dice, height: int, width: int) -> Field:
    x, y = _turned(dice, height, width, degrees=30)
    step = np.float32(_unit(height, width) * dice.number(18, 46))
    along, across = np.floor(x / step) % 2, np.floor(y / step) % 2
    weave = along + across if dice.chance(0.5) else 2 * along
    fine = noise(dice, height, width, 120, 5, 2)
    cloth: Field = (0.93 + np.float32(dice.number(0.04, 0.09)) * weave) * (1 + 0.07 * fine)
    return cloth


def _grass(dice: Dice, height: int, width: int) -> Field:
    patches = 0.8 + 0.12 * noise(dice, height, width, 80, 30, 10)
    canvas = np.clip(patches * 128, 0, 255).astype(np.uint8)
    unit = _unit(height, width)
    for x, y, lean, length, tone in dice.grid(900, 5).astype(np.int64):
        foot = (int(x * width // 256 + lean % 7), int(y * height // 256 + length % 7))
        tip = (foot[0] + int(unit * (lean - 128) / 9), foot[1] - int(unit * (10 + length / 12)))
        cv2.line(canvas, foot, tip, (int(84 + tone * 70 // 255),), 2, cv2.LINE_AA)
    return np.asarray(canvas, np.float32) / np.float32(128)


def _light_spots(dice: Dice, height: int, width: int) -> Field:
    """Return lamps far out of focus."""
    canvas: Bytes = np.full((height, width), 112, np.uint8)
    for _ in range(dice.whole(10, 22)):
        disc = canvas.copy()
        centre = (dice.whole(0, width), dice.whole(0, height))
        radius = int(_unit(height, width) * dice.number(14, 46))
        cv2.circle(disc, centre, radius, (dice.whole(120, 150),), -1, cv2.LINE_AA)
        canvas = ((canvas.astype(np.uint16) + disc) // 2).astype(np.uint8)
    soft = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 3.0), np.float32)
    return soft / 118 + 0.015 * noise(dice, height, width, 60, 2)


# Painter, hue (turns), saturation, and the range of values.
_KINDS = (
    (_plaster, 0.10, 0.12, 0.72, 0.92),
    (_plaster, 0.58, 0.28, 0.35, 0.75),
    (_plaster, 0.45, 0.16, 0.30, 0.55),
    (_wood, 0.075, 0.48, 0.42, 0.72),
    (_wood, 0.09, 0.18, 0.68, 0.86),
    (_wood, 0.08, 0.17, 0.26, 0.4),
    (_bricks, 0.03, 0.46, 0.5, 0.66),
    (_bricks, 0.6, 0.1, 0.5, 0.75),
    (_cloth, 0.6, 0.36, 0.4, 0.72),
    (_cloth, 0.95, 0.26, 0.66, 0.82),
    (_cloth, 0.12, 0.14, 0.72, 0.88),
    (_grass, 0.27, 0.52, 0.42, 0.62),
    (_light_spots, 0.68, 0.34, 0.28, 0.46),
    (_light_spots, 0.06, 0.16, 0.32, 0.6),
)
