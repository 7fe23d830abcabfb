"""Living things to draw: a fish, a flower, a tree."""

from __future__ import annotations

import numpy as np

from fgdd_fast.synthetic.shapes import INK, WHITE, Mark, Shape, Subject
from fgdd_fast.synthetic.tools import Colour, Dice, colour, darker, ellipse, polygon, rotation, smooth


def fish(dice: Dice) -> Subject:
    """A fish from its side."""
    hue = dice.choose((0.0, 0.05, 0.09, 0.14, 0.5, 0.6, 0.83, 0.92))
    skin = colour(hue, dice.number(0.65, 0.9), dice.number(0.8, 0.98))
    fin = colour(hue + dice.choose((-0.06, 0.06, 0.1)), 0.75, dice.number(0.7, 0.95))
    belly, tall = dice.number(0.38, 0.56), dice.number(0.4, 0.56)
    body = smooth(
        [
            (-1.0, 0.04),
            (-0.78, -0.6 * tall),
            (-0.3, -tall),
            (0.2, -0.85 * tall),
            (0.6, -0.16),
            (0.8, -0.08),
            (0.8, 0.1),
            (0.6, 0.17),
            (0.2, 0.85 * belly),
            (-0.3, belly),
            (-0.78, 0.6 * belly),
        ]
    )
    tail = smooth(
        [
            (0.68, 0),
            (0.98, -0.34),
            (1.24, -0.5),
            (1.14, -0.2),
            (1.08, 0),
            (1.14, 0.22),
            (1.24, 0.5),
            (0.98, 0.34),
        ]
    )
    back_fin = smooth(
        [
            (-0.5, -0.7 * tall),
            (-0.3, -tall - 0.2),
            (0.0, -tall - 0.24),
            (0.36, -tall - 0.06),
            (0.46, -0.18),
            (0, -0.2),
        ]
    )
    low_fin = smooth(
        [(0.0, 0.2), (0.42, 0.16), (0.36, belly + 0.12), (0.2, belly + 0.16), (0.02, belly * 0.9)]
    )
    rays = tuple(
        Mark(polygon((0.7, 0), (1.3, y)), darker(fin, 0.72), 0.02) for y in (-0.42, -0.22, 0, 0.22, 0.42)
    )
    back_rays = tuple(
        Mark(polygon((x, 0), (x + 0.12, -1)), darker(fin, 0.72), 0.018) for x in np.arange(-0.4, 0.4, 0.13)
    )
    pattern = _bands(dice, fin) if dice.chance(0.5) else _scales(skin)
    face = (
        Mark(ellipse(-0.1, 0.62, 1.1, 0.42), darker(skin, 1.35)),
        *pattern,
        Mark(ellipse(-0.72, 0.02, 0.24, 0.42, -62, 62), darker(skin, 0.55), 0.035),
        Mark(smooth([(-1.04, 0.08), (-0.9, 0.12), (-0.86, 0.1), (-0.9, 0.15)]), darker(skin, 0.4)),
    )
    side_fin = smooth([(-0.34, 0.04), (-0.02, -0.06), (0.1, 0.1), (-0.02, 0.24), (-0.2, 0.2)])
    eye_y = -0.12 * tall / 0.45
    eye = (
        Shape(ellipse(-0.74, eye_y, 0.105, 0.105), WHITE, relief=0.4),
        Shape(
            ellipse(-0.755, eye_y, 0.055, 0.055),
            INK,
            (Mark(ellipse(-0.775, eye_y - 0.02, 0.02, 0.02), WHITE),),
        ),
    )
    shapes = (
        Shape(tail, fin, rays),
        Shape(back_fin, fin, back_rays),
        Shape(low_fin, fin),
        Shape(body, skin, face),
    )
    return Subject((*shapes, Shape(side_fin, fin), *eye), hue, tilt=24)


def _bands(dice: Dice, fin: Colour) -> list[Mark]:
    tone = dice.choose((WHITE, INK, fin))
    wide = dice.number(0.07, 0.12)
    return [Mark(ellipse(x - 0.3, 0, 0.3, 0.9, -60, 60), tone, wide) for x in (-0.3, 0.08, 0.44)]


def _scales(skin: Colour) -> list[Mark]:
    rows = [
        (x + 0.065 * (row % 2), y)
        for row, y in enumerate(np.arange(-0.5, 0.5, 0.11))
        for x in np.arange(-0.4, 0.7, 0.13)
    ]
    return [Mark(ellipse(x, y, 0.075, 0.075, -70, 70), darker(skin, 0.72), 0.016) for x, y in rows]


def flower(dice: Dice) -> Subject:
    """A blossom on a stem with two leaves."""
    hue = dice.choose((0.0, 0.04, 0.13, 0.58, 0.72, 0.82, 0.92))
    petal = colour(hue, dice.number(0.55, 0.85), dice.number(0.85, 1.0))
    count, wide = dice.whole(6, 9), dice.number(0.62, 0.74)
    leaf = colour(dice.number(0.27, 0.36), 0.62, dice.number(0.45, 0.62))
    bend = dice.number(-0.25, 0.25)
    stem = smooth([(0, 0), (bend, 0.8), (0.1, 1.75), (bend, 0.8)])[:20]
    leaves = [_leaf(bend * 0.8, 1.25, side * dice.number(28, 48), leaf) for side in (-1, 1)]
    rings = [(1.0, count, petal)] + ([(0.68, count, darker(petal, 1.18))] if dice.chance(0.6) else [])
    turn = dice.number(0, 360)
    petals = [
        _petal(size, 2.6 * size * wide / number, turn + 360 * k / number + (180 / number) * (size < 1), tone)
        for size, number, tone in rings
        for k in range(number)
    ]
    heart = colour(0.12, 0.75, 0.9) if abs(hue - 0.13) > 0.05 else colour(0.07, 0.7, 0.42)
    seeds = tuple(
        Mark(ellipse(r * np.cos(a), r * np.sin(a), 0.022, 0.022), darker(heart, 0.66))
        for r in (0.05, 0.11, 0.17)
        for a in np.arange(0, 6.28, 0.055 / r)
    )
    shapes = (
        Shape(stem, darker(leaf, 0.9), line=0.1),
        *leaves,
        *petals,
        Shape(ellipse(0, 0, 0.24, 0.24), heart, seeds),
    )
    return Subject(shapes, hue, tilt=28)


def _petal(length: float, wide: float, degrees: float, tone: Colour) -> Shape:
    turn = rotation(degrees).T
    outline = smooth(
        [
            (0.05, 0),
            (0.45 * length, -wide * 0.8),
            (0.82 * length, -wide * 0.75),
            (length, 0),
            (0.82 * length, wide * 0.75),
            (0.45 * length, wide * 0.8),
        ]
    )
    veins = tuple(
        Mark(polygon((0.2 * length, 0), (0.8 * length, y)) @ turn, darker(tone, 0.8), 0.016)
        for y in (-0.35 * wide, 0, 0.35 * wide)
    )
    return Shape(outline @ turn, tone, veins)


def _leaf(x: float, y: float, degrees: float, tone: Colour) -> Shape:
    turn = rotation(degrees).T
    side = 1 if degrees > 0 else -1
    outline = smooth([(0, 0.05), (0.18, -0.3), (0.12, -0.66), (0, -0.9), (-0.14, -0.66), (-0.18, -0.3)])
    vein = Mark(polygon((0, 0), (0, -0.8)) @ turn + (x, y), darker(tone, 1.35), 0.025)
    return Shape(outline @ turn + (x + side * 0.02, y), tone, (vein,))


def tree(dice: Dice) -> Subject:
    """A tree in leaf or in autumn, or a fir."""
    hue = dice.choose((0.0, 0.04, 0.08, 0.13, 0.26, 0.3, 0.36, 0.94))
    trunk = Shape(
        smooth(
            [
                (-0.11, 0.3),
                (-0.12, 0.9),
                (-0.26, 1.32),
                (0, 1.24),
                (0.27, 1.32),
                (0.13, 0.9),
                (0.11, 0.3),
                (0, 0.2),
            ]
        ),
        colour(0.07, 0.5, dice.number(0.36, 0.5)),
        tuple(Mark(polygon((x, 0.4), (x * 1.5, 1.25)), (62, 44, 32), 0.022) for x in (-0.07, -0.01, 0.06)),
    )
    crown = (
        _fir(dice, dice.number(0.34, 0.44)) if 0.25 < hue < 0.4 and dice.chance(0.5) else _leafage(dice, hue)
    )
    return Subject((trunk, *crown), hue, tilt=8)


def _fir(dice: Dice, hue: float) -> list[Shape]:
    tiers = []
    for level, y in enumerate((0.62, 0.22, -0.18, -0.58)):
        wide = 0.86 - 0.17 * level
        hem = [(x, y + 0.1 * (k % 2)) for k, x in enumerate(np.linspace(-wide, wide, 9))]
        outline = smooth([(0, y - 0.72), (-0.42 * wide, y - 0.3), *hem, (0.42 * wide, y - 0.3)], samples=6)
        tiers.append(Shape(outline, colour(hue, 0.6, 0.38 + 0.05 * level + dice.number(0, 0.05))))
    return tiers


def _leafage(dice: Dice, hue: float) -> list[Shape]:
    blobs = []
    ring = [
        (0.52 * np.cos(a) * 1.05, 0.46 * np.sin(a))
        for a in np.radians(np.arange(90, 450, 60) + dice.number(-20, 20))
    ]
    for order, (x, y) in enumerate([*ring, (0.0, 0.0), (-0.16, -0.26)]):
        size = dice.number(0.4, 0.5) if order < len(ring) else dice.number(0.34, 0.44)
        angles = np.radians(np.arange(0, 360, 20))
        lobes = size * np.array([1.0 + 0.12 * (-1) ** k + dice.number(-0.04, 0.04) for k in range(18)])
        outline = smooth(
            np.stack([x + lobes * np.cos(angles), y + lobes * np.sin(angles)], axis=1), samples=5
        )
        tone = colour(hue + dice.number(-0.02, 0.02), dice.number(0.62, 0.78), 0.58 + 0.03 * order)
        leaves = tuple(
            Mark(
                ellipse(
                    x + dice.number(-1, 1) * size,
                    y + dice.number(-1, 1) * size,
                    0.05,
                    0.03,
                    tilt=dice.number(0, 180),
                ),
                darker(tone, dice.choose((0.8, 1.22))),
            )
            for _ in range(26)
        )
        blobs.append(Shape(outline, tone, leaves))
    return blobs
