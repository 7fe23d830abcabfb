"""What the page says of a whole data set: figures, settings, models, times, and what is worth knowing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.run_record import RunRecord
from fgdd_fast.report_page.classes import printable

_NAMED = 6  # classes in a sentence
_LISTED = 500  # skipped images that the overview lists
_MEANINGS = {
    "ipc": "mosaics per class",
    "factor": "tiles along each side of a mosaic",
    "size": "side of a mosaic in pixels",
    "rule": "which images are kept whole",
    "ranking": "which tiles of a class are taken",
    "crops": "candidate crops of each image",
    "pool": "images considered of each class, at most",
    "score_view": "how the teacher is shown a tile",
    "resize": "how images are resized",
    "seed": "of the pool and of the crops",
    "batch": "images an inference",
    "format": "of the mosaics' files",
    "box_threshold": "score from which the foreground model takes a box",
    "keep_foreground": "share of the foreground that a crop keeps",
    "least_area": "share of its image that a crop covers",
    "sixteen_bit": "how images of 16 bits are read",
    "near_duplicates": "bits by which near-duplicates differ, at most",
}


@dataclass(frozen=True)
class Fact:
    """A line of a table: what it is, its value, and what that means."""

    name: str
    value: str
    meaning: str = ""


@dataclass(frozen=True)
class Overview:
    """What the page says before it shows any class.

    Attributes:
        figures: the largest numbers.
        settings, models, run: tables.
        cautions: what a reader should know, one sentence each.
        skipped: images that were left out, with the reasons; the first of them, where they are many.
        more_skipped: how many are not listed.
    """

    figures: tuple[Fact, ...]
    settings: tuple[Fact, ...]
    models: tuple[Fact, ...]
    run: tuple[Fact, ...]
    cautions: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    more_skipped: int


def overview(manifest: Manifest, record: RunRecord | None) -> Overview:
    """Gather what the page says of a distilled data set as a whole.

    Args:
        manifest: of the data set.
        record: of the run that made it, if there is one.
    """
    skipped = [(printable(item.source), printable(item.reason)) for item in manifest.skipped]
    return Overview(
        tuple(_figures(manifest)),
        tuple(
            Fact(name, "none" if value is None else printable(str(value)), _MEANINGS.get(name, ""))
            for name, value in manifest.settings.items()
        ),
        tuple(_models(manifest)),
        tuple(_run(manifest, record)),
        tuple(_cautions(manifest, record)),
        tuple(skipped[:_LISTED]),
        len(skipped[_LISTED:]),
    )


def _figures(manifest: Manifest) -> Iterator[Fact]:
    tiles = [tile for image in manifest.images for tile in image.tiles]
    whole = sum(tile.kind == "full" for tile in tiles)
    yield Fact(_plural(len(manifest.classes), "class", "classes"), f"{len(manifest.classes):,}")
    yield Fact(
        _plural(manifest.image_count, "image considered", "images considered"), f"{manifest.image_count:,}"
    )
    yield Fact(_plural(len(manifest.images), "mosaic", "mosaics"), f"{len(manifest.images):,}")
    yield Fact(_plural(len(tiles), "tile", "tiles"), f"{len(tiles):,}")
    yield Fact("kept whole", f"{whole:,}", _percent(whole, len(tiles)))
    yield Fact(
        _plural(len(tiles) - whole, "crop", "crops"),
        f"{len(tiles) - whole:,}",
        _percent(len(tiles) - whole, len(tiles)),
    )
    yield Fact("skipped", f"{len(manifest.skipped):,}")


def _models(manifest: Manifest) -> Iterator[Fact]:
    for role, model in manifest.models.items():
        plugin = f", of {model.plugin}" if model.plugin else ""
        yield Fact(role, printable(f"{model.name}{plugin}"), f"SHA-256 {model.sha256[:12]}…")
    names = {"runtime": "run by", "fgdd-fast": "made by fgdd-fast", "numpy": "NumPy", "opencv": "OpenCV"}
    order = sorted(manifest.tool, key=lambda name: list(names).index(name) if name in names else len(names))
    for name in order:
        yield Fact(names.get(name, printable(name)), printable(manifest.tool[name]))


def _run(manifest: Manifest, record: RunRecord | None) -> Iterator[Fact]:
    if record is None:
        return
    yield Fact("begun", printable(record.begun.replace("T", " ").replace("+00:00", " UTC")))
    threads = f", {record.threads} {_plural(record.threads, 'thread', 'threads')}" if record.threads else ""
    yield Fact("processor", printable(record.processor) + threads)
    done = {"measuring": (record.measured, "images"), "writing": (len(manifest.images), "mosaics")}
    for stage, seconds in record.seconds.items():
        count, noun = done.get(stage, (0, ""))
        rate = f"{count:,} {noun}, {count / seconds:.3g} a second" if count and seconds >= 0.01 else ""
        if stage == "measuring":
            rate = rate or "all was known already" * (record.measured == 0)
        yield Fact(printable(stage), duration(seconds), rate)


def _cautions(manifest: Manifest, record: RunRecord | None) -> Iterator[str]:
    if record is None:
        yield (
            "The record of the run (run.json) is not beside the manifest: times, foreground outlines, the "
            "occupancies of images that were not chosen and those nearest to a threshold are not known. "
            "Distil again to have them; what was measured is kept."
        )
    else:
        yield from map(printable, record.warnings)
    if manifest.nothing_found and not (record and record.warnings):
        yield (
            f"In {sum(manifest.nothing_found.values()):,} images no foreground was found "
            f"({_most(manifest.nothing_found)}): they are never kept whole, and are taken last."
        )
    if manifest.further_crops:
        count, tiles = len(manifest.further_crops), sum(manifest.further_crops.values())
        yield (
            f"{count:,} {_plural(count, 'class has', 'classes have')} too few images: {tiles:,} tiles are "
            f"further crops of images that had given one ({_most(manifest.further_crops)})."
        )
    if manifest.skipped:
        count = len(manifest.skipped)
        left = _plural(count, "image was", "images were")
        yield f"{count:,} {left} left out: the list below has the reasons."


def _most(counts: Mapping[str, int]) -> str:
    """Name the classes with the largest counts."""
    names = sorted(counts, key=lambda name: (-counts[name], name))
    named = ", ".join(f"{printable(name)} {counts[name]:,}" for name in names[:_NAMED])
    return named + (", …" if len(names) > _NAMED else "")


def duration(seconds: float) -> str:
    """Return a time in words, such as `3 min 20 s`."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ""
