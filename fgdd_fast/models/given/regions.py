"""Regions of an image that an annotation describes, and where they are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import ImageError
from fgdd_fast.models.given.given import Mask

Floats = NDArray[np.float64]


class Region(NamedTuple):
    """What an annotation says of one object.

    Attributes:
        name: of what it is.
        rings: polygons, float64 [2 n], as x, y, x, y, ... from the left and the top edge; the object is their
            union.
        runs: lengths of runs down the columns, from the first column on, outside and inside in turn, as a
            list or as COCO packs them into a text; None for an object of polygons.
    """

    name: str
    rings: Sequence[Floats] = ()
    runs: Sequence[int] | str | None = None


def box_ring(left: float, top: float, width: float, height: float) -> Floats:
    """Return the polygon of a box."""
    right, bottom = left + width, top + height
    return np.array([left, top, right, top, right, bottom, left, bottom], np.float64)


def digest_of(regions: Iterable[Region], size: tuple[int, int] | None) -> str:
    """Return a hash of regions in an image of a size: hexadecimal, equal for equal masks of equal drawing."""
    digest = hashlib.sha256(repr(size).encode())
    for name, rings, runs in regions:
        digest.update(repr((name, [len(ring) for ring in rings], runs)).encode())
        for ring in rings:
            digest.update(ring.astype("<f8").tobytes())
    return digest.hexdigest()


def draw(regions: Iterable[Region], height: int, width: int, *, scale: bool = False) -> Mask:
    """Return where any of some regions is: bool [height, width].

    A pixel is in a polygon if its centre is, by the even-odd rule.

    Args:
        regions: in pixels of the mask, beyond whose edges they may reach.
        height, width: of the mask.
        scale: whether polygons are given as shares of the width and the height instead.

    Raises:
        ImageError: runs do not cover the mask exactly.
    """
    mask = np.zeros((height, width), bool)
    factor = np.array([width, height] if scale else [1, 1])
    for region in regions:
        if region.runs is not None:
            mask |= _unrolled(region.runs, height, width)
        for ring in region.rings:
            _fill(mask, ring.reshape(-1, 2) * factor)
    return mask


def _fill(mask: Mask, points: Floats) -> None:
    """Set what a polygon [n, 2] of x and y encloses.

    Along a row a pixel is inside if an odd number of edges lies to its left.
    """
    height, width = mask.shape
    low, high = points[:, 1].min(), points[:, 1].max()
    first, last = (min(max(math.ceil(y - 0.5), 0), height) for y in (low, high))
    flips = np.zeros((last - first, width + 1), bool)
    for (x, y), (to_x, to_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
        top, bottom = (min(max(math.ceil(edge - 0.5), first), last) for edge in sorted((y, to_y)))
        if top < bottom:
            rows = np.arange(top, bottom)
            crossings = x + (rows + 0.5 - y) * ((to_x - x) / (to_y - y))
            flips[rows - first, np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.intp)] ^= True
    mask[first:last] |= np.logical_xor.accumulate(flips[:, :width], axis=1)


def _unrolled(runs: Sequence[int] | str, height: int, width: int) -> Mask:
    lengths = _unpacked(runs) if isinstance(runs, str) else list(runs)
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise ImageError(f"a run-length code is not of {width} x {height} pixels")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def _unpacked(text: str) -> list[int]:
    """The lengths that COCO's text packs: six bits a character, and from the third on as differences."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return lengths
