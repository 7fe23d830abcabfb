"""Photographs that are nearly the same: scaled, compressed anew, retouched, or one of a burst.

Images are compared by a 64-bit perceptual hash: which of the 64 lowest frequencies of the image, reduced to
32 x 32 grey pixels, are above their median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions", 2010). A difference hash would call any two photographs before the same backdrop equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

BITS = 64
_SAMPLED = 256  # pixels a side that are looked at, so that large photographs cost no more than small ones
_REDUCED = 32
_FREQUENCIES = 8  # a side
_ONES = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """The hash of an image, uint8 RGB [height, width, 3] of any size: a whole number of 64 bits.

    The same pixels have the same hash; the same picture at another size or quality one that differs in few
    bits: in at most 2, for each of 52 photographs at 60 % of their size and JPEG quality 60.
    """
    sampled = cv2.resize(pixels, (_SAMPLED, _SAMPLED), interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(sampled, cv2.COLOR_RGB2GRAY)
    reduced = cv2.resize(grey, (_REDUCED, _REDUCED), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(reduced.astype(np.float32)), np.float32)[:_FREQUENCIES, :_FREQUENCIES]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def nearest_kept(hashes: Sequence[int], distance: int) -> list[int | None]:
    """Which images go, because an earlier one that stays is nearly the same.

    Args:
        hashes: perceptual hashes; an earlier image has precedence.
        distance: bits, 0 to 64, in which near-duplicates differ at most.

    Returns:
        For each image the place of the first one that stays and is that near; None for one that stays.
    """
    words = np.array(hashes, np.uint64).view(np.uint16).reshape(-1, BITS // 16)
    kept = np.empty(len(words), np.int64)
    count = 0
    nearest: list[int | None] = []
    for place, word in enumerate(words):
        differing = _ONES[words[kept[:count]] ^ word].sum(axis=1)
        near = np.flatnonzero(differing <= distance)
        nearest.append(int(kept[near[0]]) if len(near) else None)
        if not len(near):
            kept[count] = place
            count += 1
    return nearest


def near_groups(hashes: Sequence[int], distance: int) -> list[list[int]]:
    """Which images are nearly the same: groups joined by pairs that differ in few bits.

    Two hashes that differ in `distance` bits agree in one of `distance + 1` parts, so only hashes that share
    a part are compared: a hundred thousand images are looked through within seconds.

    Args:
        hashes: perceptual hashes.
        distance: bits, 0 to 64, in which near-duplicates differ at most.

    Returns:
        The places of the images of each group of two or more, ascending; groups in the order of their first.
    """
    distinct, places = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    parent = list(range(len(distinct)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in _near_pairs(distinct, distance):
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    groups: dict[int, list[int]] = {}
    for place, value in enumerate(places.tolist()):
        groups.setdefault(root(value), []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _near_pairs(distinct: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    """The places of hashes that differ in at most so many bits; a pair may come several times."""
    words = distinct.view(np.uint16).reshape(-1, BITS // 16)
    edges = np.linspace(0, BITS, min(distance, BITS - 1) + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        mask = (1 << (high - low)) - 1
        parts = (distinct >> np.uint64(low)) & np.uint64(mask)
        order = np.argsort(parts, kind="stable")
        starts = np.flatnonzero(np.diff(parts[order])) + 1
        for bucket in np.split(order, starts):
            for place in range(len(bucket) - 1):
                one, others = bucket[place], bucket[place + 1 :]
                differing = _ONES[words[others] ^ words[one]].sum(axis=1)
                yield from ((int(one), int(other)) for other in others[differing <= distance])
