"""What a drawn object consists of: a stack of shapes around (0, 0), about two units wide, y downwards."""

from __future__ import annotations

from dataclasses import dataclass

from fgdd_fast.synthetic.tools import Colour, Points

WHITE: Colour = (244, 243, 238)
INK: Colour = (34, 32, 38)


@dataclass(frozen=True)
class Mark:
    """Paint on a shape, seen only inside it.

    Attributes:
        points: [n, 2] a closed outline, or an open line where `line` is above 0.
        colour: RGB.
        line: the line's width; 0 fills the outline.
    """

    points: Points
    colour: Colour
    line: float = 0.0


@dataclass(frozen=True)
class Shape:
    """A rounded body with a contour.

    Attributes:
        points: [n, 2] a closed outline, or an open line where `line` is above 0.
        colour: RGB.
        marks: painted on it in this order.
        line: the line's width; 0 fills the outline.
        relief: how far it bulges towards the viewer: 0 is flat.
    """

    points: Points
    colour: Colour
    marks: tuple[Mark, ...] = ()
    line: float = 0.0
    relief: float = 1.0


@dataclass(frozen=True)
class Subject:
    """What a picture shows.

    Attributes:
        shapes: from back to front.
        hue: its main hue (turns), which the background avoids.
        tilt: the most degrees that it may lean to either side.
    """

    shapes: tuple[Shape, ...]
    hue: float
    tilt: float
