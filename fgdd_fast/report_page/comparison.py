"""Which tiles of two distilled data sets differ, and why, as far as their manifests tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fgdd_fast.output.manifest import Manifest
from fgdd_fast.report_page.classes import rule_of
from fgdd_fast.selection.records import Tile

# Settings by which an image may give another crop, or be considered or not.
_OF_CROPS = (
    "crops",
    "seed",
    "keep_foreground",
    "least_area",
    "score_view",
    "size",
    "factor",
    "resize",
    "batch",
)
_OF_THE_POOL = ("pool", "seed", "near_duplicates")


@dataclass(frozen=True)
class PlacedTile:
    """A tile, and where it lies: the mosaic's place among all of its data set, and its cell."""

    tile: Tile
    image: int
    cell: int


@dataclass(frozen=True)
class Change:
    """A tile that the data sets do not share.

    Attributes:
        before: in A; None where B alone has it.
        after: in B, of the same image; None where A alone has it.
        reason: why they differ.
    """

    before: PlacedTile | None
    after: PlacedTile | None
    reason: str

    @property
    def loss(self) -> float:
        """Of the tile, of that in A if both have one."""
        placed = self.before or self.after
        assert placed is not None
        return placed.tile.loss


@dataclass(frozen=True)
class ClassComparison:
    """How the tiles of a class differ.

    Attributes:
        name: the class.
        same: tiles that both have.
        thresholds: of A and of B; None where one does not have the class.
        changes: what differs, by ascending loss.
    """

    name: str
    same: int
    thresholds: tuple[float | None, float | None]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Difference:
    """A setting, model or version that differs."""

    name: str
    before: str
    after: str


def differences(a: Manifest, b: Manifest) -> Iterator[Difference]:
    """Yield each setting, model and version in which two data sets differ."""
    described = [
        {
            **{name: "none" if value is None else str(value) for name, value in each.settings.items()},
            **{
                f"{role} model": f"{model.name} ({model.sha256[:12]}…)" for role, model in each.models.items()
            },
            **{f"version of {name}": version for name, version in each.tool.items()},
            "images considered": f"{each.image_count:,}",
            "images left out": f"{len(each.skipped):,}",
            "prompts": "; ".join(f"{name}: {', '.join(each.prompts[name])}" for name in sorted(each.prompts)),
        }
        for each in (a, b)
    ]
    for name in dict.fromkeys([*described[0], *described[1]]):
        before, after = (each.get(name, "not set") for each in described)
        if before != after:
            yield Difference(name, before, after)


def compare(a: Manifest, b: Manifest) -> Iterator[ClassComparison]:
    """Yield how the tiles of each class differ, in the order of A's labels, then of B's.

    A tile is the same where class, file, box and path are; it may lie in another mosaic.
    """
    sides = (_Side("A", a), _Side("B", b))
    for name in dict.fromkeys([*a.classes, *b.classes]):
        before, after = (_by_identity(side.tiles.get(name, ())) for side in sides)
        gone = [before[key] for key in before if key not in after]
        new = [after[key] for key in after if key not in before]
        changes = sorted(_changes(name, gone, new, sides), key=lambda change: change.loss)
        thresholds = (sides[0].threshold(name), sides[1].threshold(name))
        yield ClassComparison(name, len(before) - len(gone), thresholds, tuple(changes))


def _by_identity(tiles: Sequence[PlacedTile]) -> dict[tuple[object, ...], PlacedTile]:
    return {
        (placed.tile.source, placed.tile.sha256, placed.tile.box, placed.tile.kind): placed
        for placed in tiles
    }


@dataclass(frozen=True)
class _Side:
    """One of the two data sets."""

    letter: str
    manifest: Manifest

    @cached_property
    def tiles(self) -> Mapping[str, Sequence[PlacedTile]]:
        """By class."""
        found: dict[str, list[PlacedTile]] = {}
        for number, image in enumerate(self.manifest.images):
            placed = [PlacedTile(tile, number, cell) for cell, tile in enumerate(image.tiles)]
            found.setdefault(image.class_name, []).extend(placed)
        return found

    @cached_property
    def skipped(self) -> Mapping[str, str]:
        return {item.source: item.reason for item in self.manifest.skipped}

    @cached_property
    def always(self) -> bool:
        """Whether occupancies play no part, or exchanged ones."""
        rule = rule_of(self.manifest)
        return rule is None or rule.control is not None or not rule.needs_foreground

    def threshold(self, name: str) -> float | None:
        """The threshold of a class; None where there is no such class, or the rule asks for none."""
        rule = rule_of(self.manifest)
        return self.manifest.thresholds.get(name) if rule is None or rule.needs_foreground else None

    def ranks_by_loss(self) -> bool:
        return self.manifest.settings.get("ranking") == "loss"


def _changes(
    name: str, gone: Sequence[PlacedTile], new: Sequence[PlacedTile], sides: tuple[_Side, _Side]
) -> Iterator[Change]:
    a, b = sides
    left: dict[str, list[PlacedTile]] = {}
    for placed in new:
        left.setdefault(placed.tile.source, []).append(placed)
    for placed in gone:
        others = left.get(placed.tile.source)
        if others:
            other = others.pop(0)
            yield Change(placed, other, _why_another(placed.tile, other.tile, a, b))
        else:
            yield Change(placed, None, _why_absent(name, placed.tile, a, b))
    for placed in (placed for others in left.values() for placed in others):
        yield Change(None, placed, _why_absent(name, placed.tile, b, a))


def _why_another(before: Tile, after: Tile, a: _Side, b: _Side) -> str:
    """Why two tiles of one image differ."""
    if before.sha256 != after.sha256:
        return "The file changed."
    if before.kind != after.kind:
        said = ", ".join(
            f"{side.letter} {'keeps it whole' if tile.kind == 'full' else 'crops it'}"
            + (
                f" (rule {side.manifest.settings.get('rule')})"
                if side.always
                else f" (occupancy {tile.occupancy:.3f}, threshold {tile.threshold:.3f})"
            )
            for side, tile in ((a, before), (b, after))
        )
        if before.occupancy != after.occupancy and not (a.always or b.always):
            return f"{said}: its foreground was found otherwise."
        return f"{said}."
    return f"Another crop of the same image{_because(a, b, _OF_CROPS)}."


def _why_absent(name: str, tile: Tile, here: _Side, there: _Side) -> str:
    """Why `there` lacks a tile that is `here`."""
    if name not in there.manifest.thresholds:
        return f"{there.letter} has no such class."
    if tile.source in there.skipped:
        return f"{there.letter} left the image out: {there.skipped[tile.source]}."
    others = [placed.tile for placed in there.tiles.get(name, ())]
    counts = (len(here.tiles[name]), len(others))
    fewer = f" {there.letter} takes {counts[1]} tiles of this class, {here.letter} {counts[0]}." * (
        counts[1] < counts[0]
    )
    threshold = there.manifest.thresholds[name]
    same_models = here.manifest.models == there.manifest.models
    if not here.always and not there.always and same_models:
        kind = "full" if tile.occupancy >= threshold and tile.occupancy > 0 else "crop"
        if kind != tile.kind:
            verb, verdict, noun = (
                ("keep it whole", "reaches", "a whole image")
                if kind == "full"
                else ("crop it", "is below", "a crop")
            )
            return (
                f"{there.letter} would {verb}: its occupancy of {tile.occupancy:.3f} {verdict} the threshold "
                f"of {threshold:.3f} ({tile.threshold:.3f} in {here.letter}). As {noun} it ranks behind "
                f"the tiles of {there.letter}.{fewer}"
            )
    highest = max((other.loss for other in others), default=0.0)
    if there.ranks_by_loss() and same_models and tile.loss >= highest:
        return (
            f"Its loss of {tile.loss:.3f} ranks behind: {there.letter} takes tiles up to {highest:.3f}."
            + fewer
        )
    because = _because(here, there, tuple(dict.fromkeys((*_OF_THE_POOL, "ranking", "rule", *_OF_CROPS))))
    return f"{there.letter} takes other tiles of this class{because}." + fewer


def _because(one: _Side, other: _Side, names: Sequence[str]) -> str:
    """What two data sets have been told otherwise, among some settings, and their models."""
    sides = (one, other) if one.letter < other.letter else (other, one)
    settings = [side.manifest.settings for side in sides]
    differ = [
        f"{name} {settings[0].get(name, 'not set')} in A, {settings[1].get(name, 'not set')} in B"
        for name in names
        if settings[0].get(name) != settings[1].get(name)
    ]
    differ += [
        f"another {role} model"
        for role, model in one.manifest.models.items()
        if model != other.manifest.models.get(role)
    ]
    return f": {'; '.join(differ)}" if differ else ""
