"""Ways to get tiles from an image file: the product's, and what was tried to be quicker.

`decoding` measures them. A way takes the file's bytes, boxes and the tile's side; a cut takes decoded pixels
and one box. A tile is uint8 [side, side, 3] in RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from fgdd_fast.images.decode import decode_image
from fgdd_fast.images.headers import read_header
from fgdd_fast.images.resize import Pixels, ResizeMethod, resize
from fgdd_fast.images.views import tile_pixels
from fgdd_fast.selection.records import Box

Way = Callable[[bytes, Sequence[Box], int], list[Pixels]]
Cut = Callable[[Pixels, Box, int], Pixels]


def each(cut: Cut) -> Way:
    """Decode as the product does, and cut each tile alone."""

    def way(content: bytes, boxes: Sequence[Box], side: int) -> list[Pixels]:
        pixels = decode_image(content)
        return [cut(pixels, box, side) for box in boxes]

    return way


def product(method: ResizeMethod) -> Cut:
    """As the pipeline does."""
    return lambda pixels, box, side: tile_pixels(pixels, box, side, method)


def plain(interpolation: int) -> Cut:
    """By one call of OpenCV, as anybody would."""

    def cut(pixels: Pixels, box: Box, side: int) -> Pixels:
        tile = cv2.resize(_part(pixels, box), (side, side), interpolation=interpolation)
        return np.asarray(tile, np.uint8)

    return cut


def two_passes(pixels: Pixels, box: Box, side: int) -> Pixels:
    """Average along columns, turn, and do it again: IPP is quicker along columns. Rounds twice."""
    low = resize(_part(pixels, box), (box.width, side), "area")
    turned = resize(np.asarray(cv2.transpose(low), np.uint8), (side, side), "area")
    return np.asarray(cv2.transpose(turned), np.uint8)


def doubled(pixels: Pixels, box: Box, side: int) -> Pixels:
    """Interpolate linearly to twice the tile's side, then average 2 x 2 pixels."""
    twice = cv2.resize(_part(pixels, box), (2 * side, 2 * side), interpolation=cv2.INTER_LINEAR)
    return _halved(np.asarray(twice, np.uint8))


def halved_box(pixels: Pixels, box: Box, side: int) -> Pixels:
    """Average 2 x 2 pixels of the box, then interpolate linearly; a small box as the product cuts it."""
    if not _can_be_halved(box, side):
        return tile_pixels(pixels, box, side, "area")
    half = _halved(_part(pixels, box))
    # Of an odd length the last pixel is left out, and the scale is the box's own.
    across, down = 2 * side / box.width, 2 * side / box.height
    return np.asarray(cv2.resize(half, None, fx=across, fy=down, interpolation=cv2.INTER_LINEAR), np.uint8)


def halved_image(content: bytes, boxes: Sequence[Box], side: int) -> list[Pixels]:
    """Halve the image once, and interpolate large boxes from that; small boxes as the product cuts them."""
    pixels = decode_image(content)
    half = _halved(pixels)
    return [
        _interpolated(half, box, side)
        if _can_be_halved(box, side)
        else tile_pixels(pixels, box, side, "area")
        for box in boxes
    ]


def reduced_decoding(content: bytes, boxes: Sequence[Box], side: int) -> list[Pixels]:
    """Decode an upright JPEG at half its size where every box is large enough; everything else as usual."""
    header = read_header(content)
    upright = header.format == "JPEG" and header.orientation == 1
    if not upright or not all(_can_be_halved(box, side) for box in boxes):
        return each(product("area"))(content, boxes, side)
    flags = cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION
    half = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), flags), np.uint8)
    tiles = (_interpolated(half, box, side) for box in boxes)
    return [np.asarray(cv2.cvtColor(tile, cv2.COLOR_BGR2RGB), np.uint8) for tile in tiles]


def _part(pixels: Pixels, box: Box) -> Pixels:
    return pixels[box.y : box.y + box.height, box.x : box.x + box.width]


def _can_be_halved(box: Box, side: int) -> bool:
    return min(box.width, box.height) >= 2 * side


def _halved(pixels: Pixels) -> Pixels:
    """Means of 2 x 2 pixels, quick in every OpenCV; the last row or column of an odd length is left out."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    even = pixels[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _interpolated(half: Pixels, box: Box, side: int) -> Pixels:
    """A tile, interpolated linearly in an image of half the size, where the box may begin within a pixel."""
    across, down = box.width / (2 * side), box.height / (2 * side)
    # The centre of the tile's first pixel, counted from the centre of the image's first.
    left, top = (box.x + across) / 2 - 0.5, (box.y + down) / 2 - 0.5
    tile = cv2.warpAffine(
        half,
        np.array([[across, 0, left], [0, down, top]]),
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(tile, np.uint8)


def _decoder(flags: int) -> Callable[[bytes], object]:
    return lambda content: cv2.imdecode(np.frombuffer(content, np.uint8), flags)


WAYS: Mapping[str, Way] = {
    "area": each(product("area")),
    "pil": each(product("pil")),
    "INTER_AREA without IPP": each(plain(cv2.INTER_AREA)),
    "two passes": each(two_passes),
    "double size, averaged": each(doubled),
    "boxes halved, linear": each(halved_box),
    "image halved, linear": halved_image,
    "decoded at half size": reduced_decoding,
    "linear, aliased": each(plain(cv2.INTER_LINEAR)),
}
REFERENCE = "INTER_AREA without IPP"

# What OpenCV needs for a file's colours, for its luma, and for smaller images: parts of a picture's cost.
DECODERS: Mapping[str, Callable[[bytes], object]] = {
    "colour": _decoder(cv2.IMREAD_COLOR),
    "luma alone": _decoder(cv2.IMREAD_GRAYSCALE),
    "half size": _decoder(cv2.IMREAD_REDUCED_COLOR_2),
    "quarter size": _decoder(cv2.IMREAD_REDUCED_COLOR_4),
    "eighth size": _decoder(cv2.IMREAD_REDUCED_COLOR_8),
}
