"""The mosaics of a distilled data set made anew from its manifest and the photographs, without any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, get_args

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import locate
from fgdd_fast.images.depth import SIXTEEN_BITS, SixteenBit
from fgdd_fast.images.place import Location
from fgdd_fast.images.resize import Pixels, ResizeMethod
from fgdd_fast.images.tiles import read_tile
from fgdd_fast.output.distilled import mosaic_geometry
from fgdd_fast.output.folder import MANIFEST, check_output, output_folder, writing
from fgdd_fast.output.hashes import write_hashes
from fgdd_fast.output.manifest import DistilledImage, Manifest
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.output.mosaic import Format, compose, encode
from fgdd_fast.parallel import ordered_map, single_threaded_opencv
from fgdd_fast.runtime.choose import available_processors
from fgdd_fast.selection.records import Tile

T = TypeVar("T", bound=str)


class TileCutter:
    """Cuts tiles out of photographs as a manifest says they were cut.

    Args:
        manifest: says how tiles were resized.
        size: side of a mosaic in pixels.
        factor: tiles along each side of it.
        locate: says where a source of the manifest lies.

    Raises:
        DataError: the manifest does not say how.
    """

    def __init__(self, manifest: Manifest, size: int, factor: int, locate: Callable[[str], Location]) -> None:
        self.factor = factor
        self._tile_size = size // factor
        self._locate = locate
        self._method: ResizeMethod = _known(manifest, "resize", "area", get_args(ResizeMethod))
        self._sixteen_bit: SixteenBit = _known(manifest, "sixteen_bit", "shift", SIXTEEN_BITS)

    def tile(self, tile: Tile) -> Pixels:
        """Cut one tile, uint8 RGB [side, side, 3].

        Raises:
            DataError: its photograph is missing, or is not the one that the manifest describes.
        """
        return read_tile(
            self._locate(tile.source),
            tile.sha256,
            tile.box,
            self._tile_size,
            self._method,
            sixteen_bit=self._sixteen_bit,
        )

    def join(self, tiles: Sequence[Pixels]) -> Pixels:
        """Join the tiles of a mosaic, row by row, to uint8 RGB [size, size, 3]."""
        return compose(tiles, self.factor)


def _known(manifest: Manifest, name: str, default: T, values: tuple[T, ...]) -> T:
    """A setting that has one of some values."""
    asked = manifest.settings.get(name, default)
    for value in values:
        if value == asked:
            return value
    raise DataError(f"The manifest says {name} {asked!r}, which this version does not know")


def image_format(image: DistilledImage) -> Format:
    """Return the format that a mosaic's file has by its name."""
    formats: tuple[Format, ...] = get_args(Format)
    return next(each for each in formats if image.file.endswith(f".{each}"))


def remake(
    manifest: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Manifest:
    """Make a distilled data set again from its manifest and the photographs that it names.

    No model runs. With the version of OpenCV that the manifest names, every file is the same byte for byte;
    the manifest goes along as it is. Labels are not made: see `make_labels`.

    Args:
        manifest: the file, or the folder of a distilled data set.
        data: the folder of photographs, or the list of them.
        out: the folder to write.
        overwrite: whether an older distilled data set at `out` may be replaced.
        threads: photographs read at once; all processors by default.
        progress: told of each mosaic.

    Returns:
        The manifest.

    Raises:
        DataError: the manifest is damaged, or a photograph is missing or another one.
        OutputError: OUT cannot be written; it is then as it was.
    """
    file, root, out = Path(manifest), Path(data), Path(out)
    file = file / MANIFEST if file.is_dir() else file
    known = read_manifest(file)
    content = file.read_bytes()
    check_output(out, root, overwrite=overwrite)
    cutter = TileCutter(known, *mosaic_geometry(known, file.parent), locate(root))
    workers = threads or available_processors()

    def render(image: DistilledImage) -> tuple[DistilledImage, bytes]:
        mosaic = cutter.join([cutter.tile(tile) for tile in image.tiles])
        return image, encode(mosaic, image_format(image))

    with (
        output_folder(out, overwrite=overwrite) as folder,
        progress.task("Making mosaics", len(known.images)) as task,
        single_threaded_opencv(),
        ThreadPoolExecutor(workers, "compose") as executor,
    ):
        for image, encoded in ordered_map(executor, render, known.images, 2 * workers):
            path = folder / image.file
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded)
            task.advance()
        with writing(folder / MANIFEST):
            (folder / MANIFEST).write_bytes(content)
        write_hashes(folder)
    return known
