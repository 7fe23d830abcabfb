"""Tiles of a mosaic, cut from the files of their images, and what the teacher is shown of them."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from fgdd_fast.errors import DataError, ImageError, SettingsError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.depth import SixteenBit, read_image_at
from fgdd_fast.images.place import Location
from fgdd_fast.images.resize import Pixels, ResizeMethod, resize

ScoreView = Literal["pad", "resize", "native"]
SCORE_VIEWS: tuple[ScoreView, ...] = ("pad", "resize", "native")


def tile_pixels(pixels: Pixels, box: Box, tile_size: int, method: ResizeMethod) -> Pixels:
    """Cut a box out of an image and make it a tile; scoring and mosaics both use this.

    Args:
        pixels: uint8 [height, width, 3].
        box: the part wanted, inside the image.
        tile_size: side of the tile in pixels.
        method: how to resize.

    Returns:
        uint8 [tile_size, tile_size, 3], contiguous.
    """
    part = pixels[box.y : box.y + box.height, box.x : box.x + box.width]
    return resize(part, (tile_size, tile_size), method)


def read_tile(
    path: Location,
    sha256: str,
    box: Box,
    tile_size: int,
    method: ResizeMethod,
    sixteen_bit: SixteenBit = "shift",
) -> Pixels:
    """Read an image and cut a tile out of it, uint8 [tile_size, tile_size, 3].

    Args:
        path: where its source lies.
        sha256: hexadecimal hash that the file had when the box was chosen.
        box: the part wanted, inside the image.
        tile_size: side of the tile in pixels.
        method: how to resize.
        sixteen_bit: how samples of 16 bits are read; see `fgdd_fast.images.depth`.

    Raises:
        DataError: the image changed since it was measured, or can no longer be read; or the box lies outside.
    """
    try:
        image = read_image_at(path, sixteen_bit)
    except ImageError as error:
        raise DataError(f"The image {path} can no longer be read: {error.problem}", "Run again.") from error
    if image.sha256 != sha256:
        raise DataError(f"The image {path} changed since it was measured", "Run again to measure it anew.")
    height, width = image.pixels.shape[:2]
    if min(box) < 0 or not box.width or box.x + box.width > width or box.y + box.height > height:
        raise DataError(f"The box {list(box)} lies outside the image {path}")
    return tile_pixels(image.pixels, box, tile_size, method)


def default_view(tile_size: int, input_size: int) -> ScoreView:
    """The view in which a teacher scores tiles, where none is asked for.

    `pad`, as in RDED, for tiles from half of the teacher's side on, as RDED's mosaics of 2 x 2 tiles have.
    Smaller ones are lost in the padding: a teacher of 224 pixels named 39 % of photographs right as tiles of
    64 pixels, and 77 % with `resize` (`benchmarks/results/views-64.json`). Tiles larger than the input
    cannot be padded.

    Args:
        tile_size: side of a tile in pixels.
        input_size: side of the teacher's input in pixels.
    """
    return "pad" if input_size <= 2 * tile_size <= 2 * input_size else "resize"


def view_size(view: ScoreView, tile_size: int, input_size: int) -> int:
    """Side in pixels of what a teacher with inputs of `input_size` is shown of a tile.

    Raises:
        SettingsError: the tile is larger than the input, so padding cannot show it.
    """
    if view == "native":
        return tile_size
    if view == "pad" and tile_size > input_size:
        raise SettingsError(
            f"The score view 'pad' cannot show tiles of {tile_size} pixels in an input of {input_size}",
            "Choose the score view 'resize', a larger factor, or a smaller size.",
        )
    return input_size


def teacher_view(tile: Pixels, view: ScoreView, input_size: int, pad_value: tuple[int, int, int]) -> Pixels:
    """Show a tile to the teacher.

    Args:
        tile: uint8 [tile, tile, 3].
        view: `pad` puts the tile into the middle of the input, with `pad_value` around it, as RDED does (an
            odd pixel of the border goes to the bottom and to the right); `resize` enlarges the tile to the
            input, linearly; `native` shows the tile as it is.
        input_size: side of the teacher's input in pixels.
        pad_value: RGB value that the teacher's normalisation takes to zero.

    Returns:
        uint8 [side, side, 3] with `side` from `view_size`; with `native`, the tile itself.

    Raises:
        SettingsError: the tile is larger than the input, so padding cannot show it.
    """
    tile_size = tile.shape[0]
    side = view_size(view, tile_size, input_size)
    if view != "pad":
        return resize(tile, (side, side), "area")
    before = (side - tile_size) // 2
    after = side - tile_size - before
    padded = cv2.copyMakeBorder(tile, before, after, before, after, cv2.BORDER_CONSTANT, value=pad_value)
    return np.asarray(padded, np.uint8)
