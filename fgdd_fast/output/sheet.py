"""Gather from a distilled data set and its source images what a contact sheet shows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import read_image
from fgdd_fast.models.foreground import ForegroundModel, Pixels
from fgdd_fast.output.contact_sheet import SheetClass, SheetSource
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.selection.records import Tile


def sheet_classes(
    manifest: Manifest, out: Path, data: Path, foreground: ForegroundModel, *, sources: int, mosaics: int
) -> Iterator[SheetClass]:
    """Read the images of each class, find their foreground again, and describe what was chosen.

    Args:
        manifest: of the distilled data set.
        out: its folder.
        data: the folder of the source images.
        foreground: the model that measured the occupancies.
        sources: source images shown of each class; both kinds of tiles are shown where both were taken.
        mosaics: mosaics shown of each class.

    Raises:
        DataError: a mosaic or a source image is missing, or changed since.
    """
    with ThreadPoolExecutor(foreground.streams, "sheet") as executor:
        for name in manifest.classes:
            images = [image for image in manifest.images if image.class_name == name]
            tiles = [tile for image in images for tile in image.tiles]
            shown = _both_kinds(tiles, sources)
            origins = [SourceImage(tile.source, name, data) for tile in shown]
            yield SheetClass(
                name=name,
                threshold=manifest.thresholds[name],
                tiles=len(tiles),
                whole_tiles=sum(tile.kind == "full" for tile in tiles),
                sources=tuple(executor.map(partial(_source, foreground), shown, origins)),
                mosaics=tuple(_read(out / image.file) for image in images[:mosaics]),
            )


def _both_kinds(tiles: list[Tile], count: int) -> list[Tile]:
    """At most `count` tiles, lowest loss first, half of each kind as far as there are so many."""
    ranked = sorted(tiles, key=lambda tile: (tile.loss, tile.source))
    whole = [tile for tile in ranked if tile.kind == "full"]
    crops = [tile for tile in ranked if tile.kind == "crop"]
    number = max(min(len(whole), (count + 1) // 2), count - len(crops))
    return whole[:number] + crops[: count - number]


def _source(foreground: ForegroundModel, tile: Tile, image: SourceImage) -> SheetSource:
    pixels = _read(image.path, tile.sha256)
    try:
        prepared = foreground.prepare(pixels, image)
    except ImageError as error:
        raise DataError(f"{image.path} cannot be shown: {error.problem}", "Distil again.") from error
    found = foreground.find([prepared], masks=True)[0]
    return SheetSource(
        pixels=pixels,
        mask=found.mask,
        box=tile.box,
        kind=tile.kind,
        occupancy=tile.occupancy,
        loss=tile.loss,
        found=found.boxes,
    )


def _read(path: Path, sha256: str | None = None) -> Pixels:
    try:
        image = read_image(path)
    except ImageError as error:
        raise DataError(f"{path} cannot be shown: {error.problem}", "Distil again.") from error
    if sha256 not in (None, image.sha256):
        raise DataError(f"{path} changed since it was distilled", "Distil again.")
    return image.pixels
