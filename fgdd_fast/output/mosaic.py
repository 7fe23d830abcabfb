"""Mosaics: the distilled images, each a square of factor x factor tiles, in RDED's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from fgdd_fast.errors import OutputError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.selection.records import Tile

Format = Literal["png", "jpg"]

_ENCODING: dict[Format, list[int]] = {
    "png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
    "jpg": [
        cv2.IMWRITE_JPEG_QUALITY,
        95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,  # a mosaic's seams are sharp in colour too
    ],
}


@dataclass(frozen=True)
class Mosaic:
    """One distilled image.

    Attributes:
        index: its place among its class's mosaics, from 0.
        tiles: factor * factor tiles, row by row.
    """

    index: int
    tiles: tuple[Tile, ...]


def arrange(tiles: Sequence[Tile], ipc: int, factor: int) -> tuple[Mosaic, ...]:
    """Deal a class's ranked tiles out to its mosaics: cell k of mosaic j takes the tile of rank k * ipc + j.

    So every mosaic gets tiles of all ranks (RDED, Sun et al., CVPR 2024).

    Args:
        tiles: ipc * factor * factor tiles, best first.
        ipc: mosaics per class.
        factor: tiles along each side of a mosaic.
    """
    if len(tiles) != ipc * factor**2:
        raise ValueError(
            f"{ipc} mosaics of {factor} x {factor} need {ipc * factor**2} tiles, got {len(tiles)}"
        )
    return tuple(Mosaic(index, tuple(tiles[index::ipc])) for index in range(ipc))


def compose(pixels: Sequence[Pixels], factor: int) -> Pixels:
    """Join tiles to a mosaic.

    Args:
        pixels: factor * factor tiles, row by row, each uint8 [side, side, 3].
        factor: tiles along each side.

    Returns:
        uint8 [factor * side, factor * side, 3].
    """
    if len(pixels) != factor**2:
        raise ValueError(f"a mosaic of {factor} x {factor} needs {factor**2} tiles, got {len(pixels)}")
    side = len(pixels[0])
    mosaic = np.empty((factor * side, factor * side, 3), np.uint8)
    for place, tile in enumerate(pixels):
        row, column = divmod(place, factor)
        mosaic[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile
    return mosaic


def encode(pixels: Pixels, format: Format) -> bytes:
    """Encode RGB pixels, uint8 [height, width, 3], as PNG or as JPEG (quality 95, no chroma subsampling).

    The same pixels give the same bytes with the same version of OpenCV.

    Raises:
        OutputError: OpenCV cannot encode the format.
    """
    try:
        done, content = cv2.imencode(f".{format}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _ENCODING[format])
    except cv2.error as error:
        raise OutputError(f"OpenCV cannot encode a mosaic as {format}: {error}") from error
    if not done:
        raise OutputError(f"OpenCV cannot encode a mosaic as {format}")
    return content.tobytes()
