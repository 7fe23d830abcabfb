"""What drawn pictures show: a car, a fish, a flower, a house, a mug, a tree, an umbrella."""

from __future__ import annotations

import numpy as np

from fgdd_fast.synthetic.paint import closed
from fgdd_fast.synthetic.tools import (
    Colour,
    Dice,
    Mark,
    Shape,
    Subject,
    colour,
    darker,
    ellipse,
    polygon,
    rotation,
    smooth,
    steps,
)

_WHITE: Colour = (244, 243, 238)
_INK: Colour = (34, 32, 38)


def car(dice: Dice) -> Subject:
    """Return a car from its side."""
    hue = dice.choose((0.0, 0.02, 0.12, 0.36, 0.55, 0.62, 0.78))
    paint = colour(hue, dice.number(0.7, 0.9), dice.number(0.75, 0.95))
    roof, nose = dice.number(-0.62, -0.5), dice.number(0.98, 1.12)
    body = smooth(
        (-1.12, 0.26), (-1.12, -0.02), (-0.86, -0.14), (-0.6, roof + 0.06), (-0.2, roof), (0.2, roof + 0.04),
        (0.56, -0.16), (nose - 0.08, -0.06), (nose, 0.14), (nose - 0.02, 0.28), (0.4, 0.33), (-0.6, 0.33),
    )  # fmt: skip
    glass = colour(0.55, 0.22, dice.number(0.8, 0.95))
    top = roof + 0.1
    marks = (
        Mark(polygon((-1.2, 0.24), (1.2, 0.24), (1.2, 0.4), (-1.2, 0.4)), darker(paint, 0.55)),
        Mark(polygon((-0.11, -0.12), (-0.09, 0.26)), darker(paint, 0.5), 0.018),
        Mark(polygon((-1.1, 0.06), (1.0, 0.06)), darker(paint, 1.25), 0.022),
        Mark(polygon((-0.3, 0.0), (-0.18, 0.0)), _WHITE, 0.035),
        Mark(polygon((0.28, 0.0), (0.4, 0.0)), _WHITE, 0.035),
        Mark(ellipse(nose - 0.05, 0.07, 0.09, 0.07), colour(0.14, 0.35, 1)),
        Mark(ellipse(-1.1, 0.06, 0.06, 0.08), colour(0.0, 0.85, 0.85)),
        Mark(smooth((-0.7, -0.13), (-0.55, top + 0.02), (-0.2, top - 0.02), (-0.16, -0.13)), glass),
        Mark(smooth((-0.06, -0.13), (-0.06, top - 0.02), (0.18, top + 0.02), (0.43, -0.13)), glass),
        Mark(polygon((-0.52, -0.14), (-0.36, top), (-0.28, top), (-0.44, -0.14)), _WHITE),
        Mark(polygon((0.02, -0.14), (0.1, top), (0.15, top), (0.07, -0.14)), _WHITE),
        Mark(ellipse(-0.62, 0.3, 0.31, 0.31), darker(paint, 0.35)),
        Mark(ellipse(0.6, 0.3, 0.31, 0.31), darker(paint, 0.35)),
    )
    rim = dice.choose((_WHITE, colour(0.6, 0.06, 0.78), colour(0.13, 0.3, 0.85)))
    return Subject((Shape(body, paint, marks), *_wheel(-0.62, rim), *_wheel(0.6, rim)), hue, tilt=9)


def _wheel(x: float, rim: Colour) -> list[Shape]:
    hub, y = np.array([x, 0.33]), 0.33
    ends = [hub + 0.16 * np.array([np.cos(a), np.sin(a)]) for a in np.radians(np.arange(0, 360, 60))]
    spokes = [Mark(np.stack([hub, end]), darker(rim, 0.6), 0.03) for end in ends]
    return [
        Shape(ellipse(x, y, 0.245, 0.245), (52, 50, 56), relief=0.6),
        Shape(ellipse(x, y, 0.14, 0.14), rim, spokes, relief=0.6),
        Shape(ellipse(x, y, 0.04, 0.04), _INK),
    ]


def fish(dice: Dice) -> Subject:
    """Return a fish from its side."""
    hue = dice.choose((0.0, 0.05, 0.09, 0.14, 0.5, 0.6, 0.83, 0.92))
    skin = colour(hue, dice.number(0.65, 0.9), dice.number(0.8, 0.98))
    fin = colour(hue + dice.choose((-0.06, 0.06, 0.1)), 0.75, dice.number(0.7, 0.95))
    belly, tall = dice.number(0.38, 0.56), dice.number(0.4, 0.56)
    body = smooth(
        (-1.0, 0.04), (-0.78, -0.6 * tall), (-0.3, -tall), (0.2, -0.85 * tall), (0.6, -0.16), (0.8, -0.08),
        (0.8, 0.1), (0.6, 0.17), (0.2, 0.85 * belly), (-0.3, belly), (-0.78, 0.6 * belly),
    )  # fmt: skip
    tail = smooth(
        (0.68, 0),
        (0.98, -0.34),
        (1.24, -0.5),
        (1.14, -0.2),
        (1.08, 0),
        (1.14, 0.22),
        (1.24, 0.5),
        (0.98, 0.34),
    )
    back_fin = smooth(
        (-0.5, -0.7 * tall), (-0.3, -tall - 0.2), (0.0, -tall - 0.24), (0.36, -tall - 0.06), (0.46, -0.18),
        (0, -0.2),
    )  # fmt: skip
    low_fin = smooth((0.0, 0.2), (0.42, 0.16), (0.36, belly + 0.12), (0.2, belly + 0.16), (0.02, belly * 0.9))
    side_fin = smooth((-0.34, 0.04), (-0.02, -0.06), (0.1, 0.1), (-0.02, 0.24), (-0.2, 0.2))
    ray = darker(fin, 0.72)
    rays = [Mark(polygon((0.7, 0), (1.3, y)), ray, 0.02) for y in (-0.42, -0.22, 0, 0.22, 0.42)]
    back_rays = [Mark(polygon((x, 0), (x + 0.12, -1)), ray, 0.018) for x in steps(-0.4, 0.4, 0.13)]
    face = (
        Mark(ellipse(-0.1, 0.62, 1.1, 0.42), darker(skin, 1.35)),
        *(_bands(dice, fin) if dice.chance(0.5) else _scales(skin)),
        Mark(ellipse(-0.72, 0.02, 0.24, 0.42, -62, 62), darker(skin, 0.55), 0.035),
        Mark(smooth((-1.04, 0.08), (-0.9, 0.12), (-0.86, 0.1), (-0.9, 0.15)), darker(skin, 0.4)),
    )
    eye_y = -0.12 * tall / 0.45
    glint = Mark(ellipse(-0.775, eye_y - 0.02, 0.02, 0.02), _WHITE)
    shapes = (
        Shape(tail, fin, rays),
        Shape(back_fin, fin, back_rays),
        Shape(low_fin, fin),
        Shape(body, skin, face),
        Shape(side_fin, fin),
        Shape(ellipse(-0.74, eye_y, 0.105, 0.105), _WHITE, relief=0.4),
        Shape(ellipse(-0.755, eye_y, 0.055, 0.055), _INK, (glint,)),
    )
    return Subject(shapes, hue, tilt=24)


def _bands(dice: Dice, fin: Colour) -> list[Mark]:
    tone = dice.choose((_WHITE, _INK, fin))
    wide = dice.number(0.07, 0.12)
    return [Mark(ellipse(x - 0.3, 0, 0.3, 0.9, -60, 60), tone, wide) for x in (-0.3, 0.08, 0.44)]


def _scales(skin: Colour) -> list[Mark]:
    return [
        Mark(ellipse(x + 0.065 * (row % 2), y, 0.075, 0.075, -70, 70), darker(skin, 0.72), 0.016)
        for row, y in enumerate(steps(-0.5, 0.5, 0.11))
        for x in steps(-0.4, 0.7, 0.13)
    ]


def flower(dice: Dice) -> Subject:
    """Return a blossom on a stem with two leaves."""
    hue = dice.choose((0.0, 0.04, 0.13, 0.58, 0.72, 0.82, 0.92))
    petal = colour(hue, dice.number(0.55, 0.85), dice.number(0.85, 1.0))
    count, wide = dice.whole(6, 9), dice.number(0.62, 0.74)
    leaf = colour(dice.number(0.27, 0.36), 0.62, dice.number(0.45, 0.62))
    bend = dice.number(-0.25, 0.25)
    stem = smooth((0, 0), (bend, 0.8), (0.1, 1.75), (bend, 0.8))[:20]
    leaves = [_leaf(bend * 0.8, 1.25, side * dice.number(28, 48), leaf) for side in (-1, 1)]
    rings = [(1.0, petal)] + ([(0.68, darker(petal, 1.18))] if dice.chance(0.6) else [])
    turn = dice.number(0, 360)
    petals = [
        _petal(size, 2.6 * size * wide / count, turn + 360 * k / count + (180 / count) * (size < 1), tone)
        for size, tone in rings
        for k in range(count)
    ]
    heart = colour(0.12, 0.75, 0.9) if abs(hue - 0.13) > 0.05 else colour(0.07, 0.7, 0.42)
    seeds = [
        Mark(ellipse(r * np.cos(a), r * np.sin(a), 0.022, 0.022), darker(heart, 0.66))
        for r in (0.05, 0.11, 0.17)
        for a in np.arange(0, 6.28, 0.055 / r)
    ]
    blossom = Shape(ellipse(0, 0, 0.24, 0.24), heart, seeds)
    return Subject((Shape(stem, darker(leaf, 0.9), line=0.1), *leaves, *petals, blossom), hue, tilt=28)


def _petal(length: float, wide: float, degrees: float, tone: Colour) -> Shape:
    turn = rotation(degrees).T
    outline = smooth(
        (0.05, 0), (0.45 * length, -wide * 0.8), (0.82 * length, -wide * 0.75), (length, 0),
        (0.82 * length, wide * 0.75), (0.45 * length, wide * 0.8),
    )  # fmt: skip
    tips = (-0.35 * wide, 0, 0.35 * wide)
    veins = [
        Mark(polygon((0.2 * length, 0), (0.8 * length, y)) @ turn, darker(tone, 0.8), 0.016) for y in tips
    ]
    return Shape(outline @ turn, tone, veins)


def _leaf(x: float, y: float, degrees: float, tone: Colour) -> Shape:
    turn = rotation(degrees).T
    side = 1 if degrees > 0 else -1
    outline = smooth((0, 0.05), (0.18, -0.3), (0.12, -0.66), (0, -0.9), (-0.14, -0.66), (-0.18, -0.3))
    vein = Mark(polygon((0, 0), (0, -0.8)) @ turn + (x, y), darker(tone, 1.35), 0.025)
    return Shape(outline @ turn + (x + side * 0.02, y), tone, (vein,))


def house(dice: Dice) -> Subject:
    """Return a house from a corner."""
    hue = dice.choose((0.0, 0.1, 0.14, 0.55, 0.6, 0.95))
    wall = colour(hue, dice.number(0.3, 0.6), dice.number(0.85, 0.98))
    roof = colour(dice.choose((0.0, 0.03, 0.62, 0.45)), 0.65, dice.number(0.45, 0.7))
    ridge = dice.number(-0.9, -0.75)
    front = polygon((-0.95, 0.8), (-0.95, -0.12), (-0.45, ridge), (0.05, -0.12), (0.05, 0.8))
    side = polygon((0.05, 0.8), (0.05, -0.12), (1.0, -0.2), (1.0, 0.62))
    slope = polygon((-0.48, ridge - 0.04), (0.56, ridge - 0.1), (1.12, -0.14), (0.1, -0.02))
    eaves = polygon((-1.05, -0.02), (-0.46, ridge - 0.02), (0.1, -0.02))
    rows = [
        polygon((-0.48 + 0.58 * t, ridge + (-ridge) * t), (0.56 + 0.56 * t, ridge - 0.08 + (-ridge) * t))
        for t in steps(0.12, 1, 0.14)
    ]
    boards = [polygon((-1, y), (0.1, y)) for y in steps(-0.6, 0.8, 0.1)]
    front_marks = (
        *(Mark(board, darker(wall, 0.86), 0.012) for board in boards),
        Mark(ellipse(-0.45, -0.28, 0.13, 0.13), _WHITE),
        Mark(ellipse(-0.45, -0.28, 0.09, 0.09), (96, 134, 168)),
    )
    entry = polygon((-0.58, 0.8), (-0.58, 0.26), (-0.32, 0.26), (-0.32, 0.8))
    door = colour(dice.choose((0.05, 0.35, 0.6)), 0.6, 0.5)
    knob = Mark(ellipse(-0.37, 0.54, 0.025, 0.025), _WHITE)
    chimney = polygon((0.46, -0.5), (0.46, ridge - 0.3), (0.66, ridge - 0.32), (0.66, -0.5))
    shapes = (
        Shape(chimney, darker(roof, 0.85), relief=0.5),
        Shape(side, darker(wall, 0.78), relief=0.5),
        Shape(front, wall, front_marks, relief=0.5),
        Shape(slope, roof, [Mark(row, darker(roof, 0.72), 0.02) for row in rows], relief=0.6),
        Shape(eaves, roof, line=0.09),
        Shape(entry, door, (knob,), relief=0.4),
        *(_window(x, lean) for x, lean in ((-0.88, 0.0), (-0.22, 0.0), (0.22, -0.05), (0.64, -0.07))),
    )
    return Subject(shapes, hue, tilt=5)


def _window(x: float, lean: float) -> Shape:
    y, width, height = 0.2, 0.2, 0.26
    right = x + width
    frame = polygon((x, y), (right, y + lean), (right, y + height + lean * 0.6), (x, y + height))
    bars = (
        Mark(polygon((x + width / 2, y - 0.1), (x + width / 2, y + height)), _WHITE, 0.03),
        Mark(polygon((x, y + height / 2), (right, y + height / 2 + lean * 0.8)), _WHITE, 0.03),
        Mark(closed(frame), _WHITE, 0.05),
    )
    return Shape(frame, (112, 152, 186), bars, relief=0.2)


def mug(dice: Dice) -> Subject:
    """Return a mug with its drink."""
    hue = dice.choose((0.0, 0.04, 0.13, 0.4, 0.5, 0.58, 0.75, 0.93))
    glaze = colour(hue, dice.number(0.55, 0.85), dice.number(0.7, 0.95))
    top, bottom, tall = dice.number(0.62, 0.76), dice.number(0.48, 0.7), dice.number(0.6, 0.82)
    body = np.vstack([ellipse(0, -tall, top, 0.17, 180, 360), ellipse(0, tall, bottom, 0.15, 0, 180)])
    handle = ellipse((top + bottom) / 2 - 0.02, -0.04, 0.4, 0.62 * tall, -82, 82)
    trim = dice.choose((_WHITE, darker(glaze, 0.55), colour(hue + 0.5, 0.55, 0.85)))
    pattern = dice.choose((_mug_bands, _mug_dots, _mug_heart))(dice, trim)
    drink = colour(dice.choose((0.06, 0.07, 0.1)), 0.7, dice.number(0.3, 0.5))
    surface = (
        Mark(ellipse(0, -tall + 0.06, top * 0.86, 0.12), drink),
        Mark(ellipse(0, -tall + 0.06, top * 0.6, 0.07, 190, 270), darker(drink, 1.7), 0.025),
    )
    shapes = (
        Shape(handle, glaze, line=0.17),
        Shape(body, glaze, pattern),
        Shape(ellipse(0, -tall, top, 0.17), darker(glaze, 1.12), relief=0.3),
        Shape(ellipse(0, -tall, top * 0.9, 0.132), darker(glaze, 0.6), surface, relief=0.2),
    )
    return Subject(shapes, hue, tilt=14)


def _mug_bands(dice: Dice, trim: Colour) -> list[Mark]:
    return [Mark(ellipse(0, y, 0.8, 0.16, 0, 180), trim, dice.number(0.05, 0.14)) for y in (-0.3, 0.0, 0.3)]


def _mug_dots(dice: Dice, trim: Colour) -> list[Mark]:
    size = dice.number(0.055, 0.085)
    return [
        Mark(ellipse(x + 0.12 * (row % 2), y + 0.12 * (1 - x * x), size, size), trim)
        for row, y in enumerate((-0.42, -0.18, 0.06, 0.3, 0.54))
        for x in (-0.66, -0.42, -0.18, 0.06, 0.3, 0.54)
    ]


def _mug_heart(dice: Dice, trim: Colour) -> list[Mark]:
    t = np.linspace(0, 2 * np.pi, 60)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    heart = np.stack([16 * np.sin(t) ** 3, y], axis=1)
    return [Mark(heart * dice.number(0.017, 0.024) + (0, 0.08), trim)]


def tree(dice: Dice) -> Subject:
    """Return a tree in leaf or in autumn, or a fir."""
    hue = dice.choose((0.0, 0.04, 0.08, 0.13, 0.26, 0.3, 0.36, 0.94))
    trunk = smooth(
        (-0.11, 0.3), (-0.12, 0.9), (-0.26, 1.32), (0, 1.24), (0.27, 1.32), (0.13, 0.9), (0.11, 0.3), (0, 0.2)
    )
    bark = [Mark(polygon((x, 0.4), (x * 1.5, 1.25)), (62, 44, 32), 0.022) for x in (-0.07, -0.01, 0.06)]
    wood = Shape(trunk, colour(0.07, 0.5, dice.number(0.36, 0.5)), bark)
    is_fir = 0.25 < hue < 0.4 and dice.chance(0.5)
    crown = _fir(dice, dice.number(0.34, 0.44)) if is_fir else _leafage(dice, hue)
    return Subject((wood, *crown), hue, tilt=8)


def _fir(dice: Dice, hue: float) -> list[Shape]:
    tiers = []
    for level, y in enumerate((0.62, 0.22, -0.18, -0.58)):
        wide = 0.86 - 0.17 * level
        hem = [(x, y + 0.1 * (k % 2)) for k, x in enumerate(np.linspace(-wide, wide, 9))]
        outline = smooth((0, y - 0.72), (-0.42 * wide, y - 0.3), *hem, (0.42 * wide, y - 0.3), samples=6)
        tiers.append(Shape(outline, colour(hue, 0.6, 0.38 + 0.05 * level + dice.number(0, 0.05))))
    return tiers


def _leafage(dice: Dice, hue: float) -> list[Shape]:
    around = np.radians(np.arange(90, 450, 60) + dice.number(-20, 20))
    ring = [(0.52 * np.cos(a) * 1.05, 0.46 * np.sin(a)) for a in around]
    blobs = []
    for order, (x, y) in enumerate([*ring, (0.0, 0.0), (-0.16, -0.26)]):
        size = dice.number(0.4, 0.5) if order < len(ring) else dice.number(0.34, 0.44)
        angles = np.radians(np.arange(0, 360, 20))
        lobes = size * np.array([1.0 + 0.12 * (-1) ** k + dice.number(-0.04, 0.04) for k in range(18)])
        outline = np.stack([x + lobes * np.cos(angles), y + lobes * np.sin(angles)], axis=1)
        tone = colour(hue + dice.number(-0.02, 0.02), dice.number(0.62, 0.78), 0.58 + 0.03 * order)
        leaves = []
        for _ in range(26):
            leaf_x, leaf_y = x + dice.number(-1, 1) * size, y + dice.number(-1, 1) * size
            leaf = ellipse(leaf_x, leaf_y, 0.05, 0.03, tilt=dice.number(0, 180))
            leaves.append(Mark(leaf, darker(tone, dice.choose((0.8, 1.22)))))
        blobs.append(Shape(smooth(*outline, samples=5), tone, leaves))
    return blobs


def umbrella(dice: Dice) -> Subject:
    """Return an open umbrella from its side."""
    hue = dice.choose((0.0, 0.1, 0.15, 0.4, 0.52, 0.6, 0.8, 0.92))
    cloth = colour(hue, dice.number(0.65, 0.9), dice.number(0.75, 0.95))
    other = dice.choose((darker(cloth, 1.3), colour(hue + 0.07, 0.75, 0.95), darker(cloth, 0.72)))
    rise, foot, count = dice.number(0.8, 1.0), 0.32, dice.choose((5, 6, 7))
    hem_x = -np.cos(np.linspace(0, np.pi, count + 1)) * 1.08
    ends = zip(hem_x[::-1][1:], hem_x[::-1][:-1], strict=True)
    hem = [ellipse((a + b) / 2, foot, (b - a) / 2, 0.1, 360, 180) for a, b in ends]
    dome = np.vstack([ellipse(0, foot, 1.08, rise, 180, 360), *hem])
    t = np.linspace(0, np.pi / 2, 14)
    ribs = [np.stack([x * np.sin(t), foot - rise * np.cos(t)], axis=1) for x in hem_x]
    panels = [Mark(np.vstack([ribs[k], ribs[k + 1][::-1]]), other) for k in range(1, count, 2)]
    folds = [Mark(rib, darker(cloth, 0.55), 0.018) for rib in ribs[1:-1]]
    stick = np.vstack([polygon((0, 1.15)), ellipse(0.15, 1.42, 0.15, 0.16, 180, 0)])
    shapes = (
        Shape(polygon((0, foot - rise - 0.13), (0, foot)), _INK, line=0.05),
        Shape(polygon((0, 0), (0, 1.2)), (120, 120, 130), line=0.05),
        Shape(stick, colour(0.07, 0.55, dice.number(0.4, 0.6)), line=0.1),
        Shape(dome, cloth, (*panels, *folds)),
    )
    return Subject(shapes, hue, tilt=26)
