"""Candidate crops, reproducible and distributed as torchvision's; and what the teacher is shown of them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import picture
from torchvision_reference import assert_alike, reference_crop

from fgdd_fast.errors import SettingsError
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.resize import RESIZE_METHODS, ResizeMethod, resize
from fgdd_fast.images.tiles import SCORE_VIEWS, ScoreView, teacher_view, tile_pixels, view_size
from fgdd_fast.seeding import seeded_hash

SIDES = st.integers(1, 5000)
SOURCES = st.binary(min_size=1).map(lambda name: name.decode("utf-8", "surrogateescape"))

GREY = (124, 116, 104)
GOLDEN = (Box(250, 108, 276, 276), Box(190, 15, 413, 413), Box(236, 15, 313, 313))
GOLDEN_ODD_NAME = (Box(9, 159, 322, 322), Box(11, 5, 298, 298))


@given(source=SOURCES, width=SIDES, height=SIDES, seed=st.integers(), count=st.integers(0, 8))
def test_boxes_are_squares_inside_the_image_and_fewer_are_the_first_of_more(
    source: str, width: int, height: int, seed: int, count: int
) -> None:
    boxes = candidate_boxes(source, width, height, count=8, seed=seed)
    assert candidate_boxes(source, width, height, count=count, seed=seed) == boxes[:count]
    for box in boxes:
        assert box.width == box.height >= 1
        assert 0 <= box.x <= width - box.width
        assert 0 <= box.y <= height - box.height


def test_boxes_are_the_same_for_ever() -> None:
    assert candidate_boxes("cat/1.jpg", 640, 480, count=3, seed=0) == GOLDEN
    assert candidate_boxes("cat/\udcff.jpg", 333, 500, count=2, seed=-7) == GOLDEN_ODD_NAME


def test_a_strip_falls_back_to_its_middle() -> None:
    # Every square of 8 % of the area is higher than the strip.
    assert set(candidate_boxes("strip", 1000, 10, count=20, seed=0)) == {Box(495, 0, 10, 10)}


@pytest.mark.parametrize(("width", "height"), [(100, 100), (160, 90), (70, 300), (9, 7)])
def test_boxes_are_distributed_as_torchvisions(width: int, height: int) -> None:
    dice = random.Random(1)
    expected = [Box(*reference_crop(width, height, (0.08, 1.0), (1.0, 1.0), dice)) for _ in range(8000)]
    drawn = [candidate_boxes(str(i), width, height, count=1, seed=0)[0] for i in range(8000)]
    for measure in (
        lambda box: box.width,
        lambda box: box.x,
        lambda box: box.y,
        lambda box: box.x / max(1, width - box.width),
        lambda box: box.y / max(1, height - box.height),
    ):
        assert_alike([measure(box) for box in expected], [measure(box) for box in drawn])


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_a_tile_is_the_box_resized(method: ResizeMethod) -> None:
    image = picture(60, 50)
    tile = tile_pixels(image, Box(7, 11, 30, 20), 16, method)
    assert (tile == resize(image[11:31, 7:37].copy(), (16, 16), method)).all()


@settings(max_examples=100, deadline=None)
@given(tile_size=st.integers(1, 30), border=st.integers(0, 31))
def test_pad_puts_the_tile_in_the_middle(tile_size: int, border: int) -> None:
    tile = picture(tile_size, tile_size)
    side = tile_size + border
    shown = teacher_view(tile, "pad", side, GREY)
    before, after = border // 2, border - border // 2
    expected = np.stack(
        [np.pad(tile[..., channel], (before, after), constant_values=GREY[channel]) for channel in range(3)],
        axis=-1,
    )
    assert (shown == expected).all()


def test_pad_refuses_a_tile_larger_than_the_input() -> None:
    with pytest.raises(SettingsError, match="tiles of 25 pixels in an input of 24"):
        teacher_view(picture(25, 25), "pad", 24, GREY)


@pytest.mark.parametrize("view", SCORE_VIEWS)
@pytest.mark.parametrize(("tile_size", "input_size"), [(16, 32), (15, 32), (32, 32)])
def test_views_have_the_size_announced(view: ScoreView, tile_size: int, input_size: int) -> None:
    side = view_size(view, tile_size, input_size)
    shown = teacher_view(picture(tile_size, tile_size), view, input_size, GREY)
    assert shown.shape == (side, side, 3)
    assert shown.dtype == np.uint8
    assert shown.flags.c_contiguous


def test_hashes_are_the_same_for_ever() -> None:
    digest = seeded_hash("fgdd test", 7, "a/\udcff.jpg").hexdigest()
    assert digest == "e50b938b91e4a82bb750e23194303fcd3f21b3241f9dacf15a31206f3b87c287"
