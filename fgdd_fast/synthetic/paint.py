"""Painting drawn objects: coverage, shading as if they bulged towards the light, contours and shadows."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from fgdd_fast.synthetic.shapes import Mark, Shape, Subject
from fgdd_fast.synthetic.tools import Bytes, Colour, Points, darker

_SHIFT = 4  # fractional bits of OpenCV's coordinates
_CONTOUR = 0.022  # width in object units

Corner: TypeAlias = tuple[float, float]
Tone: TypeAlias = Colour | int  # of a picture, or of a coverage
Planes: TypeAlias = npt.NDArray[np.uint16]


class Pose(NamedTuple):
    """Where an object stands, from its own units to pixels: turned (or mirrored), scaled, then moved."""

    turn: Points
    scale: float
    x: float
    y: float

    def pixels(self, points: Points) -> Points:
        """The points of the object as (x, y) in pixels, [n, 2]."""
        return points @ self.turn.T * self.scale + (self.x, self.y)


def silhouette(subject: Subject, pose: Pose, size: tuple[int, int]) -> Bytes:
    """How far the object covers each pixel, 0 to 255."""
    covered = np.zeros(size, np.uint8)
    for shape in subject.shapes:
        _stamp(covered, shape, pose, (0.0, 0.0))
    return covered


def cast_shadow(canvas: Bytes, covered: Bytes, light: Points, distance: float) -> None:
    """Darken the surface beside the object, away from the light, in place."""
    step = 4
    shift = np.rint(-light * distance).astype(int)
    height, width = covered.shape
    rows = np.clip(np.arange(0, height, step) - shift[1], 0, height - 1)
    columns = np.clip(np.arange(0, width, step) - shift[0], 0, width - 1)
    soft = cv2.GaussianBlur(covered[rows[:, None], columns[None]], (0, 0), distance * 0.7 / step)
    shadow = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    canvas[...] = scaled(canvas, 128 - shadow.astype(np.uint16) // 4)


def paint_shape(canvas: Bytes, shape: Shape, pose: Pose, light: Points, grain: npt.NDArray[np.int16]) -> None:
    """Paint a shape with its marks, contour and shading, in place.

    Args:
        canvas: uint8 RGB [height, width, 3].
        shape: what to paint.
        pose: where.
        light: the direction (x, y) from which light comes.
        grain: [height, width] unevenness of the paint, about -14 to 14 of 128.
    """
    points = pose.pixels(shape.points)
    margin = shape.line * pose.scale + 4
    left, top = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
    right, bottom = np.ceil(points.max(axis=0) + margin).astype(int)
    window = (slice(top, max(top, bottom)), slice(left, max(left, right)))
    part = canvas[window]
    if part.size == 0:
        return
    covered = np.zeros(part.shape[:2], np.uint8)
    _stamp(covered, shape, pose, (left, top))
    paint = np.empty_like(part)
    paint[:] = shape.colour
    for mark in shape.marks:
        _paint_mark(paint, mark, pose, (left, top))
    _paint_contour(paint, shape, pose, (left, top))
    thickness = shape.line * pose.scale or float(np.min(np.ptp(points, axis=0)))
    shade = (_relief(covered, thickness, light, shape.relief) + grain[window]).astype(np.uint16)
    gloss = np.maximum(shade, 156) - 156
    lit = np.minimum(scaled(paint, shade) + thrice(gloss), 255)
    alpha = thrice(covered.astype(np.uint16) + (covered >> 7))
    canvas[window] = (lit * alpha + part * (256 - alpha)) >> 8


def _stamp(canvas: Bytes, shape: Shape, pose: Pose, corner: Corner) -> None:
    """Add the shape and its contour to the coverage in `canvas`, whose top left is at `corner`."""
    if shape.line:
        contour = max(1, round(_CONTOUR * pose.scale))
        _trace(canvas, shape.points, 255, shape.line, pose, corner, widen=contour)
    else:
        _fill(canvas, shape.points, 255, pose, corner)
        _trace(canvas, _closed(shape.points), 255, _CONTOUR, pose, corner)


def _paint_mark(paint: Bytes, mark: Mark, pose: Pose, corner: Corner) -> None:
    if mark.line:
        _trace(paint, mark.points, mark.colour, mark.line, pose, corner)
    else:
        _fill(paint, mark.points, mark.colour, pose, corner)


def _paint_contour(paint: Bytes, shape: Shape, pose: Pose, corner: Corner) -> None:
    """Darken the shape's rim in its own hue."""
    rim = darker(shape.colour, 0.42)
    if shape.line:
        inner = np.zeros(paint.shape[:2], np.uint8)
        _trace(inner, shape.points, 255, shape.line, pose, corner)
        paint[inner < 128] = rim
    else:
        _trace(paint, _closed(shape.points), rim, _CONTOUR, pose, corner)


def _fill(canvas: Bytes, points: Points, tone: Tone, pose: Pose, corner: Corner) -> None:
    cv2.fillPoly(canvas, [_fixed(pose.pixels(points) - corner)], _scalar(tone), cv2.LINE_AA, _SHIFT)


def _trace(
    canvas: Bytes, points: Points, tone: Tone, width: float, pose: Pose, corner: Corner, *, widen: int = 0
) -> None:
    """Draw an open line of `width` object units and `widen` pixels more."""
    pixels = max(1, round(width * pose.scale)) + widen
    place = _fixed(pose.pixels(points) - corner)
    cv2.polylines(canvas, [place], False, _scalar(tone), pixels, cv2.LINE_AA, _SHIFT)


def _closed(points: Points) -> Points:
    return np.vstack([points, points[:1]])


def _fixed(points: Points) -> npt.NDArray[np.int32]:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _scalar(tone: Tone) -> tuple[int, ...]:
    return (tone,) if isinstance(tone, int) else tone


def _relief(covered: Bytes, thickness: float, light: Points, strength: float) -> npt.NDArray[np.int16]:
    """Light on a cushion of the shape's outline: 128 is neutral, and it stays within 50 to 206."""
    step = 4
    inside = covered[::step, ::step].astype(np.float64)
    reach = int(min(max(thickness * 0.16 / step, 1), 24))
    for _ in range(3):
        summed = cv2.boxFilter(inside, cv2.CV_64F, (2 * reach + 1, 2 * reach + 1), normalize=False)
        inside = np.asarray(summed, np.float64)
    inside /= 255.0 * (2 * reach + 1) ** 6
    padded = np.pad(inside, 1, mode="edge")
    slope_x = padded[1:-1, 2:] - padded[1:-1, :-2]
    slope_y = padded[2:, 1:-1] - padded[:-2, 1:-1]
    facing = -(slope_x * light[0] + slope_y * light[1]) * reach
    gain = 1.1 * facing + 0.16 * (inside - 0.8)
    coarse = np.clip(np.rint(gain * (128 * strength) + 128), 50, 206).astype(np.uint8)
    height, width = covered.shape
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR_EXACT), np.int16)


def scaled(pixels: Bytes, shade: Planes) -> Planes:
    """`pixels` times `shade` / 128, where `shade` [height, width] is at most 255; not clipped."""
    return np.asarray((pixels * thrice(shade)) >> 7, np.uint16)


def thrice(plane: Planes) -> Planes:
    """A value for each pixel as one for each channel; several times faster than broadcasting."""
    return np.asarray(cv2.merge([plane, plane, plane]), np.uint16)
