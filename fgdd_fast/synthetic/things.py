"""Made things to draw: a car, a house, a mug, an umbrella."""

from __future__ import annotations

import numpy as np

from fgdd_fast.synthetic.shapes import INK, WHITE, Mark, Shape, Subject
from fgdd_fast.synthetic.tools import Colour, Dice, colour, darker, ellipse, polygon, smooth


def car(dice: Dice) -> Subject:
    """A car from its side."""
    hue = dice.choose((0.0, 0.02, 0.12, 0.36, 0.55, 0.62, 0.78))
    paint = colour(hue, dice.number(0.7, 0.9), dice.number(0.75, 0.95))
    roof, nose = dice.number(-0.62, -0.5), dice.number(0.98, 1.12)
    body = smooth(
        [
            (-1.12, 0.26),
            (-1.12, -0.02),
            (-0.86, -0.14),
            (-0.6, roof + 0.06),
            (-0.2, roof),
            (0.2, roof + 0.04),
            (0.56, -0.16),
            (nose - 0.08, -0.06),
            (nose, 0.14),
            (nose - 0.02, 0.28),
            (0.4, 0.33),
            (-0.6, 0.33),
        ]
    )
    glass = colour(0.55, 0.22, dice.number(0.8, 0.95))
    top = roof + 0.1
    arches = [Mark(ellipse(x, 0.3, 0.31, 0.31), darker(paint, 0.35)) for x in (-0.62, 0.6)]
    windows = [
        Mark(smooth([(-0.7, -0.13), (-0.55, top + 0.02), (-0.2, top - 0.02), (-0.16, -0.13)]), glass),
        Mark(smooth([(-0.06, -0.13), (-0.06, top - 0.02), (0.18, top + 0.02), (0.43, -0.13)]), glass),
        Mark(polygon((-0.52, -0.14), (-0.36, top), (-0.28, top), (-0.44, -0.14)), WHITE),
        Mark(polygon((0.02, -0.14), (0.1, top), (0.15, top), (0.07, -0.14)), WHITE),
    ]
    details = [
        Mark(polygon((-1.2, 0.24), (1.2, 0.24), (1.2, 0.4), (-1.2, 0.4)), darker(paint, 0.55)),
        Mark(polygon((-0.11, -0.12), (-0.09, 0.26)), darker(paint, 0.5), 0.018),
        Mark(polygon((-1.1, 0.06), (1.0, 0.06)), darker(paint, 1.25), 0.022),
        Mark(polygon((-0.3, 0.0), (-0.18, 0.0)), WHITE, 0.035),
        Mark(polygon((0.28, 0.0), (0.4, 0.0)), WHITE, 0.035),
        Mark(ellipse(nose - 0.05, 0.07, 0.09, 0.07), colour(0.14, 0.35, 1)),
        Mark(ellipse(-1.1, 0.06, 0.06, 0.08), colour(0.0, 0.85, 0.85)),
    ]
    rim = dice.choose((WHITE, colour(0.6, 0.06, 0.78), colour(0.13, 0.3, 0.85)))
    wheels = [shape for x in (-0.62, 0.6) for shape in _wheel(x, 0.33, rim)]
    return Subject((Shape(body, paint, (*details, *windows, *arches)), *wheels), hue, tilt=9)


def _wheel(x: float, y: float, rim: Colour) -> tuple[Shape, ...]:
    spokes = tuple(
        Mark(
            np.array([[x, y], [x, y]]) + 0.16 * np.array([[0, 0], [np.cos(a), np.sin(a)]]),
            darker(rim, 0.6),
            0.03,
        )
        for a in np.radians(np.arange(0, 360, 60))
    )
    tyre = Shape(ellipse(x, y, 0.245, 0.245), (52, 50, 56), relief=0.6)
    return (
        tyre,
        Shape(ellipse(x, y, 0.14, 0.14), rim, spokes, relief=0.6),
        Shape(ellipse(x, y, 0.04, 0.04), INK),
    )


def house(dice: Dice) -> Subject:
    """A house from a corner."""
    hue = dice.choose((0.0, 0.1, 0.14, 0.55, 0.6, 0.95))
    wall = colour(hue, dice.number(0.3, 0.6), dice.number(0.85, 0.98))
    roof = colour(dice.choose((0.0, 0.03, 0.62, 0.45)), 0.65, dice.number(0.45, 0.7))
    ridge = dice.number(-0.9, -0.75)
    front = polygon((-0.95, 0.8), (-0.95, -0.12), (-0.45, ridge), (0.05, -0.12), (0.05, 0.8))
    side = polygon((0.05, 0.8), (0.05, -0.12), (1.0, -0.2), (1.0, 0.62))
    slope = polygon((-0.48, ridge - 0.04), (0.56, ridge - 0.1), (1.12, -0.14), (0.1, -0.02))
    eaves = polygon((-1.05, -0.02), (-0.46, ridge - 0.02), (0.1, -0.02))
    rows = tuple(
        Mark(
            polygon((-0.48 + 0.58 * t, ridge + (-ridge) * t), (0.56 + 0.56 * t, ridge - 0.08 + (-ridge) * t)),
            darker(roof, 0.72),
            0.02,
        )
        for t in np.arange(0.12, 1, 0.14)
    )
    boards = tuple(
        Mark(polygon((-1, y), (0.1, y)), darker(wall, 0.86), 0.012) for y in np.arange(-0.6, 0.8, 0.1)
    )
    door = colour(dice.choose((0.05, 0.35, 0.6)), 0.6, 0.5)
    front_marks = (
        *boards,
        Mark(ellipse(-0.45, -0.28, 0.13, 0.13), WHITE),
        Mark(ellipse(-0.45, -0.28, 0.09, 0.09), (96, 134, 168)),
    )
    entry = Shape(
        polygon((-0.58, 0.8), (-0.58, 0.26), (-0.32, 0.26), (-0.32, 0.8)),
        door,
        (Mark(ellipse(-0.37, 0.54, 0.025, 0.025), WHITE),),
        relief=0.4,
    )
    panes = [
        _window(x, 0.2, 0.2, 0.26, lean)
        for x, lean in ((-0.88, 0.0), (-0.22, 0.0), (0.22, -0.05), (0.64, -0.07))
    ]
    chimney = Shape(
        polygon((0.46, -0.5), (0.46, ridge - 0.3), (0.66, ridge - 0.32), (0.66, -0.5)),
        darker(roof, 0.85),
        relief=0.5,
    )
    shapes = (
        chimney,
        Shape(side, darker(wall, 0.78), relief=0.5),
        Shape(front, wall, front_marks, relief=0.5),
    )
    return Subject(
        (*shapes, Shape(slope, roof, rows, relief=0.6), Shape(eaves, roof, line=0.09), entry, *panes),
        hue,
        tilt=5,
    )


def _window(x: float, y: float, width: float, height: float, lean: float) -> Shape:
    right = x + width
    frame = polygon((x, y), (right, y + lean), (right, y + height + lean * 0.6), (x, y + height))
    bars = (
        Mark(polygon((x + width / 2, y - 0.1), (x + width / 2, y + height)), WHITE, 0.03),
        Mark(polygon((x, y + height / 2), (right, y + height / 2 + lean * 0.8)), WHITE, 0.03),
        Mark(np.vstack([frame, frame[:1]]), WHITE, 0.05),
    )
    return Shape(frame, (112, 152, 186), bars, relief=0.2)


def mug(dice: Dice) -> Subject:
    """A mug with its drink."""
    hue = dice.choose((0.0, 0.04, 0.13, 0.4, 0.5, 0.58, 0.75, 0.93))
    glaze = colour(hue, dice.number(0.55, 0.85), dice.number(0.7, 0.95))
    top, bottom, tall = dice.number(0.62, 0.76), dice.number(0.48, 0.7), dice.number(0.6, 0.82)
    body = np.vstack([ellipse(0, -tall, top, 0.17, 180, 360), ellipse(0, tall, bottom, 0.15, 0, 180)])
    handle = ellipse((top + bottom) / 2 - 0.02, -0.04, 0.4, 0.62 * tall, -82, 82)
    trim = dice.choose((WHITE, darker(glaze, 0.55), colour(hue + 0.5, 0.55, 0.85)))
    marks = dice.choose((_mug_bands, _mug_dots, _mug_heart))(dice, trim)
    drink = colour(dice.choose((0.06, 0.07, 0.1)), 0.7, dice.number(0.3, 0.5))
    inside = Shape(
        ellipse(0, -tall, top * 0.9, 0.132),
        darker(glaze, 0.6),
        (
            Mark(ellipse(0, -tall + 0.06, top * 0.86, 0.12), drink),
            Mark(ellipse(0, -tall + 0.06, top * 0.6, 0.07, 190, 270), darker(drink, 1.7), 0.025),
        ),
        relief=0.2,
    )
    rim = Shape(ellipse(0, -tall, top, 0.17), darker(glaze, 1.12), relief=0.3)
    return Subject((Shape(handle, glaze, line=0.17), Shape(body, glaze, marks), rim, inside), hue, tilt=14)


def _mug_bands(dice: Dice, trim: Colour) -> tuple[Mark, ...]:
    return tuple(
        Mark(ellipse(0, y, 0.8, 0.16, 0, 180), trim, dice.number(0.05, 0.14)) for y in (-0.3, 0.0, 0.3)
    )


def _mug_dots(dice: Dice, trim: Colour) -> tuple[Mark, ...]:
    size = dice.number(0.055, 0.085)
    places = [
        (x + 0.12 * (row % 2), y + 0.12 * (1 - x * x))
        for row, y in enumerate((-0.42, -0.18, 0.06, 0.3, 0.54))
        for x in (-0.66, -0.42, -0.18, 0.06, 0.3, 0.54)
    ]
    return tuple(Mark(ellipse(x, y, size, size), trim) for x, y in places)


def _mug_heart(dice: Dice, trim: Colour) -> tuple[Mark, ...]:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return (Mark(np.stack([x, y], axis=1) * dice.number(0.017, 0.024) + (0, 0.08), trim),)


def umbrella(dice: Dice) -> Subject:
    """An open umbrella from its side."""
    hue = dice.choose((0.0, 0.1, 0.15, 0.4, 0.52, 0.6, 0.8, 0.92))
    cloth = colour(hue, dice.number(0.65, 0.9), dice.number(0.75, 0.95))
    other = dice.choose((darker(cloth, 1.3), colour(hue + 0.07, 0.75, 0.95), darker(cloth, 0.72)))
    rise, foot, count = dice.number(0.8, 1.0), 0.32, dice.choose((5, 6, 7))
    hem_x = -np.cos(np.linspace(0, np.pi, count + 1)) * 1.08
    hem = [
        ellipse((a + b) / 2, foot, (b - a) / 2, 0.1, 360, 180)
        for a, b in zip(hem_x[::-1][1:], hem_x[::-1][:-1], strict=True)
    ]
    dome = np.vstack([ellipse(0, foot, 1.08, rise, 180, 360), *hem])
    t = np.linspace(0, np.pi / 2, 14)
    ribs = [np.stack([x * np.sin(t), foot - rise * np.cos(t)], axis=1) for x in hem_x]
    panels = [Mark(np.vstack([ribs[k], ribs[k + 1][::-1]]), other) for k in range(1, count, 2)]
    folds = [Mark(rib, darker(cloth, 0.55), 0.018) for rib in ribs[1:-1]]
    wood = colour(0.07, 0.55, dice.number(0.4, 0.6))
    hook = ellipse(0.15, 1.42, 0.15, 0.16, 180, 0)
    shapes = (
        Shape(polygon((0, foot - rise - 0.13), (0, foot)), INK, line=0.05),
        Shape(polygon((0, 0), (0, 1.2)), (120, 120, 130), line=0.05),
        Shape(np.vstack([polygon((0, 1.15)), hook]), wood, line=0.1),
        Shape(dome, cloth, (*panels, *folds)),
    )
    return Subject(shapes, hue, tilt=26)
