"""Letterboxing: an image on the detector's canvas."""

from __future__ import annotations

import numpy as np
import tiny_grounded as tiny
from hypothesis import given
from hypothesis import strategies as st
from tiny_grounded import random_scene

from fgdd_fast.images.resize import RESIZE_METHODS, ResizeMethod, resize
from fgdd_fast.models.grounded_sam2 import letterbox

sides = st.integers(1, 300)


@given(sides, sides, sides, sides, st.sampled_from(RESIZE_METHODS))
def test_a_letterbox_holds_the_whole_image(
    rows: int, columns: int, height: int, width: int, method: ResizeMethod
) -> None:
    pixels = np.full((rows, columns, 3), 200, np.uint8)
    canvas, valid = letterbox(pixels, height, width, 1000, method)
    assert canvas.shape == (height, width, 3)
    assert (canvas.dtype, valid.dtype) == (np.uint8, np.int32)
    filled_rows, filled_columns = (int(length) for length in valid)
    assert 1 <= filled_rows <= height
    assert 1 <= filled_columns <= width
    assert filled_rows == height or filled_columns == width
    assert (canvas[:filled_rows, :filled_columns] == 200).all()
    assert not canvas[filled_rows:].any()
    assert not canvas[:, filled_columns:].any()
    scale = min(height / rows, width / columns)
    assert abs(filled_rows - rows * scale) <= max(0.5, 1 - rows * scale) + 1e-6
    assert abs(filled_columns - columns * scale) <= max(0.5, 1 - columns * scale) + 1e-6


def test_a_letterbox_resizes_as_the_pipeline_does() -> None:
    pixels = random_scene(3)
    for method in RESIZE_METHODS:
        canvas, (rows, columns) = letterbox(pixels, *tiny.CANVAS, 1000, method)
        assert (canvas[:rows, :columns] == resize(pixels, (int(columns), int(rows)), method)).all()


def test_a_letterbox_enlarges_no_further_than_the_detector_was_trained_for() -> None:
    pixels = np.full((30, 60, 3), 9, np.uint8)
    canvas, valid = letterbox(pixels, 100, 100, 40, "area")
    assert valid.tolist() == [40, 80]
    assert (canvas[:40, :80] == 9).all()
    assert not canvas[40:].any()
    assert not canvas[:, 80:].any()
    assert letterbox(pixels, 100, 100, 70, "area")[1].tolist() == [50, 100]  # no room for more
