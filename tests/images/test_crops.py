"""Candidate crops: inside the image, reproducible, and distributed as torchvision's."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_fast.images.crops import Box, candidate_boxes

SIDES = st.integers(1, 5000)
SOURCES = st.binary(min_size=1).map(lambda name: name.decode("utf-8", "surrogateescape"))

GOLDEN = (Box(250, 108, 276, 276), Box(190, 15, 413, 413), Box(236, 15, 313, 313))
GOLDEN_ODD_NAME = (Box(9, 159, 322, 322), Box(11, 5, 298, 298))


def reference_box(width: int, height: int, dice: random.Random) -> Box:
    """RandomResizedCrop.get_params with scale (0.08, 1) and ratio (1, 1), as torchvision documents it."""
    for _ in range(10):
        target = width * height * dice.uniform(0.08, 1.0)
        ratio = math.exp(dice.uniform(math.log(1.0), math.log(1.0)))
        crop_width = round(math.sqrt(target * ratio))
        crop_height = round(math.sqrt(target / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = dice.randint(0, height - crop_height)
            left = dice.randint(0, width - crop_width)
            return Box(left, top, crop_width, crop_height)
    side = min(width, height)
    return Box((width - side) // 2, (height - side) // 2, side, side)


def quantiles_differ(one: list[float], other: list[float]) -> float:
    """Kolmogorov and Smirnov's distance between two samples."""
    points = np.sort(np.concatenate([one, other]))
    shares = [np.searchsorted(np.sort(sample), points, "right") / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


@given(source=SOURCES, width=SIDES, height=SIDES, seed=st.integers(), count=st.integers(0, 8))
def test_boxes_are_squares_inside_the_image(
    source: str, width: int, height: int, seed: int, count: int
) -> None:
    boxes = candidate_boxes(source, width, height, count=count, seed=seed)
    assert len(boxes) == count
    for box in boxes:
        assert box.width == box.height >= 1
        assert 0 <= box.x <= width - box.width
        assert 0 <= box.y <= height - box.height


@given(source=SOURCES, width=SIDES, height=SIDES, seed=st.integers(), count=st.integers(0, 8))
def test_fewer_boxes_are_the_first_of_more(
    source: str, width: int, height: int, seed: int, count: int
) -> None:
    more = candidate_boxes(source, width, height, count=8, seed=seed)
    assert candidate_boxes(source, width, height, count=count, seed=seed) == more[:count]


def test_boxes_are_the_same_for_ever() -> None:
    assert candidate_boxes("cat/1.jpg", 640, 480, count=3, seed=0) == GOLDEN
    assert candidate_boxes("cat/\udcff.jpg", 333, 500, count=2, seed=-7) == GOLDEN_ODD_NAME


def test_seed_and_source_change_the_boxes() -> None:
    boxes = {
        candidate_boxes(source, 640, 480, count=5, seed=seed)
        for source in ("a", "b", "a0")
        for seed in range(3)
    }
    assert len(boxes) == 9


def test_a_strip_falls_back_to_its_middle() -> None:
    # Every square of 8 % of the area is higher than the strip.
    assert set(candidate_boxes("strip", 1000, 10, count=20, seed=0)) == {Box(495, 0, 10, 10)}


@pytest.mark.parametrize(("width", "height"), [(100, 100), (160, 90), (70, 300), (9, 7)])
def test_boxes_are_distributed_as_torchvisions(width: int, height: int) -> None:
    samples = 8000
    dice = random.Random(1)
    expected = [reference_box(width, height, dice) for _ in range(samples)]
    drawn = [candidate_boxes(str(i), width, height, count=1, seed=0)[0] for i in range(samples)]
    # Two samples of this size differ by more than 0.031 once in a thousand times.
    bound = 1.95 * math.sqrt(2 / samples)
    for measure in (
        lambda box: box.width,
        lambda box: box.x,
        lambda box: box.y,
        lambda box: box.x / max(1, width - box.width),
        lambda box: box.y / max(1, height - box.height),
    ):
        assert quantiles_differ([measure(box) for box in expected], [measure(box) for box in drawn]) < bound


def test_the_boxes_of_an_image_are_independent() -> None:
    pairs = np.array(
        [
            [value for box in candidate_boxes(str(i), 200, 200, count=2, seed=0) for value in box[:3]]
            for i in range(4000)
        ],
        float,
    )
    correlation = np.corrcoef(pairs.T)[:3, 3:]
    assert np.abs(correlation).max() < 4 / math.sqrt(4000)
