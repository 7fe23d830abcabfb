"""Parts of images: boxes, and the candidate crops that torchvision's RandomResizedCrop would draw.

Source: torchvision, `RandomResizedCrop.get_params`, with the scale and ratio that RDED uses (public
repository LINs-lab/RDED).
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from fgdd_fast.seeding import seeded_hash

SCALE = (0.08, 1.0)  # least and greatest share of the image's area; the sides are equal
TRIES = 10
_COUNTERS, _WORDS = struct.Struct("<QQ"), struct.Struct("<4Q")


class Box(NamedTuple):
    """A rectangle in pixels of the decoded image, after its EXIF orientation is applied."""

    x: int
    y: int
    width: int
    height: int

    def scaled(self, old: tuple[int, int], new: tuple[int, int]) -> Box:
        """The same part, at least a pixel, of an image whose width and height were `old` and are `new`."""
        left, right = (round(end * new[0] / old[0]) for end in (self.x, self.x + self.width))
        top, bottom = (round(end * new[1] / old[1]) for end in (self.y, self.y + self.height))
        left, top = min(left, new[0] - 1), min(top, new[1] - 1)
        return Box(left, top, max(right - left, 1), max(bottom - top, 1))


def candidate_boxes(source: str, width: int, height: int, *, count: int, seed: int) -> tuple[Box, ...]:
    """Draw square crops, distributed as RandomResizedCrop's with scale (0.08, 1) and ratio (1, 1).

    The boxes depend on the arguments only, and do so with every version of Python and NumPy. The first k of
    many boxes are the boxes of `count` k.

    Args:
        source: POSIX path of the image within its data set.
        width, height: pixels of the decoded image, at least 1.
        count: how many boxes; equal ones may occur.
        seed: any whole number.
    """
    key = seeded_hash("fgdd crops", seed, source)
    shortest, area = min(width, height), width * height
    boxes: list[Box] = []
    for index in range(count):  # in line: this is asked for again of every image that is known
        for attempt in range(TRIES):
            draw = key.copy()
            draw.update(_COUNTERS.pack(index, attempt))
            share, left, top, _ = _WORDS.unpack(draw.digest())
            side = round(math.sqrt(area * (SCALE[0] + (share >> 11) * 2.0**-53 * (SCALE[1] - SCALE[0]))))
            if 0 < side <= shortest:
                break
        else:
            boxes.append(Box((width - shortest) // 2, (height - shortest) // 2, shortest, shortest))
            continue
        boxes.append(Box(_below(left, width - side + 1), _below(top, height - side + 1), side, side))
    return tuple(boxes)


def _below(word: int, bound: int) -> int:
    """A whole number in [0, bound) from 64 random bits; its bias is less than bound / 2**64."""
    return (word * bound) >> 64
