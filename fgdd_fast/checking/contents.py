"""Checks of what files hold: other formats than they are named by, depths, pages, masks, odd pictures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from fgdd_fast.checking.findings import counted, some
from fgdd_fast.checking.reading import File, Looks, largest_value
from fgdd_fast.checking.registry import Found, check
from fgdd_fast.checking.seen import Seen
from fgdd_fast.errors import ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import read_file
from fgdd_fast.images.file_kinds import UNREADABLE, has_suffix_of
from fgdd_fast.images.headers import read_header
from fgdd_fast.images.place import Location
from fgdd_fast.models.factory import FAMILIES
from fgdd_fast.models.given.annotated import AnnotatedForeground
from fgdd_fast.models.given.given import GivenFamily

_SAMPLED = 8  # images of 16 bits of each class whose values are looked at
_FULL = 1 << 15  # a value that 15 bits do not hold
_FENCE = 3.0  # interquartile ranges below the lower quartile: Tukey's "far out"
_ENOUGH = 12  # images, for quartiles


@check("other-format", "note", needs="files", about="images that are of another format than their name says")
def other_formats(seen: Seen) -> Iterator[Found]:
    """Images by their content: of another suffix, or none; unreadable ones whose suffix seems readable."""
    named = [file for file in seen.files if file.format and not has_suffix_of(file.name, file.format)]
    hidden = [file for file in named if file.format in UNREADABLE]
    for image_format in sorted({file.format for file in hidden}):
        files = tuple(file.name for file in hidden if file.format == image_format)
        yield Found(
            f"{counted(len(files), 'image is', 'images are')} of the format {image_format} in truth, which "
            "cannot be read",
            "Convert them, for example with ImageMagick: magick FILE FILE.png",
            files,
            severity="warning",
        )
    if others := [file for file in named if file.format not in UNREADABLE]:
        kinds = Counter(file.format for file in others).most_common()
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds)
        yield Found(
            f"{counted(len(others), 'image has', 'images have')} another suffix than its format's: {listed}",
            "They are read by their content. Other programs may not find them: rename them.",
            tuple(file.name for file in others),
        )


@check(
    "sixteen-bit", "warning", needs="files", about="pictures of 12 or 14 bits stored in 16, which turn black"
)
def sixteen_bits(seen: Seen) -> Iterator[Found]:
    """Images of 16 bits whose values would fit into fewer: only the upper 8 are taken, so they turn black."""
    if seen.sixteen_bit != "shift":
        return
    deep = [file for file in seen.files if file.deep]
    by_class: defaultdict[str, list[File]] = defaultdict(list)
    for file in deep:
        by_class[file.image.class_name].append(file)
    sampled = [file for files in by_class.values() for file in files[:: -(-len(files) // _SAMPLED)]]
    values = [value for file in sampled if (value := largest_value(file.image.location)) is not None]
    if values and max(values) < _FULL:
        used = max(max(values).bit_length(), 1)
        yield Found(
            f"{counted(len(deep), 'image holds', 'images hold')} 16 bits, and their values use {used} of "
            f"them ({len(values)} looked at): read as 16 bits they are dark or black",
            "Read them by the bits that they use: --sixteen-bit scale",
            tuple(file.name for file in deep),
        )


@check(
    "several-pages", "note", needs="files", about="TIFF files of several pages, of which the first is taken"
)
def several_pages(seen: Seen) -> Iterator[Found]:
    """TIFF files with further pages."""
    files = [file for file in seen.files if file.pages > 1]
    if files:
        pages = sum(file.pages for file in files)
        yield Found(
            f"{counted(len(files), 'TIFF has', 'TIFFs have')} several pages, {pages} in all: the first of "
            "each is taken",
            "If each is an image, split them, for example with: magick FILE.tif FILE-%d.png",
            tuple(file.name for file in files),
        )


@check("masks", "error", needs="files", about="masks drawn on images before they were turned upright")
def masks(seen: Seen) -> Iterator[Found]:
    """Masks of `masks:FOLDER` beside images with an Exif orientation."""
    kind, _, folder = seen.foreground.partition(":")
    if kind != "masks" or not folder:
        return
    turned: list[str] = []
    untold: list[str] = []
    for file in seen.files:
        if file.orientation == 1 or (mask := _mask_of(Path(folder), file.image)) is None:
            continue
        stored, own = _size(file.image.location), _size(mask)
        if stored is None or own is None:
            continue
        sideways = file.orientation >= 5 and not _same_aspect(stored, stored[::-1])
        if sideways and _same_aspect(own, stored):
            turned.append(file.name)
        elif not sideways:
            untold.append(file.name)
    if turned:
        yield Found(
            f"{counted(len(turned), 'mask fits', 'masks fit')} the image as it is stored, before its Exif "
            "orientation turns it upright: such masks are refused",
            f"If they were all drawn so, name them as --foreground stored-masks:{folder}",
            tuple(turned),
        )
    if untold:
        yield Found(
            f"{counted(len(untold), 'image is', 'images are')} turned upright by Exif without another "
            "aspect, so that nothing tells whether the mask was drawn before or after",
            f"Look at one. If masks were drawn before: --foreground stored-masks:{folder}",
            tuple(untold),
            severity="warning",
        )


@check("annotations", "warning", needs="files", about="images and annotations that do not go together")
def annotated(seen: Seen) -> Iterator[Found]:
    """Images that `coco:FILE` or `yolo:FOLDER` lacks, or mistakes; classes of which it names no object."""
    name, _, path = seen.foreground.partition(":")
    family = FAMILIES.get(name)
    if not isinstance(family, GivenFamily) or not path:
        return
    model = family.model(Path(path), seen.data.classes, seen.threads)
    if not isinstance(model, AnnotatedForeground):
        return
    owners: defaultdict[str, list[str]] = defaultdict(list)
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    for image in seen.images:
        try:
            owners[model.path_of(image)].append(image.source)
        except ImageError as error:
            left_out[error.problem].append(image.source)
    for problem, sources in left_out.items():
        yield Found(
            f"{counted(len(sources), 'image')} of {len(seen.images)}: each {problem}, and is skipped",
            f"Paths in {path} have to end as those of the images in DATA do, or in the same name at least.",
            tuple(sources),
            severity="error" if len(sources) == len(seen.images) else None,
        )
    shared = tuple(tuple(sources) for sources in owners.values() if len(sources) > 1)
    if shared:
        yield Found(
            f"{counted(len(shared), 'annotated image is', 'annotated images are')} by name several of DATA",
            f"If they are not the same picture, give them paths in {path} that end as those in DATA do.",
            groups=shared,
        )
    if model.unnamed:
        yield Found(
            f"No object is named as the class is, so that all objects count: {some(model.unnamed)}",
            "Name categories as the folders, or leave out objects of other classes.",
            severity="note",
        )


def _mask_of(folder: Path, image: SourceImage) -> Path | None:
    source = PurePosixPath(image.source)
    names = (folder / f"{source}.png", folder / source.with_suffix(".png"))
    return next((name for name in names if name.is_file()), None)


def _size(path: Location) -> tuple[int, int] | None:
    """Width and height in pixels as stored."""
    try:
        header = read_header(read_file(path).content)
    except ImageError:
        return None
    return header.width, header.height


def _same_aspect(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes are of one aspect, but for a pixel by which one was rounded."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


@check("damaged", "warning", needs="pixels", about="images that cannot be decoded, with the reasons")
def damaged(seen: Seen) -> Iterator[Found]:
    """Images that the work will skip, a line for each reason."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for item in seen.damaged:
        files[item.reason].append(item.source)
    for reason, sources in sorted(files.items(), key=lambda item: -len(item[1])):
        yield Found(
            f"{counted(len(sources), 'image')} cannot be used: {reason}",
            "They are skipped. Get or save them anew, or delete them.",
            tuple(sources),
        )


@check("small", "note", needs="pixels", about="images smaller than the tile that shows them")
def small(seen: Seen) -> Iterator[Found]:
    """Images that have to be enlarged even where they are shown whole."""
    files = [name for name, looks in seen.looks.items() if min(looks.width, looks.height) < seen.tile]
    if files:
        yield Found(
            f"{counted(len(files), 'image is', 'images are')} smaller than a tile of {seen.tile} pixels: "
            "enlarged, with their crops",
            "Lower --size, or raise --factor, if that is most of them.",
            tuple(files),
        )


@check(
    "odd-looks",
    "note",
    needs="pixels",
    about="images far darker, plainer or blurrier than others of their class",
)
def odd_looks(seen: Seen) -> Iterator[Found]:
    """Images that lie far out of their class's own distribution, at the size of a tile."""
    members: defaultdict[str, list[tuple[str, Looks]]] = defaultdict(list)
    for name, looks in seen.looks.items():
        members[looks.class_name].append((name, looks))
    measures: dict[str, Callable[[Looks], float]] = {
        "darker": lambda looks: looks.brightness,
        "plainer": lambda looks: looks.contrast,
        "blurrier": lambda looks: looks.sharpness,
    }
    for word, measure in measures.items():
        files: list[str] = []
        for of_class in members.values():
            values = np.log1p([measure(looks) for _, looks in of_class])
            if len(values) >= _ENOUGH:
                low, high = np.quantile(values, (0.25, 0.75))
                limit = low - _FENCE * (high - low)
                files += [name for (name, _), value in zip(of_class, values, strict=True) if value < limit]
        if files:
            yield Found(
                f"{counted(len(files), 'image is', 'images are')} far {word} than others of their class, at "
                f"{seen.tile} pixels",
                "Look at them: a broken picture teaches nothing.",
                tuple(files),
            )
