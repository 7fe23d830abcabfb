"""Cut a tile from the file of its image."""

from __future__ import annotations

from pathlib import Path

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import Pixels, ResizeMethod
from fgdd_fast.images.views import tile_pixels
from fgdd_fast.selection.records import Tile


def read_tile(tile: Tile, path: Path, tile_size: int, method: ResizeMethod) -> Pixels:
    """Read a tile's image and cut the tile out, uint8 [tile_size, tile_size, 3].

    Args:
        tile: what to cut.
        path: the file of its source.
        tile_size: side of the tile in pixels.
        method: how to resize.

    Raises:
        DataError: the image changed since it was measured, or can no longer be read.
    """
    try:
        image = read_image(path)
    except ImageError as error:
        raise DataError(f"The image {path} can no longer be read: {error.problem}", "Run again.") from error
    if image.sha256 != tile.sha256:
        raise DataError(f"The image {path} changed since it was measured", "Run again to measure it anew.")
    return tile_pixels(image.pixels, tile.box, tile_size, method)
