"""Painting drawn objects: coverage, shading as if they bulged towards the light, contours and shadows."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from fgdd_fast.synthetic.tools import Bytes, Points, Shape, Subject, darker, draw_points

_CONTOUR = 0.022  # width in object units
_COVERED = (255,)

Planes: TypeAlias = npt.NDArray[np.uint16]


class Pose(NamedTuple):
    """Where an object stands, from its own units to pixels: turned (or mirrored), scaled, then moved.

    Pixels are counted from (`left`, `top`) of the picture.
    """

    turn: Points
    scale: float
    x: float
    y: float
    left: int = 0
    top: int = 0

    def pixels(self, points: Points) -> Points:
        """Return the object's points as (x, y) in pixels, [n, 2]."""
        return points @ self.turn.T * self.scale + (self.x, self.y) - (self.left, self.top)

    def draw(self, canvas: Bytes, points: Points, tone: tuple[int, ...], line: float, widen: int = 0) -> None:
        """Fill the object's points, or draw a line of a width in object units, `widen` pixels wider."""
        width = max(1, round(line * self.scale)) + widen if line else 0
        draw_points(canvas, self.pixels(points), tone, width)

    def cover(self, canvas: Bytes, shape: Shape) -> None:
        """Add the shape and its contour to the coverage in `canvas`."""
        self.draw(canvas, shape.points, _COVERED, shape.line, max(1, round(_CONTOUR * self.scale)))
        if not shape.line:
            self.draw(canvas, closed(shape.points), _COVERED, _CONTOUR)


def silhouette(subject: Subject, pose: Pose, size: tuple[int, int]) -> Bytes:
    """Return how far the object covers each pixel, 0 to 255, [height, width] of `size`."""
    covered = np.zeros(size, np.uint8)
    for shape in subject.shapes:
        pose.cover(covered, shape)
    return covered


def cast_shadow(canvas: Bytes, covered: Bytes, light: Points, distance: float) -> None:
    """Darken the surface beside the object, `distance` pixels away from the light, in place."""
    step = 4
    shift = np.rint(-light * distance).astype(int)
    height, width = covered.shape
    rows = np.clip(np.arange(0, height, step) - shift[1], 0, height - 1)
    columns = np.clip(np.arange(0, width, step) - shift[0], 0, width - 1)
    soft = cv2.GaussianBlur(covered[rows[:, None], columns[None]], (0, 0), distance * 0.7 / step)
    shadow = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    canvas[...] = scaled(canvas, 128 - shadow.astype(np.uint16) // 4)


def paint_shape(canvas: Bytes, shape: Shape, pose: Pose, light: Points, grain: npt.NDArray[np.int16]) -> None:
    """Paint a shape with its marks, contour and shading on RGB, in place.

    Light comes from the direction (x, y); `grain` [height, width] is the paint's unevenness, about -14 to 14
    of 128.
    """
    points = pose.pixels(shape.points)
    margin = shape.line * pose.scale + 4
    left, top = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
    right, bottom = np.ceil(points.max(axis=0) + margin).astype(int)
    window = (slice(top, max(top, bottom)), slice(left, max(left, right)))
    part = canvas[window]
    if part.size == 0:
        return
    pose = pose._replace(left=left, top=top)
    covered = np.zeros(part.shape[:2], np.uint8)
    pose.cover(covered, shape)
    paint = np.empty_like(part)
    paint[:] = shape.colour
    for mark in shape.marks:
        pose.draw(paint, mark.points, mark.colour, mark.line)
    rim = darker(shape.colour, 0.42)
    if shape.line:
        inner = np.zeros(part.shape[:2], np.uint8)
        pose.draw(inner, shape.points, _COVERED, shape.line)
        paint[inner < 128] = rim
    else:
        pose.draw(paint, closed(shape.points), rim, _CONTOUR)
    thickness = shape.line * pose.scale or float(np.min(np.ptp(points, axis=0)))
    shade = (_relief(covered, thickness, light, shape.relief) + grain[window]).astype(np.uint16)
    gloss = np.maximum(shade, 156) - 156
    lit = np.minimum(scaled(paint, shade) + thrice(gloss), 255)
    alpha = thrice(covered.astype(np.uint16) + (covered >> 7))
    canvas[window] = (lit * alpha + part * (256 - alpha)) >> 8


def closed(points: Points) -> Points:
    """Return an outline as a line that ends where it began."""
    return np.vstack([points, points[:1]])


def _relief(covered: Bytes, thickness: float, light: Points, strength: float) -> npt.NDArray[np.int16]:
    """Return light on a cushion of the shape's outline: 128 is neutral, and it stays within 50 to 206."""
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
    """Return `pixels` times `shade` / 128, where `shade` [height, width] is at most 255; not clipped."""
    return np.asarray((pixels * thrice(shade)) >> 7, np.uint16)


def thrice(plane: Planes) -> Planes:
    """Return a value for each pixel as one for each channel; several times faster than broadcasting."""
    return np.asarray(cv2.merge([plane, plane, plane]), np.uint16)
