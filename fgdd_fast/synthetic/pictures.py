"""Drawn pictures whose foreground is known exactly: for the demo, and for checks where no photographs are.

Each shows one object on a textured surface, shaded as if it bulged towards the viewer, with its shadow.
Its size is chosen so that it covers a wanted share of the picture; close-ups run over the picture's edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fgdd_fast.synthetic import subjects
from fgdd_fast.synthetic.backgrounds import paint_background
from fgdd_fast.synthetic.paint import Pose, cast_shadow, paint_shape, scaled, silhouette, thrice
from fgdd_fast.synthetic.tools import Bytes, Dice, Points, Subject, noise, rotation

# Height and width in pixels.
_SIZES = ((480, 640), (640, 480), (400, 600), (480, 480), (320, 480), (560, 420), (360, 640))

# What makes one; width by height of the frame that suits it when it is large; and the greatest share of a
# picture at which it is still an object and no mere texture.
_KINDS = {
    "car": (subjects.car, 1.7, 0.7),
    "fish": (subjects.fish, 1.7, 0.65),
    "flower": (subjects.flower, 0.8, 0.52),
    "house": (subjects.house, 1.2, 0.7),
    "mug": (subjects.mug, 1.1, 0.8),
    "tree": (subjects.tree, 0.9, 0.7),
    "umbrella": (subjects.umbrella, 1.0, 0.5),
}

CLASSES: tuple[str, ...] = tuple(_KINDS)


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
    """A drawn picture on disk: its POSIX path within the data set, its class, and its true occupancy."""

    source: str
    class_name: str
    occupancy: float


def draw(class_name: str, occupancy_target: float, size: tuple[int, int], seed: int) -> DrawnImage:
    """Draw an object of a class, the same for the same arguments on every machine.

    Args:
        class_name: one of `CLASSES`.
        occupancy_target: wanted share of the picture, in (0, 1); met within 0.04 between 0.03 and 0.8.
        size: (height, width) in pixels, each at least 32.
        seed: a whole number from 0.

    Raises:
        KeyError: no such class.
    """
    dice = Dice(seed, class_name)
    subject = _KINDS[class_name][0](dice)
    height, width = size
    pose = _fitting_pose(dice, subject, occupancy_target, size)
    canvas = paint_background(dice, height, width, avoid_hue=subject.hue)
    light = rotation(dice.number(-35, 35)) @ np.array([-0.5, -0.85])
    covered = silhouette(subject, pose, size)
    cast_shadow(canvas, covered, light, min(size) * dice.number(0.02, 0.045))
    grain = noise(dice, height, width, 60, 20, 6, 2) * 7
    for shape in subject.shapes:
        paint_shape(canvas, shape, pose, light, grain.astype(np.int16))
    lamp = noise(dice, height, width, max(size)) * 16 + 128
    film = dice.grid(height, width).astype(np.uint16) // 43
    lit = np.maximum(scaled(canvas, lamp.astype(np.uint16)) + thrice(film), 3) - 3
    mask = covered >= 128
    return DrawnImage(np.minimum(lit, 255).astype(np.uint8), mask, float(mask.mean()), class_name)


def write_drawn_dataset(
    folder: Path, *, images_per_class: int, seed: int, masks: Path | None = None
) -> tuple[DrawnSource, ...]:
    """Write `folder/<class>/<class>_0000.jpg` and so on, of mixed sizes, each file whole or not at all.

    The occupancies of a class spread evenly from 0.05 to the most that suits it, 0.5 to 0.8. Files of an
    earlier run are replaced.

    Args:
        folder: holds the pictures.
        images_per_class: how many.
        seed: a whole number from 0.
        masks: a folder in which each picture's exact mask is written as `<class>/<class>_0000.png`.

    Raises:
        OSError: a file cannot be written.
    """
    sources = []
    for class_name, (_, aspect, largest) in _KINDS.items():
        for root in (folder, masks) if masks else (folder,):
            (root / class_name).mkdir(parents=True, exist_ok=True)
        by_fit = sorted(_SIZES, key=lambda size: abs(np.log(size[1] / size[0] / aspect)))
        for index in range(images_per_class):
            dice = Dice(seed, class_name, str(index))
            share = (index + dice.number()) / images_per_class
            size = dice.choose(by_fit[: max(2, round(len(by_fit) * (1 - share)))])  # large ones fit well
            image = draw(class_name, 0.05 + (largest - 0.05) * share, size, dice.whole(0, 2**31))
            source = f"{class_name}/{class_name}_{index:04d}.jpg"
            write_picture(folder / source, image.pixels)
            if masks is not None:
                write_mask((masks / source).with_suffix(".png"), image.mask)
            sources.append(DrawnSource(source, class_name, image.occupancy))
    return tuple(sources)


def write_picture(path: Path, pixels: Bytes) -> None:
    """Write pixels, uint8 RGB [height, width, 3], as a JPEG file, whole or not at all."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    _replace(path, encoded)


def write_mask(path: Path, mask: npt.NDArray[np.bool_]) -> None:
    """Write a mask, bool [height, width], as a PNG file of zeros and 255, whole or not at all."""
    _replace(path, cv2.imencode(".png", mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])[1])


def _replace(path: Path, encoded: Bytes) -> None:
    partial = path.with_suffix(".part")
    partial.write_bytes(encoded.tobytes())
    partial.replace(path)


def _fitting_pose(dice: Dice, subject: Subject, target: float, size: tuple[int, int]) -> Pose:
    """Return the pose in which the object covers `target` of the picture, found on a small copy of it."""
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
        covered = silhouette(subject, _placed(turn, outline, scale, place, frame), frame)
        low, high = (scale, high) if (covered >= 128).mean() < target else (low, scale)
    return _placed(turn, outline, scale / shrink, place, size)


def _placed(
    turn: Points, outline: Points, scale: float, place: tuple[float, float], size: tuple[int, int]
) -> Pose:
    """Return the object in the frame, or, where it is larger, over all of it, its heart near the middle."""
    spots = []
    for axis, length in enumerate(size[::-1]):
        first = -float(outline[:, axis].min()) * scale
        last = length - float(outline[:, axis].max()) * scale
        inside = first + place[axis] * (last - first)
        spots.append(inside if first <= last else min(max(length / 2, last), first))
    return Pose(turn, scale, spots[0], spots[1])
