"""The tiles of every row, number of images and seed: measured once, decided many times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from benchmarks.accuracy.results import SetKey
from benchmarks.accuracy.rows import AnyRow, Row, name_of
from benchmarks.accuracy.sets import MosaicSet, random_mosaics
from fgdd_engines.progress import Progress
from fgdd_fast.distilling import open_pipeline
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.images.tiles import ScoreView
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.network import check_features
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import MosaicSettings, decide, tiles_with_features
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.selection.records import ImageRecord
from fgdd_fast.selection.select import SelectionSettings


@dataclass(frozen=True, kw_only=True)
class SelectionGrid:
    """Every set that is chosen.

    Attributes:
        rows: how.
        ipcs: images per class.
        seeds: of the pool, the candidate crops, the controls and the rankings.
        size: side of a mosaic in pixels.
        factor: tiles along each side of it.
        crops: candidate crops of each image.
        pool: images considered of each class.
        teacher, foreground: the models, as on the command line.
        store: folder of measurements.
        runtime: how the models run.
        resize: how tiles are resized.
    """

    rows: tuple[AnyRow, ...]
    ipcs: tuple[int, ...]
    seeds: tuple[int, ...]
    size: int
    factor: int
    crops: int
    pool: int
    teacher: str
    foreground: str
    store: Path
    runtime: RuntimeOptions
    resize: ResizeMethod = "area"

    @property
    def views(self) -> tuple[ScoreView, ...]:
        """The score views that are measured; random images need none, and take that of others."""
        views = dict.fromkeys(row.view for row in self.rows if isinstance(row, Row))
        return tuple(views) or ("pad",)

    def rows_of(self, view: ScoreView) -> tuple[AnyRow, ...]:
        """Return the rows that are decided from what was measured in a view."""
        first = self.views[0]
        return tuple(row for row in self.rows if (row.view if isinstance(row, Row) else first) == view)

    @property
    def needs(self) -> SelectionSettings:
        """What asks for all that any row needs to be measured."""
        methods = [row.selection for row in self.rows if isinstance(row, Row)]
        shares = any(selection.needs_shares for selection in methods)
        hashes = any(selection.needs_hashes for selection in methods)
        return SelectionSettings(keep_foreground=float(shares), near_duplicates=0 if hashes else None)


@dataclass(frozen=True)
class _Remembered:
    """What `decide` asks a `Measurer` for; the records are read from the store once for all rows."""

    features: TileFeatures
    known: Mapping[SourceImage, ImageRecord | Skipped]

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """See `Measurer.records`."""
        return (self.known[image] for image in images)


def choose_sets(
    dataset: DataSet, grid: SelectionGrid, progress: Progress
) -> Iterator[tuple[SetKey, MosaicSet]]:
    """Measure what is missing, and choose; all sets of a seed before those of the next.

    Raises:
        FgddError: a model or the store cannot be used, a network failed, or a class is too small.
    """
    if any(isinstance(row, Row) and row.selection.needs_features for row in grid.rows):
        check_features(find_bundle(grid.teacher, "teacher"))
    for seed in grid.seeds:
        for view in grid.views:
            with open_pipeline(
                dataset,
                runtime=grid.runtime,
                teacher=grid.teacher,
                foreground=grid.foreground,
                pool=grid.pool,
                crops=grid.crops,
                size=grid.size,
                factor=grid.factor,
                score_view=view,
                resize=grid.resize,
                seed=seed,
                store=grid.store,
            ) as pipeline:
                measurer = pipeline.measurer(grid.needs)
                measured = measurer.measure(pipeline.images, progress=progress)
                skipped = {item.source for item in measured.skipped}
                usable = [image for image in pipeline.images if image.source not in skipped]
                known = _Remembered(
                    measurer.features, dict(zip(usable, measurer.records(usable), strict=True))
                )
                rows = grid.rows_of(view)
                with progress.task(f"Choosing, seed {seed}, {view}", len(rows)) as task:
                    for row in rows:
                        for ipc in grid.ipcs:
                            yield (
                                SetKey(name_of(row), ipc, seed),
                                _choose(pipeline, row, ipc, known, progress),
                            )
                        task.advance()


def _choose(pipeline: Pipeline, row: AnyRow, ipc: int, known: _Remembered, progress: Progress) -> MosaicSet:
    dataset, options, images = pipeline.dataset, pipeline.options, list(known.known)
    if not isinstance(row, Row):
        by_class = tuple(
            random_mosaics(row, _records(name, known), ipc=ipc, factor=options.factor, seed=options.seed)
            for name in dataset.classes
        )
        return MosaicSet(dataset.root, by_class, options.factor)
    settings = MosaicSettings(
        ipc=ipc,
        factor=options.factor,
        size=options.size,
        rule=row.rule,
        seed=options.seed,
        resize=options.resize,
        format="png",
        selection=row.selection,
    )
    measurer = cast(Measurer, known)
    tiles = known.features.missing(tiles_with_features(dataset, images, measurer, settings))
    known.features.measure(tiles, pipeline.paths_of(tiles), progress=progress)
    plan = decide(dataset, images, measurer, settings)
    return MosaicSet(dataset.root, tuple(part.mosaics for part in plan.classes), options.factor)


def _records(name: str, known: _Remembered) -> Sequence[ImageRecord]:
    found = [
        record
        for image, record in known.known.items()
        if image.class_name == name and isinstance(record, ImageRecord)
    ]
    if not found:
        raise DataError(f"No image of the class '{name}' can be used", "See why with: fgdd-fast measure")
    return found
