"""Write the mosaics of a plan: their tiles are cut from the images anew, joined and encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fgdd_fast.images.place import Location
from fgdd_fast.images.tiles import read_tile
from fgdd_fast.output.folder import write_image
from fgdd_fast.output.mosaic import Mosaic, compose, encode
from fgdd_fast.parallel import ordered_map, single_threaded_opencv
from fgdd_fast.planning import MosaicSettings, Plan


def write_mosaics(
    plan: Plan,
    paths: Mapping[str, Location],
    folder: Path,
    *,
    threads: int,
) -> Iterator[tuple[str, str, Mosaic]]:
    """Cut the tiles from their images, join and write them.

    Args:
        plan: the mosaics.
        paths: where each source lies.
        folder: the output's temporary folder.
        threads: images read and encoded at the same time.

    Yields:
        (path of the file within the folder, class, mosaic).

    Raises:
        DataError: an image changed since it was measured.
        OutputError: a file cannot be written.
    """

    def made(item: tuple[str, Mosaic]) -> tuple[str, str, Mosaic]:
        name, mosaic = item
        content = _render(mosaic, paths, plan.settings)
        return write_image(folder, name, mosaic.index, content, plan.settings.format), name, mosaic

    with single_threaded_opencv(), ThreadPoolExecutor(threads, "compose") as executor:
        yield from ordered_map(executor, made, plan.mosaics, 2 * threads)


def mosaic_bytes(plan: Plan, paths: Mapping[str, Location], *, threads: int) -> Iterator[int]:
    """Yield how large the file of each mosaic would be; nothing is written.

    Args, Raises: as for `write_mosaics`.
    """

    def size(item: tuple[str, Mosaic]) -> int:
        return len(_render(item[1], paths, plan.settings))

    with single_threaded_opencv(), ThreadPoolExecutor(threads, "compose") as executor:
        yield from ordered_map(executor, size, plan.mosaics, 2 * threads)


def _render(mosaic: Mosaic, paths: Mapping[str, Location], settings: MosaicSettings) -> bytes:
    """The content of a mosaic's file."""
    tiles = [
        read_tile(
            paths[tile.source],
            tile.sha256,
            tile.box,
            settings.tile_size,
            settings.resize,
            settings.sixteen_bit,
        )
        for tile in mosaic.tiles
    ]
    return encode(compose(tiles, settings.factor), settings.format)
