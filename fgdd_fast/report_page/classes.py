"""What the page shows of each class, but for pictures: JSON values from the manifest and the run's record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.options import NO_FOREGROUND
from fgdd_fast.output.manifest import DistilledImage, Manifest
from fgdd_fast.output.run_record import ClassRecord, RunRecord, SourceRecord
from fgdd_fast.selection.records import Tile
from fgdd_fast.selection.thresholds import Rule, parse_rule

BINS = 40  # of a histogram of occupancies
_DIGITS = 4


@dataclass(frozen=True)
class ClassPage:
    """What is shown of one class.

    Attributes:
        name: the class.
        images: its mosaics.
        sources: the images shown: those of its tiles, then those nearest to its threshold, each once.
        near: the latter.
        data: everything but pictures, for the page's script.
    """

    name: str
    images: tuple[DistilledImage, ...]
    sources: tuple[str, ...]
    near: frozenset[str]
    data: Mapping[str, Any]


def printable(text: str) -> str:
    """Return text that UTF-8 can hold: bytes of names that are no UTF-8 are shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def rule_of(manifest: Manifest) -> Rule | None:
    """The threshold rule that a data set was distilled by; None for one that is not known here."""
    try:
        return parse_rule(str(manifest.settings.get("rule")))
    except SettingsError:
        return None


def looked_for_foreground(manifest: Manifest) -> bool:
    """Whether a data set's occupancies mean anything."""
    return manifest.models["foreground"].name != NO_FOREGROUND


def class_pages(manifest: Manifest, record: RunRecord | None) -> Iterator[ClassPage]:
    """Yield what is shown of each class, in the order of the labels.

    Args:
        manifest: of the distilled data set.
        record: of the run that made it, if there is one.
    """
    record = record or RunRecord()
    rule = rule_of(manifest)
    always = rule is not None and not rule.needs_foreground
    images: dict[str, list[DistilledImage]] = {name: [] for name in manifest.classes}
    for image in manifest.images:
        images[image.class_name].append(image)
    skipped: dict[str, list[Skipped]] = {name: [] for name in manifest.classes}
    for item in manifest.skipped:
        skipped.get(item.source.split("/")[0], []).append(item)
    for name in manifest.classes:
        page = _ClassData(name, tuple(images[name]), record.classes.get(name, ClassRecord()), record.sources)
        yield page.build(
            threshold=None if always else manifest.thresholds[name],
            further=manifest.further_crops.get(name, 0),
            nothing=manifest.nothing_found.get(name, 0),
            skipped=skipped[name],
            prompts=manifest.prompts.get(name, ()),
        )


@dataclass(frozen=True)
class _ClassData:
    """What is known of one class."""

    name: str
    images: tuple[DistilledImage, ...]
    record: ClassRecord
    known: Mapping[str, SourceRecord]

    def build(
        self,
        *,
        threshold: float | None,
        further: int,
        nothing: int,
        skipped: Sequence[Skipped],
        prompts: Sequence[str],
    ) -> ClassPage:
        tiles = [
            (place, index, tile)
            for index, image in enumerate(self.images)
            for place, tile in enumerate(image.tiles)
        ]
        near = tuple(source for source in self.record.near if source in self.known)
        order = dict.fromkeys([*(tile.source for _, _, tile in tiles), *near])
        number = {source: place for place, source in enumerate(order)}
        chosen = {tile.source for _, _, tile in tiles}
        occupancies = self.record.occupancies or tuple(
            sorted({tile.source: tile.occupancy for _, _, tile in tiles}.values())
        )
        below, above = histogram(occupancies, threshold)
        data = {
            "name": printable(self.name),
            "threshold": threshold,
            "images": len(self.record.occupancies) or None,
            "below": below,
            "above": above,
            "further": further,
            "nothing": nothing,
            "prompts": [printable(prompt) for prompt in prompts],
            "files": [printable(image.file) for image in self.images],
            "tiles": [self._tile(place, index, tile, number) for place, index, tile in tiles],
            "sources": [self._source(source) for source in order],
            "near": [
                {
                    "s": number[source],
                    "o": round(self.known[source].occupancy, _DIGITS),
                    "l": _short(self.known[source].loss),
                    "k": int(source in self.record.above),
                    "chosen": source in chosen,
                }
                for source in near
            ],
            "skipped": [[printable(item.source), printable(item.reason)] for item in skipped],
        }
        return ClassPage(self.name, self.images, tuple(order), frozenset(near), data)

    def _tile(self, place: int, index: int, tile: Tile, number: Mapping[str, int]) -> list[Any]:
        """Source, mosaic, cell, rank, kind (1 is whole), occupancy, loss, box."""
        rank = place * len(self.images) + index + 1  # how `mosaic.arrange` deals tiles out
        kind = int(tile.kind == "full")
        return [number[tile.source], index, place, rank, kind, tile.occupancy, _short(tile.loss), *tile.box]

    def _source(self, source: str) -> list[Any]:
        """Path, width, height, outline; the last three 0, 0 and null where they are not known."""
        known = self.known.get(source)
        if known is None:
            return [printable(source), 0, 0, None]
        return [printable(source), *known.size, known.outline]


def histogram(occupancies: Sequence[float], threshold: float | None) -> tuple[list[int], list[int]]:
    """Count occupancies in `BINS` equal parts of [0, 1]: those below a threshold, and all others."""
    below, above = [0] * BINS, [0] * BINS
    for value in occupancies:
        side = below if threshold is not None and value < round(threshold, 5) else above
        side[min(int(value * BINS), BINS - 1)] += 1
    return below, above


def _short(loss: float | None) -> float | None:
    return None if loss is None else float(f"{loss:.4g}")
