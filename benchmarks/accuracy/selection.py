"""The tiles of every row, number of images and seed: measured once, decided many times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.results import SetKey
from benchmarks.accuracy.rows import AnyRow, Row, name_of
from benchmarks.accuracy.sets import MosaicSet, random_mosaics
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, pool
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.images.views import ScoreView
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.factory import open_foreground
from fgdd_fast.models.foreground import ForegroundChoice, ForegroundModel
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Runtime, Teacher, check_features, open_teacher
from fgdd_fast.planning import MosaicSettings, decide, tiles_with_features
from fgdd_fast.selection.records import ImageRecord

BATCH = 1  # images an inference, as `fgdd-fast distill` has it

Progress = Callable[[str, int], Callable[[], None]]
"""Told what begins and how many parts it has; returns what is called for each part done."""


@dataclass(frozen=True)
class SelectionGrid:
    """Every set that is chosen.

    Attributes:
        rows: how.
        ipcs: images per class.
        seeds: of the pool, the candidate crops, the controls and the rankings.
        size: side of a mosaic in pixels.
        factor: tiles along each side of it.
        crops: candidate crops of each image.
        pool: images considered of each class; None for all.
        resize: how tiles are resized.
    """

    rows: tuple[AnyRow, ...]
    ipcs: tuple[int, ...]
    seeds: tuple[int, ...]
    size: int
    factor: int
    crops: int
    pool: int | None
    resize: ResizeMethod

    @property
    def views(self) -> tuple[ScoreView, ...]:
        """The score views that are measured; random images need none, and take that of others."""
        views = dict.fromkeys(row.view for row in self.rows if isinstance(row, Row))
        return tuple(views) or ("pad",)

    def rows_of(self, view: ScoreView) -> tuple[AnyRow, ...]:
        """The rows that are decided from what was measured in a view."""
        first = self.views[0]
        return tuple(row for row in self.rows if (row.view if isinstance(row, Row) else first) == view)

    def measuring(self, seed: int, threads: int) -> MeasureSettings:
        """How the pool of a seed is measured."""
        methods = [row.selection for row in self.rows if isinstance(row, Row)]
        return MeasureSettings(
            crops=self.crops,
            seed=seed,
            resize=self.resize,
            batch=BATCH,
            threads=threads,
            shares=any(selection.needs_shares for selection in methods),
            hashes=any(selection.needs_hashes for selection in methods),
        )

    @property
    def needs_features(self) -> bool:
        """Whether a ranking needs the teacher's features."""
        return any(isinstance(row, Row) and row.selection.needs_features for row in self.rows)


class _RememberedMeasurer(Measurer):
    """Reads the records of a pool from the store once, for all decisions."""

    def remember(self, images: Iterable[SourceImage]) -> None:
        """Read the records of images."""
        images = list(images)
        self._remembered = dict(zip(images, super().records(images), strict=True))

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """See `Measurer`; only of images that are remembered."""
        return (self._remembered[image] for image in images)


class Selector:
    """Chooses sets; see `open_selector`."""

    def __init__(
        self,
        dataset: DataSet,
        grid: SelectionGrid,
        store: Store,
        foreground: ForegroundModel,
        open_view: Callable[[ScoreView], Teacher],
        threads: int,
        progress: Progress,
    ) -> None:
        self._dataset = dataset
        self._grid = grid
        self._store = store
        self._foreground = foreground
        self._open_view = open_view
        self._threads = threads
        self._progress = progress

    def sets(self) -> Iterator[tuple[SetKey, MosaicSet]]:
        """Measure what is missing, and choose; all sets of a seed before those of the next.

        Raises:
            FgddError: a network failed, or a class is too small.
        """
        for seed in self._grid.seeds:
            images = pool(self._dataset, self._grid.pool, seed)
            for view in self._grid.views:
                with closing(self._open_view(view)) as teacher:
                    settings = self._grid.measuring(seed, self._threads)
                    classes = self._dataset.classes
                    measurer = _RememberedMeasurer(self._foreground, teacher, settings, self._store, classes)
                    advance = self._progress(f"Measuring, seed {seed}, {view}", len(images))
                    left_out = {item.source for item in measurer.measure(images, advance).skipped}
                    usable = [image for image in images if image.source not in left_out]
                    measurer.remember(usable)
                    rows = self._grid.rows_of(view)
                    advance = self._progress(f"Choosing, seed {seed}, {view}", len(rows))
                    for row in rows:
                        for ipc in self._grid.ipcs:
                            mosaics = self._choose(row, ipc, seed, usable, measurer)
                            yield SetKey(name_of(row), ipc, seed), mosaics
                        advance()

    def _choose(
        self, row: AnyRow, ipc: int, seed: int, images: Sequence[SourceImage], measurer: Measurer
    ) -> MosaicSet:
        root, factor = self._dataset.root, self._grid.factor
        if not isinstance(row, Row):
            by_class = tuple(
                random_mosaics(row, self._records(name, images, measurer), ipc=ipc, factor=factor, seed=seed)
                for name in self._dataset.classes
            )
            return MosaicSet(root, by_class, factor)
        settings = MosaicSettings(
            ipc=ipc,
            factor=factor,
            size=self._grid.size,
            rule=row.rule,
            seed=seed,
            resize=self._grid.resize,
            format="png",
            selection=row.selection,
        )
        tiles = tiles_with_features(self._dataset, images, measurer, settings)
        if missing := measurer.features.missing(tiles):
            paths = {image.source: image.path for image in images}
            advance = self._progress(f"Features for {row.name}, seed {seed}", len(missing))
            measurer.features.measure(missing, paths, advance)
        plan = decide(self._dataset, images, measurer, settings)
        return MosaicSet(root, tuple(part.mosaics for part in plan.classes), factor)

    @staticmethod
    def _records(name: str, images: Sequence[SourceImage], measurer: Measurer) -> list[ImageRecord]:
        members = [image for image in images if image.class_name == name]
        records = [record for record in measurer.records(members) if isinstance(record, ImageRecord)]
        if not records:
            raise DataError(f"No image of the class '{name}' can be used", "See why with: fgdd-fast measure")
        return records


@contextmanager
def open_selector(
    dataset: DataSet,
    grid: SelectionGrid,
    *,
    teacher: Bundle,
    foreground: ForegroundChoice,
    runtime: Callable[[Bundle], Runtime],
    store: Path,
    threads: int,
    progress: Progress,
) -> Iterator[Selector]:
    """Open what measures the pools.

    Args:
        dataset: the images to distil.
        grid: what is chosen of them.
        teacher: measures losses.
        foreground: the foreground model, and how it is asked.
        runtime: how a bundle runs.
        store: folder of measurements.
        threads: processor threads.
        progress: told what is being done.

    Raises:
        FgddError: a model or the store cannot be used.
    """
    if grid.needs_features:
        check_features(teacher)

    def open_view(view: ScoreView) -> Teacher:
        return open_teacher(
            teacher,
            runtime=runtime,
            view=view,
            tile_size=grid.size // grid.factor,
            batch=BATCH * VIEWS_PER_INFERENCE,
        )

    with ExitStack() as stack:
        opened = stack.enter_context(Store(store))
        model = open_foreground(foreground, runtime=runtime, batch=BATCH, resize=grid.resize, threads=threads)
        stack.enter_context(closing(model))
        yield Selector(dataset, grid, opened, model, open_view, threads, progress)
