"""Resizing: parity with Pillow and with plain averages."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import clothing_photographs, needs_clothing, picture
from numpy.typing import NDArray
from PIL import Image

from fgdd_fast.images import resize as module
from fgdd_fast.images.resize import RESIZE_METHODS, ResizeMethod, resize, resize_arithmetic

SIDES = st.integers(1, 70)


def pillow(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def noise(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


@settings(max_examples=150)
@given(width=SIDES, height=SIDES, new_width=SIDES, new_height=SIDES, seed=st.integers(0, 99))
def test_pil_agrees_with_pillow_within_one_level(
    width: int, height: int, new_width: int, new_height: int, seed: int
) -> None:
    pixels = noise(width, height, seed)
    assert (
        difference(resize(pixels, (new_width, new_height), "pil"), pillow(pixels, (new_width, new_height)))
        <= 1
    )


@settings(max_examples=100)
@given(width=SIDES, height=SIDES, length=SIDES, seed=st.integers(0, 99))
def test_pil_along_one_axis_is_exactly_pillow(width: int, height: int, length: int, seed: int) -> None:
    pixels = noise(width, height, seed)
    for size in ((length, height), (width, length)):
        assert difference(resize(pixels, size, "pil"), pillow(pixels, size)) == 0


@settings(max_examples=150)
@given(
    old=st.tuples(SIDES, SIDES),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 99),
    contrast=st.booleans(),
)
def test_area_agrees_with_opencv_s_own_within_one_level(
    old: tuple[int, int], shares: tuple[float, float], seed: int, contrast: bool
) -> None:
    width, height = (max(round(length * share), 1) for length, share in zip(old, shares, strict=True))
    pixels = noise(*old, seed)
    if contrast:
        pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
    assert difference(resize(pixels, (width, height), "area"), opencv_area(pixels, (width, height))) <= 1


@needs_clothing
def test_area_is_nearly_everywhere_opencv_s_own_on_photographs() -> None:
    for path in clothing_photographs(10):
        pixels = np.asarray(Image.open(path))
        for part in (pixels, pixels[7:308, 11:312], pixels[:127, :127]):
            found, expected = resize(part, (112, 112), "area"), opencv_area(part, (112, 112))
            assert difference(found, expected) <= 1
            assert (found != expected).mean() < 0.002


def opencv_area(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


@settings(max_examples=100)
@given(
    size=st.tuples(SIDES, SIDES),
    new=st.tuples(SIDES, SIDES),
    start=st.integers(0, 63),
    gap=st.integers(0, 40),
)
def test_area_does_not_depend_on_where_the_pixels_lie(
    size: tuple[int, int], new: tuple[int, int], start: int, gap: int
) -> None:
    pixels = noise(*size, start)
    height, width = pixels.shape[:2]
    memory = np.zeros(start + height * (3 * width + gap), np.uint8)
    rows = memory[start:].reshape(height, 3 * width + gap)
    moved = np.lib.stride_tricks.as_strided(rows, (height, width, 3), (rows.strides[0], 3, 1))
    moved[...] = pixels
    assert difference(resize(moved, new, "area"), resize(pixels, new, "area")) == 0


@pytest.mark.parametrize("before", [False, True])
def test_what_opencv_was_told_of_ipp_stays(before: bool) -> None:
    kept = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(before)
    told = cv2.ipp.useIPP_NotExact()  # False throughout where OpenCV has no IPP
    try:
        resize(noise(20, 20, 0), (9, 9), "area")
        with pytest.raises(cv2.error):
            resize(np.zeros((0, 5, 3), np.uint8), (4, 4), "area")
        assert cv2.ipp.useIPP_NotExact() == told
    finally:
        cv2.ipp.setUseIPP_NotExact(kept)


@pytest.fixture
def without_ipp() -> Iterator[None]:
    kept = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    module._ipp_averages.cache_clear()
    yield
    cv2.ipp.setUseIPP(kept)
    module._ipp_averages.cache_clear()


@pytest.mark.usefixtures("without_ipp")
def test_without_ipp_area_is_opencv_s_own_and_keeps_its_name() -> None:
    assert [resize_arithmetic(method) for method in RESIZE_METHODS] == ["area", "pil", "reduced"]
    pixels = noise(61, 43, 0)
    assert difference(resize(pixels, (30, 21), "area"), opencv_area(pixels, (30, 21))) == 0


def test_a_method_that_ipp_computes_has_another_name() -> None:
    assert resize_arithmetic("pil") == "pil"
    halves = np.zeros((40, 40, 3), np.uint8)
    halves[::2] = 1
    same = (resize(halves, (20, 20), "area") == opencv_area(halves, (20, 20))).all()
    assert resize_arithmetic("area") == ("area" if same else "area, Intel IPP")


def test_area_interpolates_linearly_where_both_axes_grow() -> None:
    pixels = noise(9, 7, 0)
    expected = cv2.resize(pixels, (20, 30), interpolation=cv2.INTER_LINEAR)
    assert difference(resize(pixels, (20, 30), "area"), np.asarray(expected, np.uint8)) == 0


@pytest.mark.parametrize("method", RESIZE_METHODS)
@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_that_shrinks_is_antialiased_though_the_other_grows(method: ResizeMethod, axis: int) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[1::2] = 255
    size = (80, 8)
    if axis == 1:
        stripes, size = stripes.transpose(1, 0, 2), (8, 80)
    # The stripes cannot be seen at an eighth of their length, so a uniform grey must remain.
    shrunk = resize(stripes, size, method)
    assert shrunk.min() >= 120
    assert shrunk.max() <= 136


@pytest.mark.parametrize("method", RESIZE_METHODS)
@settings(max_examples=60)
@given(old=st.tuples(SIDES, SIDES), new=st.tuples(SIDES, SIDES), level=st.integers(0, 255))
def test_a_uniform_image_stays_uniform(
    method: ResizeMethod, old: tuple[int, int], new: tuple[int, int], level: int
) -> None:
    resized = resize(np.full((*old, 3), level, np.uint8), new, method)
    assert resized.shape == (new[1], new[0], 3)
    assert (resized == level).all()


@pytest.mark.parametrize("method", RESIZE_METHODS)
@pytest.mark.parametrize("size", [(20, 20), (10, 10), (20, 10), (40, 40)])
def test_a_part_of_an_image_gives_contiguous_pixels(method: ResizeMethod, size: tuple[int, int]) -> None:
    image = picture(50, 40)
    part = image[5:25, 10:30]
    before = image.copy()
    resized = resize(part, size, method)
    assert resized.flags.c_contiguous
    assert resized.dtype == np.uint8
    assert (resized == resize(part.copy(), size, method)).all()
    assert (image == before).all()
