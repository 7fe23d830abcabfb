"""Drawn pictures whose foreground is known exactly: for the demo, and for checks where no photographs are.

Each shows one object on a textured surface, shaded as if it bulged towards the viewer, with its shadow.
Its size is chosen so that it covers a wanted share of the picture; close-ups run over the picture's edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fgdd_fast.drawing_backgrounds import paint_background
from fgdd_fast.drawing_objects import KINDS, Mark, Shape, Subject
from fgdd_fast.drawing_tools import Bytes, Colour, Dice, Points, darker, noise, rotation

CLASSES: tuple[str, ...] = tuple(sorted(KINDS))

_SHIFT = 4  # fractional bits of OpenCV's coordinates
_CONTOUR = 0.022  # width in object units
_SIZES = ((480, 640), (640, 480), (400, 600), (480, 480), (320, 480), (560, 420), (360, 640))


@dataclass(frozen=True)
class DrawnImage:
    """A drawn picture.

    Attributes:
        pixels: uint8 RGB [height, width, 3].
        mask: bool [height, width]: where the object is, exactly.
        occupancy: the mask's share of the picture, in [0, 1].
        class_name: one of `CLASSES`.
    """

    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    occupancy: float
    class_name: str


@dataclass(frozen=True)
class DrawnSource:
    """A drawn picture on disk.

    Attributes:
        source: POSIX path within the data set.
        class_name: one of `CLASSES`.
        occupancy: the true share of the picture that the object covers, in [0, 1].
    """

    source: str
    class_name: str
    occupancy: float


class _Pose(NamedTuple):
    """Where an object stands: `points @ turn.T * scale + (x, y)` are pixels."""

    turn: Points
    scale: float
    x: float
    y: float

    def pixels(self, points: Points) -> Points:
        return points @ self.turn.T * self.scale + (self.x, self.y)


def draw(class_name: str, occupancy_target: float, size: tuple[int, int], seed: int) -> DrawnImage:
    """Draw an object of a class, the same for the same arguments on every machine.

    Args:
        class_name: one of `CLASSES`.
        occupancy_target: wanted share of the picture, in (0, 1); met within about 0.02 between 0.03 and 0.8.
        size: (height, width) in pixels, each at least 32.
        seed: a whole number from 0.

    Raises:
        KeyError: no such class.
    """
    dice = Dice(seed, class_name)
    subject = KINDS[class_name].make(dice)
    height, width = size
    pose = _fitting_pose(dice, subject, occupancy_target, size)
    canvas = paint_background(dice, height, width, avoid_hue=subject.hue)
    light = rotation(dice.number(-35, 35)) @ np.array([-0.5, -0.85])
    covered = _silhouette(subject, pose, size)
    _cast_shadow(canvas, covered, light, min(size) * dice.number(0.02, 0.045))
    grain = noise(dice, height, width, cells=[(60, 60), (20, 20), (6, 6), (2, 2)]) * 7
    for shape in subject.shapes:
        _paint_shape(canvas, shape, pose, light, grain.astype(np.int16))
    lamp = noise(dice, height, width, cells=[(max(size), max(size))]) * 16 + 128
    film = dice.grid(height, width).astype(np.uint16) // 43
    lit = np.maximum(_scaled(canvas, lamp.astype(np.uint16)) + _thrice(film), 3) - 3
    mask = covered >= 128
    return DrawnImage(np.minimum(lit, 255).astype(np.uint8), mask, float(mask.mean()), class_name)


def write_drawn_dataset(folder: Path, *, images_per_class: int, seed: int) -> tuple[DrawnSource, ...]:
    """Write `folder/<class>/<class>_0000.jpg` and so on, of mixed sizes, each file whole or not at all.

    The occupancies of a class spread evenly from 0.05 to the most that suits it, 0.5 to 0.8. Files of an
    earlier run are replaced.

    Raises:
        OSError: a file cannot be written.
    """
    sources = []
    for class_name in CLASSES:
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        for index in range(images_per_class):
            dice = Dice(seed, class_name, str(index))
            share = (index + dice.number()) / images_per_class
            target = 0.05 + (KINDS[class_name].largest - 0.05) * share
            image = draw(class_name, target, _frame(dice, class_name, share), dice.whole(0, 2**31))
            source = f"{class_name}/{class_name}_{index:04d}.jpg"
            _write_jpeg(folder / source, image.pixels)
            sources.append(DrawnSource(source, class_name, image.occupancy))
    return tuple(sources)


def _frame(dice: Dice, class_name: str, share: float) -> tuple[int, int]:
    """A size, the better suited to the class the larger (`share` in [0, 1)) its object is to be."""
    aspect = KINDS[class_name].aspect
    by_fit = sorted(_SIZES, key=lambda size: abs(np.log(size[1] / size[0] / aspect)))
    return dice.choose(by_fit[: max(2, round(len(by_fit) * (1 - share)))])


def _write_jpeg(path: Path, pixels: Bytes) -> None:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    partial = path.with_suffix(".part")
    partial.write_bytes(encoded.tobytes())
    partial.replace(path)


def _fitting_pose(dice: Dice, subject: Subject, target: float, size: tuple[int, int]) -> _Pose:
    """The pose in which the object covers `target` of the picture, found on a small copy of the frame."""
    mirror = np.diag([dice.choose((-1.0, 1.0)), 1.0])
    outline = np.vstack([shape.points for shape in subject.shapes])
    height, width = size
    wanted_aspect = (width / height) * np.ptp(outline[:, 1]) / np.ptp(outline[:, 0])
    stretch = min(max(float(np.sqrt(wanted_aspect)), 0.92), 1.09)
    turn = rotation(dice.number(-subject.tilt, subject.tilt)) @ mirror @ np.diag([stretch, 1 / stretch])
    outline = outline @ turn.T
    place = (dice.number(0.2, 0.8), dice.number(0.2, 0.8))
    shrink = 160 / max(size)
    frame = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    low, high = 0.02 * max(frame), 4.0 * max(frame)
    for _ in range(10):
        scale = float(np.sqrt(low * high))
        share = float(
            (_silhouette(subject, _placed(turn, outline, scale, place, frame), frame) >= 128).mean()
        )
        low, high = (scale, high) if share < target else (low, scale)
    return _placed(turn, outline, scale / shrink, place, size)


def _placed(
    turn: Points, outline: Points, scale: float, place: tuple[float, float], size: tuple[int, int]
) -> _Pose:
    """The object within the frame where it fits, else with its heart as near the middle as leaves no side empty."""
    height, width = size
    spots = []
    for axis, length in enumerate((width, height)):
        first = -float(outline[:, axis].min()) * scale
        last = length - float(outline[:, axis].max()) * scale
        inside = first + place[axis] * (last - first)
        spots.append(inside if first <= last else min(max(length / 2, last), first))
    return _Pose(turn, scale, *spots)


def _silhouette(subject: Subject, pose: _Pose, size: tuple[int, int]) -> Bytes:
    """How far the object covers each pixel, 0 to 255."""
    covered = np.zeros(size, np.uint8)
    for shape in subject.shapes:
        _stamp(covered, shape, pose, (0.0, 0.0))
    return covered


def _stamp(canvas: Bytes, shape: Shape, pose: _Pose, corner: tuple[float, float]) -> None:
    """Add the shape and its contour to the coverage in `canvas`, whose top left is at `corner`."""
    points = _fixed(pose.pixels(shape.points) - corner)
    contour = max(1, round(_CONTOUR * pose.scale))
    if shape.line:
        cv2.polylines(
            canvas,
            [points],
            False,
            255,
            max(1, round(shape.line * pose.scale)) + contour,
            cv2.LINE_AA,
            _SHIFT,
        )
    else:
        cv2.fillPoly(canvas, [points], 255, cv2.LINE_AA, _SHIFT)
        cv2.polylines(canvas, [points], True, 255, contour, cv2.LINE_AA, _SHIFT)


def _fixed(points: Points) -> npt.NDArray[np.int32]:
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _cast_shadow(canvas: Bytes, covered: Bytes, light: Points, distance: float) -> None:
    """Darken the surface beside the object, away from the light, in place."""
    step = 4
    shift = np.rint(-light * distance).astype(int)
    height, width = covered.shape
    rows = np.clip(np.arange(0, height, step) - shift[1], 0, height - 1)
    columns = np.clip(np.arange(0, width, step) - shift[0], 0, width - 1)
    soft = cv2.GaussianBlur(covered[rows[:, None], columns[None]], (0, 0), distance * 0.7 / step)
    shadow = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    canvas[...] = _scaled(canvas, 128 - shadow.astype(np.uint16) // 4)


def _paint_shape(
    canvas: Bytes, shape: Shape, pose: _Pose, light: Points, grain: npt.NDArray[np.int16]
) -> None:
    """Paint a shape with its marks, contour and shading, in place."""
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
    _paint_contour(paint, covered, shape, pose, (left, top))
    thickness = shape.line * pose.scale or float(np.min(np.ptp(points, axis=0)))
    shade = (_relief(covered, thickness, light, shape.relief) + grain[window]).astype(np.uint16)
    gloss = np.maximum(shade, 156) - 156
    lit = np.minimum(_scaled(paint, shade) + _thrice(gloss), 255)
    alpha = _thrice(covered + (covered >> 7).astype(np.uint16))
    canvas[window] = (lit * alpha + part * (256 - alpha)) >> 8


def _paint_mark(paint: Bytes, mark: Mark, pose: _Pose, corner: tuple[float, float]) -> None:
    points = _fixed(pose.pixels(mark.points) - corner)
    if mark.line:
        cv2.polylines(
            paint, [points], False, mark.colour, max(1, round(mark.line * pose.scale)), cv2.LINE_AA, _SHIFT
        )
    else:
        cv2.fillPoly(paint, [points], mark.colour, cv2.LINE_AA, _SHIFT)


def _paint_contour(
    paint: Bytes, covered: Bytes, shape: Shape, pose: _Pose, corner: tuple[float, float]
) -> None:
    """Darken the shape's rim in its own hue."""
    width = max(1, round(_CONTOUR * pose.scale))
    rim: Colour = darker(shape.colour, 0.42)
    if shape.line:
        inner = np.zeros_like(covered)
        points = _fixed(pose.pixels(shape.points) - corner)
        cv2.polylines(
            inner, [points], False, 255, max(1, round(shape.line * pose.scale)), cv2.LINE_AA, _SHIFT
        )
        paint[inner < 128] = rim
    else:
        _paint_mark(paint, Mark(np.vstack([shape.points, shape.points[:1]]), rim, _CONTOUR), pose, corner)


def _scaled(pixels: Bytes, shade: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """`pixels` times `shade` / 128, where `shade` [height, width] is at most 255; not clipped."""
    return (pixels * _thrice(shade)) >> 7


def _thrice(plane: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """A value for each pixel as one for each channel; several times faster than broadcasting."""
    return np.asarray(cv2.merge([plane, plane, plane]), np.uint16)


def _relief(covered: Bytes, thickness: float, light: Points, strength: float) -> npt.NDArray[np.int16]:
    """Light on a cushion of the shape's outline: 128 is neutral, and it stays within 50 to 206."""
    step = 4
    inside = covered[::step, ::step].astype(np.float64)
    reach = int(min(max(thickness * 0.16 / step, 1), 24))
    for _ in range(3):
        inside = cv2.boxFilter(inside, cv2.CV_64F, (2 * reach + 1, 2 * reach + 1), normalize=False)
    inside /= 255.0 * (2 * reach + 1) ** 6
    padded = np.pad(inside, 1, mode="edge")
    slope_x = padded[1:-1, 2:] - padded[1:-1, :-2]
    slope_y = padded[2:, 1:-1] - padded[:-2, 1:-1]
    gain = -(slope_x * -light[0] + slope_y * -light[1]) * reach * -1.1 + 0.16 * (inside - 0.8)
    coarse = np.clip(np.rint(gain * (128 * strength) + 128), 50, 206).astype(np.uint8)
    return cv2.resize(coarse, covered.shape[::-1], interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int16)
