"""Perceptual hashes: equal for copies, different for others; which of near-duplicates stays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from record_strategies import quick

from fgdd_fast.images.decode import read_image
from fgdd_fast.images.near_duplicates import BITS, near_groups, nearest_kept, perceptual_hash

PHOTOGRAPHS = Path(__file__).resolve().parents[3] / "shared" / "data" / "clothing" / "train"


def differing(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def scene(seed: int, height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """Coloured discs on a ground: uint8 RGB [height, width, 3]; the same picture at any size."""
    rng = np.random.default_rng(seed)
    pixels = np.full((480, 640, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(12):
        middle = tuple(int(value) for value in rng.integers(0, (640, 480)))
        cv2.circle(
            pixels, middle, int(rng.integers(30, 150)), [int(value) for value in rng.integers(0, 256, 3)], -1
        )
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def compressed(pixels: NDArray[np.uint8], scale: float, quality: int) -> NDArray[np.uint8]:
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize("seed", range(8))
def test_a_copy_of_another_size_or_quality_is_near_and_another_picture_far(seed: int) -> None:
    pixels = scene(seed)
    own = perceptual_hash(pixels)
    assert 0 <= own < 1 << BITS
    assert own == perceptual_hash(pixels.copy())
    assert differing(own, perceptual_hash(scene(seed, 300, 400))) <= 4
    assert differing(own, perceptual_hash(compressed(pixels, 0.7, 60))) <= 4
    assert differing(own, perceptual_hash(scene(seed + 100))) >= 16


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (9, 9), (2000, 40)])
def test_any_size_has_a_hash(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert 0 <= perceptual_hash(pixels) < 2**64


def test_photographs_before_the_same_backdrop_are_told_apart_and_copies_are_not() -> None:
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("the clothing photographs are not here")
    pictures = [read_image(path).pixels for path in sorted((PHOTOGRAPHS / "t-shirt").iterdir())[:40]]
    hashes = [perceptual_hash(pixels) for pixels in pictures]
    copies = [perceptual_hash(compressed(pixels, 0.6, 60)) for pixels in pictures]
    found = nearest_kept([*hashes, *copies], 2)
    assert found[:40] == [None] * 40
    assert found[40:] == [*range(40)]


def test_the_first_stays_and_chains_do_not_grow() -> None:
    """Each hash is 2 bits from the next: the third is too far from the first, which stays, so it stays."""
    hashes = [0b000000, 0b000011, 0b001111, 0b111111, 0b000001]
    assert nearest_kept(hashes, 2) == [None, 0, None, 2, 0]
    assert nearest_kept(hashes, 1) == [None, None, None, None, 0]
    assert nearest_kept(hashes, 64) == [None, 0, 0, 0, 0]


@quick
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 15), max_size=12), st.integers(0, 64))
def test_what_stays_lies_apart_and_what_goes_is_near_to_it(hashes: list[int], distance: int) -> None:
    nearest = nearest_kept(hashes, distance)
    kept = [place for place, near in enumerate(nearest) if near is None]
    for place, near in enumerate(nearest):
        before = [other for other in kept if other < place]
        if near is None:
            assert all(differing(hashes[place], hashes[other]) > distance for other in before)
        else:
            assert near == next(o for o in before if differing(hashes[place], hashes[o]) <= distance)


@quick
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.lists(st.integers(0, 63), max_size=6)), max_size=12),
    st.sampled_from([0, 1, 2, 5, 64]),
)
def test_groups_are_those_of_comparing_every_pair(
    hashes: list[int], changed: list[tuple[int, list[int]]], distance: int
) -> None:
    for place, bits in changed:  # near ones, which chance would hardly bring
        if place < len(hashes):
            hashes.append(hashes[place] ^ sum(1 << bit for bit in set(bits)))
    expected: list[set[int]] = []
    for place, own in enumerate(hashes):
        joined = [group for group in expected if any(differing(own, hashes[i]) <= distance for i in group)]
        expected = [group for group in expected if group not in joined]
        expected.append({place}.union(*joined))
    assert near_groups(hashes, distance) == sorted(sorted(group) for group in expected if len(group) > 1)


def test_many_images_are_looked_through() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 20_000, dtype=np.uint64).tolist()
    hashes.append(hashes[7] ^ 0b101)
    assert near_groups(hashes, 2) == [[7, 20_000]]
