"""Decide from what was measured: which tiles of each class are taken, and how they lie in its mosaics."""

from __future__ import annotations

import math
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.models.network import Teacher
from fgdd_fast.output.mosaic import Format, Mosaic, arrange
from fgdd_fast.selection.images_per_class import check_named_classes
from fgdd_fast.selection.ranking import make_ranking
from fgdd_fast.selection.records import ImageRecord, Tile
from fgdd_fast.selection.select import (
    PLAIN,
    Candidates,
    Selection,
    SelectionSettings,
    choose,
    find_candidates,
)
from fgdd_fast.selection.thresholds import Rule

_NAMED = 5  # classes in a warning


class Measurements(Protocol):
    """Reads what was measured back, as `fgdd_fast.measurement.measurer.Measurer` does."""

    @property
    def features(self) -> TileFeatures:
        """What the teacher sees in tiles."""

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """Return what is known of the images, in their order."""


@dataclass(frozen=True)
class MosaicSettings:
    """What the mosaics are.

    Attributes:
        ipc: mosaics (images) per class.
        factor: tiles along each side of a mosaic.
        size: side of a mosaic in pixels; a multiple of `factor`.
        rule: which images are kept whole.
        seed: for rules that permute, and for rankings that draw.
        resize: how tiles are resized; the same as they were measured with.
        format: of the image files.
        selection: which tiles are the best, and which are not considered.
        sixteen_bit: how samples of 16 bits are read; the same as they were measured with.
        ipc_by_class: mosaics of classes that have a number of their own.
        most_bytes: of the mosaics' files altogether; where it is given, `ipc` is the least that is made, and
            a plan has the largest number that fits.
    """

    ipc: int
    factor: int
    size: int
    rule: Rule
    seed: int
    resize: ResizeMethod
    format: Format
    selection: SelectionSettings = PLAIN
    sixteen_bit: SixteenBit = "shift"
    ipc_by_class: Mapping[str, int] = field(default_factory=dict)
    most_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.size % self.factor:
            raise SettingsError(
                f"A mosaic of {self.size} pixels cannot be cut into {self.factor} equal tiles a side",
                "Choose a --size that is a multiple of --factor.",
            )

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        return self.size // self.factor

    @property
    def needs_foreground(self) -> bool:
        """Whether the foreground of images plays a part."""
        return self.rule.needs_foreground or self.selection.needs_shares

    @property
    def tiles_per_class(self) -> int:
        """Tiles that a class needs for which no number of its own is given."""
        return self.ipc * self.factor**2

    def ipc_of(self, name: str) -> int:
        """Return how many mosaics a class gets."""
        return self.ipc_by_class.get(name, self.ipc)

    def tiles_of(self, name: str) -> int:
        """Return how many tiles a class needs."""
        return self.ipc_of(name) * self.factor**2


@dataclass(frozen=True)
class ClassPlan:
    """What was decided for one class.

    Attributes:
        name: the class.
        sources: the images measured.
        foregrounds: the occupancy of each of them.
        full_losses: the teacher's cross-entropy (nats) on the whole of each of them.
        selection: the tiles.
        mosaics: the tiles, arranged.
        glanced_at: the images whose occupancy is by a quick look alone.
    """

    name: str
    sources: tuple[str, ...]
    foregrounds: Sequence[float]
    full_losses: Sequence[float]
    selection: Selection
    mosaics: tuple[Mosaic, ...]
    glanced_at: frozenset[str] = frozenset()

    @property
    def occupancies(self) -> dict[str, float]:
        """The occupancy of each image measured, by its source; made anew, as it takes far more memory."""
        return dict(zip(self.sources, self.foregrounds, strict=True))

    @property
    def looked_at(self) -> frozenset[str]:
        """The images whose occupancy is not by a quick look."""
        return frozenset(self.sources) - self.glanced_at


@dataclass(frozen=True)
class Plan:
    """What was decided for a data set: everything but pixels.

    Attributes:
        settings: what was asked for.
        classes: what was decided for each class, in the data set's order.
        skipped: the images that were left out, with the reasons.
    """

    settings: MosaicSettings
    classes: tuple[ClassPlan, ...]
    skipped: tuple[Skipped, ...]

    @property
    def mosaics(self) -> Iterator[tuple[str, Mosaic]]:
        """All mosaics with their class, in the order of the output."""
        return ((plan.name, mosaic) for plan in self.classes for mosaic in plan.mosaics)

    @property
    def tiles(self) -> Iterator[Tile]:
        """The tiles of all mosaics."""
        return (tile for _, mosaic in self.mosaics for tile in mosaic.tiles)

    @property
    def looked_at(self) -> Mapping[str, int]:
        """Of how many images of each class the occupancy is not by a quick look."""
        return {plan.name: len(plan.sources) - len(plan.glanced_at) for plan in self.classes}

    def mean_full_loss(self) -> float:
        """The teacher's mean cross-entropy (nats) on the whole images of all classes."""
        return statistics.fmean(loss for plan in self.classes for loss in plan.full_losses)


def check_pool(images: Sequence[SourceImage], crops: int, settings: MosaicSettings) -> None:
    """Refuse a class that is too small for its mosaics whatever is measured, before the long work.

    Args:
        images: the pool.
        crops: candidate crops of each image; the whole of it is one more tile at most.
        settings: how many tiles a class needs.

    Raises:
        DataError: a class cannot fill its mosaics.
        SettingsError: a class has no number of mosaics, or a number is for no class.
    """
    members = Counter(image.class_name for image in images)
    check_named_classes(settings.ipc, settings.ipc_by_class, members)
    for name, count in members.items():
        if count * (crops + 1) < settings.tiles_of(name):
            raise DataError(
                f"The class '{name}' is too small: {settings.tiles_of(name)} distinct tiles are needed, and "
                f"{count} images of at most {crops + 1} tiles each cannot give them",
                "Lower --ipc or --factor, raise --crops or --pool, or add images to the class.",
            )


def decide(
    dataset: DataSet,
    images: Sequence[SourceImage],
    measurer: Measurements,
    settings: MosaicSettings,
    left_out: Sequence[Skipped] = (),
) -> Plan:
    """Choose and arrange the tiles of every class from what was measured.

    Args:
        dataset: names the classes.
        images: the pool, without the images that could not be measured.
        measurer: reads the measurements; those of all `tiles_with_features` are there.
        settings: the rule and the number of tiles.
        left_out: the images of the pool that could not be measured, with the reasons; for error messages.

    Raises:
        DataError: a class has too few images, or something was not measured.
    """
    ranking = make_ranking(settings.selection.ranking, measurer.features.of, settings.seed)
    plans: list[ClassPlan] = []
    skipped: list[Skipped] = []
    for gathered in _gather(dataset, images, measurer, settings, left_out):
        selection = choose(gathered.candidates, settings.tiles_of(gathered.name), ranking)
        skipped += gathered.skipped
        skipped += [Skipped(source, reason) for source, reason in selection.duplicates.items()]
        mosaics = arrange(selection.tiles, settings.ipc_of(gathered.name), settings.factor)
        records = gathered.records
        sources = tuple(record.source for record in records)
        foregrounds = array("d", (record.occupancy for record in records))
        full_losses = array("d", (record.full.loss for record in records))
        glanced_at = frozenset(record.source for record in records if not record.looked)
        plans.append(
            ClassPlan(gathered.name, sources, foregrounds, full_losses, selection, mosaics, glanced_at)
        )
    return Plan(settings, tuple(plans), tuple(skipped))


def tiles_with_features(
    dataset: DataSet,
    images: Sequence[SourceImage],
    measurer: Measurements,
    settings: MosaicSettings,
    left_out: Sequence[Skipped] = (),
) -> Iterator[Tile]:
    """Yield the tiles whose features `decide` will ask for; none for a ranking that needs no features.

    Args, Raises: as for `decide`.
    """
    if settings.selection.needs_features:
        for gathered in _gather(dataset, images, measurer, settings, left_out):
            yield from gathered.candidates.tie_candidates(settings.tiles_of(gathered.name))


@dataclass(frozen=True)
class _Gathered:
    """What is known of a class before its tiles are ranked."""

    name: str
    records: tuple[ImageRecord, ...]
    skipped: tuple[Skipped, ...]
    candidates: Candidates


def _gather(
    dataset: DataSet,
    images: Sequence[SourceImage],
    measurer: Measurements,
    settings: MosaicSettings,
    left_out: Sequence[Skipped] = (),
) -> Iterator[_Gathered]:
    """Each class's records, and the tiles that it may be represented by."""
    members: dict[str, list[SourceImage]] = {name: [] for name in dataset.classes}
    for image in images:
        members[image.class_name].append(image)
    for name in dataset.classes:
        found = list(measurer.records(members[name]))
        records = tuple(record for record in found if isinstance(record, ImageRecord))
        skipped = tuple(record for record in found if isinstance(record, Skipped))
        if not records:
            raise _nothing_usable(name, dataset, (*left_out, *skipped))
        candidates = find_candidates(
            records, settings.rule, settings.tiles_of(name), settings.seed, settings.selection
        )
        yield _Gathered(name, records, skipped, candidates)


def _nothing_usable(name: str, dataset: DataSet, left_out: Sequence[Skipped]) -> DataError:
    own = {image.source for image in dataset.images if image.class_name == name}
    reasons = Counter(item.reason for item in left_out if item.source in own)
    counted = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
    more = f"; and {len(reasons) - 5} more reasons" if len(reasons) > 5 else ""
    return DataError(
        f"No image of the class '{name}' can be used" + (f": {counted}{more}" if counted else ""),
        "Mend or replace these images, or take the class's folder out of the data set.",
    )


def doubts(plan: Plan, teacher: Teacher) -> Iterator[str]:
    """Yield a warning for each reason not to trust a plan.

    Args:
        plan: what was decided.
        teacher: by whose losses.
    """
    yield from _of_the_teacher(plan, teacher)
    yield from _of_nothing_found(plan)


def _of_the_teacher(plan: Plan, teacher: Teacher) -> Iterator[str]:
    """Whether the teacher does not recognise whole images, whose losses then mean nothing."""
    bundle = teacher.bundle
    chance, loss = math.log(len(bundle.classes or ())), plan.mean_full_loss()
    if loss < chance:
        return
    fills_the_view = bundle.tile_of is None and teacher.tile_size >= bundle.preprocessing.width
    advice = "are its classes these? Run: fgdd-fast teacher check"
    if teacher.view != "resize" and not fills_the_view:
        size = teacher.tile_size
        advice += f" Or are tiles of {size} pixels too small for it as it sees them? Try: --score-view resize"
    yield (
        f"The teacher's mean loss on whole images is {loss:.2f}, no better than guessing ({chance:.2f}): "
        f"{advice}"
    )


def _of_nothing_found(plan: Plan) -> Iterator[str]:
    """Whether there are images that have no foreground, where a rule asks for it."""
    counts = {part.name: part.selection.nothing_found for part in plan.classes}
    if not plan.settings.rule.needs_foreground or not any(counts.values()):
        return
    images = sum(len(part.sources) for part in plan.classes)
    most = sorted(counts, key=lambda name: -counts[name])[:_NAMED]
    named = ", ".join(f"{name} {counts[name]}" for name in most if counts[name])
    more = ", ..." if sum(map(bool, counts.values())) > _NAMED else ""
    yield (
        f"In {sum(counts.values())} of {images} images no foreground was found ({named}{more}): they give "
        "crops, after all others. If it is there, try another --foreground, or other --prompts."
    )
