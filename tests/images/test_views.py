"""Tiles, and what the teacher is shown of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import picture

from fgdd_fast.errors import SettingsError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.resize import RESIZE_METHODS, ResizeMethod, resize
from fgdd_fast.images.tiles import SCORE_VIEWS, ScoreView, default_view, teacher_view, tile_pixels, view_size

GREY = (124, 116, 104)


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_a_tile_is_the_box_resized(method: ResizeMethod) -> None:
    image = picture(60, 50)
    tile = tile_pixels(image, Box(7, 11, 30, 20), 16, method)
    assert (tile == resize(image[11:31, 7:37].copy(), (16, 16), method)).all()


@pytest.mark.parametrize(
    ("tile", "view"), [(111, "resize"), (112, "pad"), (224, "pad"), (225, "resize"), (1, "resize")]
)
def test_tiles_are_padded_from_half_of_the_input_on(tile: int, view: ScoreView) -> None:
    assert default_view(tile, 224) == view


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


def test_resize_shows_the_whole_tile_at_the_input_size() -> None:
    tile = picture(16, 16)
    shown = teacher_view(tile, "resize", 32, GREY)
    assert shown.shape == (32, 32, 3)
    back = resize(shown, (16, 16), "area").astype(int)
    assert np.abs(back - tile)[1:-1, 1:-1].max() <= 2  # a smooth picture survives there and back


def test_native_shows_the_tile_itself() -> None:
    tile = picture(16, 16)
    assert teacher_view(tile, "native", 224, GREY) is tile


@pytest.mark.parametrize("view", SCORE_VIEWS)
@pytest.mark.parametrize(("tile_size", "input_size"), [(16, 32), (15, 32), (32, 32)])
def test_views_have_the_size_announced(view: ScoreView, tile_size: int, input_size: int) -> None:
    side = view_size(view, tile_size, input_size)
    shown = teacher_view(picture(tile_size, tile_size), view, input_size, GREY)
    assert shown.shape == (side, side, 3)
    assert shown.dtype == np.uint8
    assert shown.flags.c_contiguous
