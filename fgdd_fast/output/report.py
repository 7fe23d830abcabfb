"""Report what was chosen: a picture of a distilled data set beside the images that it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from fgdd_engines.bundle.files import write_file
from fgdd_fast.errors import BundleError, DataError, ImageError
from fgdd_fast.images.dataset import SourceImage, data_root, locate
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.place import Location, Place
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.factory import FAMILIES, choose_foreground, open_foreground
from fgdd_fast.models.foreground import ForegroundModel, Pixels
from fgdd_fast.output.contact_sheet import SheetClass, SheetSource, contact_sheet
from fgdd_fast.output.folder import writing
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.manifest_reading import read_manifest
from fgdd_fast.output.mosaic import encode
from fgdd_fast.runtime.choose import RuntimeOptions, runtime_of
from fgdd_fast.selection.records import Tile

SOURCES, MOSAICS = 6, 2  # of each class


def draw_contact_sheet(
    out: str | Path,
    data: str | Path,
    path: str | Path,
    *,
    foreground: str | None = None,
    sources: int = SOURCES,
    mosaics: int = MOSAICS,
    runtime: RuntimeOptions | None = None,
) -> None:
    """Write a picture of what was chosen of DATA, class by class, and why.

    Args:
        out: the distilled data set.
        data: the folder that it was made from.
        path: the PNG file to write.
        foreground: the foreground model that OUT was distilled with; by default the one that its manifest
            names.
        sources: images shown of each class.
        mosaics: mosaics shown of each class.
        runtime: how the foreground model runs.

    Raises:
        DataError: the manifest or an image cannot be read.
        BundleError: the foreground model is not the one that OUT was distilled with.
        OutputError: the file cannot be written.
    """
    out, path = Path(out), Path(path)
    manifest = read_manifest(out)
    with closing(_open_foreground(out, manifest, foreground, runtime or RuntimeOptions())) as model:
        classes = _sheet_classes(manifest, out, Path(data), model, sources=sources, mosaics=mosaics)
        picture = contact_sheet(classes, total=len(manifest.classes))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, encode(picture, "png"))


def _open_foreground(
    out: Path, manifest: Manifest, named: str | None, runtime: RuntimeOptions
) -> ForegroundModel:
    """Open the foreground model that OUT was distilled with, and ask it as then."""
    used = manifest.models["foreground"]
    family = FAMILIES.get(used.name)
    if named is None and family is not None and ":" in family.spelling:
        raise BundleError(
            f"{out} was distilled with given masks", f"Name them again: --foreground {family.spelling}"
        )
    choice = choose_foreground(
        named or used.name,
        manifest.classes,
        prompts=manifest.prompts or None,
        box_threshold=manifest.box_threshold,
    )
    method: ResizeMethod = "pil" if manifest.settings.get("resize") == "pil" else "area"
    model = open_foreground(
        choice,
        runtime=lambda bundle: runtime_of(bundle, runtime),
        batch=1,
        resize=method,
        threads=runtime.threads,
    )
    if model.sha256 != used.sha256:
        model.close()
        raise BundleError(
            f"The foreground model {choice.name} is not the one that {out} was distilled with",
            "Name that one with --foreground.",
        )
    return model


def _sheet_classes(
    manifest: Manifest, out: Path, data: Path, foreground: ForegroundModel, *, sources: int, mosaics: int
) -> Iterator[SheetClass]:
    """Read the images of each class, find their foreground again, and describe what was chosen.

    Args:
        manifest: of the distilled data set.
        out: its folder.
        data: what the source images are in.
        foreground: the model that measured the occupancies.
        sources: source images shown of each class; both kinds of tiles are shown where both were taken.
        mosaics: mosaics shown of each class.

    Raises:
        DataError: a mosaic or a source image is missing, or changed since.
    """
    root, locations = data_root(data), locate(data)
    with ThreadPoolExecutor(foreground.streams, "sheet") as executor:
        for name in manifest.classes:
            images = [image for image in manifest.images if image.class_name == name]
            tiles = [tile for image in images for tile in image.tiles]
            shown = _both_kinds(tiles, sources)
            origins = [
                SourceImage(
                    each.source, name, root, at if isinstance(at := locations(each.source), Place) else None
                )
                for each in shown
            ]
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
    pixels = _read(image.location, tile.sha256)
    try:
        prepared = foreground.prepare(pixels, image)
    except ImageError as error:
        raise DataError(f"{image.location} cannot be shown: {error.problem}", "Distil again.") from error
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


def _read(path: Location, sha256: str | None = None) -> Pixels:
    try:
        image = read_image(path)
    except ImageError as error:
        raise DataError(f"{path} cannot be shown: {error.problem}", "Distil again.") from error
    if sha256 not in (None, image.sha256):
        raise DataError(f"{path} changed since it was distilled", "Distil again.")
    return image.pixels
