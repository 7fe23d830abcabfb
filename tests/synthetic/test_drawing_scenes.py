"""Drawn scenes: disjoint masks, tight boxes, known occupancies, names that are there and that are not."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdd_fast.synthetic.scenes import COLOURS, NAMES, SHAPES, Scene, absent_name, draw_scene

SEEDS = st.integers(0, 2**40)
SIZES = st.tuples(st.integers(64, 260), st.integers(64, 260))


def corners(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.nonzero(mask)
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=SIZES)
def test_masks_are_disjoint_and_boxes_tight(seed: int, size: tuple[int, int]) -> None:
    scene = draw_scene(seed, size)

    assert scene.pixels.shape == (*size, 3)
    assert scene.pixels.dtype == np.uint8
    assert 1 <= len(scene.objects) <= 4
    masks = np.array([item.mask for item in scene.objects])
    assert masks.shape == (len(scene.objects), *size)
    assert masks.dtype == np.bool_
    assert masks.sum(axis=0).max() == 1
    for item in scene.objects:
        assert item.name in NAMES
        assert item.box == corners(item.mask)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=SIZES)
def test_occupancies_are_the_share_of_pixels_by_name(seed: int, size: tuple[int, int]) -> None:
    scene = draw_scene(seed, size)
    shares = {name: scene.occupancy(name) for name in NAMES}

    covered = np.any([item.mask for item in scene.objects], axis=0)
    assert sum(shares.values()) == pytest.approx(covered.mean())
    assert {name for name, share in shares.items() if share > 0} == {item.name for item in scene.objects}


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=SIZES, other=SEEDS)
def test_an_absent_name_is_one_of_the_names_and_not_in_the_scene(
    seed: int, size: tuple[int, int], other: int
) -> None:
    scene = draw_scene(seed, size)
    name = absent_name(scene, other)

    assert name in NAMES
    assert scene.occupancy(name) == 0.0
    assert name == absent_name(scene, other)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=SIZES, count=st.integers(1, 4))
def test_a_scene_has_as_many_objects_as_wanted_and_they_lie_inside(
    seed: int, size: tuple[int, int], count: int
) -> None:
    scene = draw_scene(seed, size, count)
    border = np.ones(size, bool)
    border[1:-1, 1:-1] = False

    assert len(scene.objects) == count
    assert not any((item.mask & border).any() for item in scene.objects)


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_of_objects_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"not {count}"):
        draw_scene(0, (96, 96), count)


def test_the_same_arguments_give_the_same_scene_and_another_seed_another() -> None:
    one, again, other = (draw_scene(seed, (90, 140)) for seed in (7, 7, 8))

    assert one.pixels.tobytes() == again.pixels.tobytes()
    assert [(item.name, item.box) for item in one.objects] == [
        (item.name, item.box) for item in again.objects
    ]
    assert one.pixels.tobytes() != other.pixels.tobytes()


def many() -> list[Scene]:
    return [draw_scene(seed, (96, 128)) for seed in range(200)]


def test_scenes_vary_in_names_numbers_and_sizes() -> None:
    scenes = many()
    names = [[item.name for item in scene.objects] for scene in scenes]
    shares = [item.mask.mean() for scene in scenes for item in scene.objects]

    assert {name for row in names for name in row} == set(NAMES)
    assert len(NAMES) == len(COLOURS) * len(SHAPES)
    assert {len(row) for row in names} == {1, 2, 3, 4}
    assert 10 < sum(len(set(row)) < len(row) for row in names) < 100  # several objects of one name
    assert np.median(shares) < 0.1
    assert min(shares) < 0.025
    assert max(shares) > 0.4


def test_half_of_the_absent_names_or_more_share_a_word_with_the_scene() -> None:
    shared = 0
    for seed, scene in enumerate(many()):
        words = {word for item in scene.objects for word in item.name.split()}
        shared += bool(words & set(absent_name(scene, seed).split()))

    assert shared > 100


@pytest.mark.parametrize("size", [(80, 200), (200, 80)])
def test_shapes_keep_their_proportions_in_any_image(size: tuple[int, int]) -> None:
    """A disc's box is square, and a disc fills pi / 4 of it; a cross of the same box fills less."""
    fills: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    for seed in range(150):
        (item,) = draw_scene(seed, size, 1).objects
        left, top, right, bottom = item.box
        fills[item.name.split()[1]].append(item.mask.sum() / ((right - left) * (bottom - top)))
        if item.name.endswith("disc"):
            assert right - left == pytest.approx(bottom - top, abs=1)

    assert np.mean(fills["disc"]) == pytest.approx(np.pi / 4, abs=0.03)
    assert max(fills["cross"]) < min(fills["disc"])


def test_an_object_has_the_colour_of_its_name() -> None:
    """Hues nearest to those of a colour wheel, in OpenCV's half degrees."""
    hues = {"red": 178, "orange": 14, "yellow": 28, "green": 65, "blue": 110, "purple": 144}
    for seed in range(60):
        scene = draw_scene(seed, (96, 128))
        hue = cv2.cvtColor(scene.pixels, cv2.COLOR_RGB2HSV)[..., 0].astype(int)
        for item in scene.objects:
            inner = cv2.erode(item.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            if not inner.any():
                continue
            distance = {
                colour: np.median(np.abs((hue[inner] - centre + 90) % 180 - 90))
                for colour, centre in hues.items()
            }
            assert min(distance, key=lambda colour: distance[colour]) == item.name.split()[0]


def test_scenes_are_the_same_on_every_machine() -> None:
    """The pixels' CRC-32."""
    digests = [zlib.crc32(draw_scene(seed, (96, 128)).pixels.tobytes()) for seed in range(4)]

    assert digests == [655735663, 3270613264, 2403624018, 2878230779]
