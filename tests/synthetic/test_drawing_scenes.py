"""Drawn scenes: disjoint masks, tight boxes, known occupancies, names that are there and that are not."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdd_fast.synthetic.scenes import COLOURS, NAMES, SHAPES, absent_name, draw_scene

SEEDS = st.integers(0, 2**40)


@settings(max_examples=60)
@given(
    seed=SEEDS,
    size=st.tuples(st.integers(64, 260), st.integers(64, 260)),
    count=st.none() | st.integers(1, 4),
    other=SEEDS,
)
def test_a_scene_knows_what_is_where_in_it(
    seed: int, size: tuple[int, int], count: int | None, other: int
) -> None:
    scene = draw_scene(seed, size, count)
    names = {item.name for item in scene.objects}
    masks = np.array([item.mask for item in scene.objects])
    shares = {name: scene.occupancy(name) for name in NAMES}
    absent = absent_name(scene, other)

    assert (scene.pixels.shape, scene.pixels.dtype) == ((*size, 3), np.uint8)
    assert len(scene.objects) in ({1, 2, 3, 4} if count is None else {count})
    assert (masks.shape, masks.dtype) == ((len(scene.objects), *size), np.bool_)
    assert masks.sum(axis=0).max() == 1
    assert not masks[:, [0, -1]].any()
    assert not masks[:, :, [0, -1]].any()
    for item in scene.objects:
        rows, columns = np.nonzero(item.mask)
        assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert sum(shares.values()) == pytest.approx(masks.any(axis=0).mean())
    assert {name for name, share in shares.items() if share > 0} == names
    assert absent in set(NAMES) - names
    assert absent == absent_name(scene, other)


@pytest.mark.parametrize("count", [0, 5])
def test_a_number_of_objects_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"not {count}"):
        draw_scene(0, (96, 96), count)


def test_scenes_vary_and_absent_names_are_often_similar() -> None:
    scenes = [draw_scene(seed, (96, 128)) for seed in range(200)]
    names = [[item.name for item in scene.objects] for scene in scenes]
    shares = [item.mask.mean() for scene in scenes for item in scene.objects]
    shared = [
        bool({word for name in row for word in name.split()} & set(absent_name(scene, seed).split()))
        for seed, (scene, row) in enumerate(zip(scenes, names, strict=True))
    ]

    assert {name for row in names for name in row} == set(NAMES)
    assert len(NAMES) == len(COLOURS) * len(SHAPES)
    assert {len(row) for row in names} == {1, 2, 3, 4}
    assert 10 < sum(len(set(row)) < len(row) for row in names) < 100  # several objects of one name
    assert np.median(shares) < 0.1
    assert min(shares) < 0.025
    assert max(shares) > 0.4
    assert sum(shared) > 100


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
