"""An open pipeline: measure what is missing, look at a plan, and write it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.cluster.cluster import Cluster
from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.images.dataset import DataSet, SourceImage
from fgdd_fast.images.place import Location
from fgdd_fast.measurement.effort import AnyMeasurer, decide_measured, look_again
from fgdd_fast.measurement.forecast import Forecast, StoreView, forecast
from fgdd_fast.measurement.looks import Looks
from fgdd_fast.measurement.measurer import Measured, Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.whole import WholeMeasurer
from fgdd_fast.models.foreground import ForegroundChoice, ForegroundModel
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Teacher, check_features
from fgdd_fast.options import (
    DEFAULT_FOREGROUND,
    NO_FOREGROUND,
    WHOLE_RULE,
    MeasureOptions,
    PlanOptions,
    stored_settings,
)
from fgdd_fast.output.folder import check_output, output_folder
from fgdd_fast.output.hashes import write_hashes
from fgdd_fast.output.manifest import DistilledImage, Manifest, Model, build, write
from fgdd_fast.output.run_record import RunLog, record_run, write_run_record
from fgdd_fast.output.writing import mosaic_bytes, write_mosaics
from fgdd_fast.planning import MosaicSettings, Plan, check_pool, doubts
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.selection.records import Tile
from fgdd_fast.selection.select import PLAIN, SelectionSettings
from fgdd_fast.selection.thresholds import parse_rule

_log = logging.getLogger(__name__)


class _Paths(Mapping[str, Location]):
    """Where images lie, by their sources; a path is made when asked for, as it takes far more memory."""

    def __init__(self, images: Mapping[str, SourceImage]) -> None:
        self._images = images

    def __getitem__(self, source: str) -> Location:
        return self._images[source].location

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)


@dataclass(frozen=True)
class Pipeline:
    """An open pipeline over the pool of one data set; made by `fgdd_fast.open_pipeline`.

    Attributes:
        options: what is measured.
        runtime: how models run.
        dataset: the folder as it was scanned.
        images: the pool.
        choice: which foreground model it is, and how it is asked.
        foreground, teacher: the models.
        store: what was measured.
        foreground_batch: images an inference of the foreground model.
        log: what is noted for the record of the run.
        quick: with the effort `decide`, looks at every image, and `foreground` where it may decide.
        cluster: whose workers measure images, if not this process.
    """

    options: MeasureOptions
    runtime: RuntimeOptions
    dataset: DataSet
    images: tuple[SourceImage, ...]
    choice: ForegroundChoice
    foreground: ForegroundModel
    teacher: Teacher
    store: Store
    foreground_batch: int = 1
    log: RunLog = field(default_factory=RunLog)
    quick: ForegroundModel | None = None
    cluster: Cluster | None = None

    @property
    def scored_batch(self) -> int:
        """Images all of whose views an inference of the teacher takes."""
        return max(1, self.teacher.batch // VIEWS_PER_INFERENCE)

    def measurer(self, selection: SelectionSettings = PLAIN) -> Measurer:
        """Return what measures all images in full and reads their records back, whatever the effort.

        Args:
            selection: what its decisions need is measured as well.
        """
        return self._measurer(self._settings(selection))

    def _measurer(self, settings: MeasureSettings) -> Measurer:
        models = self.foreground, self.teacher
        return Measurer(*models, settings, self.store, self.dataset.classes, self.cluster)

    def _reader(self, selection: SelectionSettings = PLAIN) -> Measurer | Looks:
        if self.quick is None:
            return self.measurer(selection)
        settings, classes = self._settings(selection), self.dataset.classes
        models = self.quick, self.foreground, self.teacher
        return Looks(*models, settings, self.store, classes, self.cluster)

    def _whole(self, settings: MosaicSettings) -> WholeMeasurer | None:
        """What measures whole images alone, where nothing else is of interest."""
        plain = settings.rule == parse_rule(WHOLE_RULE) and settings.selection.near_duplicates is None
        if not plain or self.foreground.name != NO_FOREGROUND:
            return None
        cropped = self._settings(settings.selection)
        whole = replace(cropped, crops=0, batch=self.teacher.batch)
        measurers = self._measurer(whole), self._measurer(cropped)
        return WholeMeasurer(*measurers, tiles=settings.tiles_of)

    def _settings(self, selection: SelectionSettings) -> MeasureSettings:
        return MeasureSettings(
            crops=self.options.crops,
            seed=self.options.seed,
            resize=self.options.resize,
            batch=max(self.foreground_batch, self.scored_batch),
            threads=self.runtime.threads,
            shares=selection.needs_shares,
            hashes=selection.needs_hashes,
            sixteen_bit=self.options.sixteen_bit,
        )

    def measure(self, *, progress: Progress = SILENT) -> Measured:
        """Measure what is missing of the pool, and return how many images were measured, known and skipped.

        Raises:
            FgddError: a model or the store failed; what was measured until then is kept.
        """
        return self._measure(self._reader(), progress)

    def forecast(self, settings: MosaicSettings | None = None, *, progress: Progress = SILENT) -> Forecast:
        """Tell what measuring would take, by a sample of which nothing is kept.

        Args:
            settings: of the mosaics that are wanted; by default all is measured, as by `measure`.
            progress: told how far it is.

        Raises:
            FgddError: a model or the store failed.
        """

        def measurer(pipeline: Pipeline) -> Measurer | Looks:
            whole = None if settings is None else pipeline._whole(settings)
            return whole.whole if whole else pipeline._reader(settings.selection if settings else PLAIN)

        missing = measurer(self).missing(self.images, progress=progress)
        with closing(StoreView(None)) as scratch:
            sampler, batch = measurer(replace(self, store=scratch)), self._settings(PLAIN).batch
            pool = len(self.images)
            return forecast(pool, missing, sampler, scratch, batch=batch, progress=progress)

    def plan(self, *, progress: Progress = SILENT, **deciding: Any) -> Plan:
        """Decide which tiles represent each class; what is missing for it is measured first.

        Args:
            progress: told how far measuring is.
            deciding: how, such as `ipc` and `rule`: the attributes of `fgdd_fast.options.PlanOptions`.

        Raises:
            SettingsError: the settings do not go together.
            DataError: a class has too few images.
            FgddError: a model or the store failed; what was measured until then is kept.
        """
        settings = PlanOptions(**deciding).settings(self.options)
        check_pool(self.images, self.options.crops, settings)
        return self.plan_with(settings, progress=progress)

    def plan_with(self, settings: MosaicSettings, *, progress: Progress = SILENT) -> Plan:
        """Decide as `plan` does, by settings that were checked already."""
        if settings.needs_foreground and self.foreground.name == NO_FOREGROUND:
            raise SettingsError(
                f"The rule {settings.rule} asks for a foreground, and there is no foreground model",
                f"Name one, such as: --foreground {DEFAULT_FOREGROUND}",
            )
        if settings.selection.needs_features:
            check_features(self.teacher.bundle)
        if settings.most_bytes is None:
            plan = self._decided(settings, progress)
        else:
            plan = self._largest(settings, settings.most_bytes, progress)
        for text in doubts(plan, self.teacher):
            _log.warning("%s", text)
            self.log.warn(text)
        return plan

    def _largest(self, settings: MosaicSettings, most_bytes: int, progress: Progress) -> Plan:
        """The plan with the most mosaics per class whose files fit into so many bytes."""
        tiles = min(Counter(image.class_name for image in self.images).values()) * (self.options.crops + 1)
        found: Plan | None = None
        fits, too_many, tried = 0, tiles // settings.factor**2 + 1, 1
        while too_many - fits > 1:
            try:
                plan = self._decided(replace(settings, ipc=tried, most_bytes=None), progress)
            except DataError:  # a class has not so many tiles
                if found is None:
                    raise
                too_many = tried
            else:
                needed = self._bytes_of(plan, progress)
                if needed <= most_bytes:
                    found, fits = plan, tried
                elif found is None:
                    raise SettingsError(
                        f"One image per class takes {needed} bytes already, and {most_bytes} are given",
                        "Give more, a smaller --size, or --format jpg.",
                    )
                else:
                    too_many = tried
                tried = int(tried * most_bytes / needed)
            tried = min(max(tried, fits + 1), too_many - 1)
        assert found is not None  # one image per class was tried first
        return found

    def _bytes_of(self, plan: Plan, progress: Progress) -> int:
        """How many bytes the files of a plan's mosaics have altogether."""
        total, mosaics = 0, sum(len(part.mosaics) for part in plan.classes)
        with progress.task(f"Trying {plan.settings.ipc} images per class", mosaics) as task:
            for size in mosaic_bytes(plan, self.paths_of(plan.tiles), threads=self.runtime.threads):
                total += size
                task.advance()
        return total

    def _decided(self, settings: MosaicSettings, progress: Progress) -> Plan:
        measurer = self._whole(settings) or self._reader(settings.selection)
        measured = self._measure(measurer, progress)
        left_out = {item.source for item in measured.skipped}
        usable = [image for image in self.images if image.source not in left_out]
        with self.log.stage("deciding"):
            plan = decide_measured(
                self.dataset, usable, measurer, settings, measured.skipped, self.paths_of, progress
            )
        return Plan(settings, plan.classes, (*self.dataset.skipped, *measured.skipped, *plan.skipped))

    def _measure(self, measurer: AnyMeasurer, progress: Progress) -> Measured:
        with self.log.stage("measuring"):
            measured = measurer.measure(self.images, progress=progress)
        self.log.measured += measured.measured
        return measured

    def write(
        self, plan: Plan, out: str | Path, *, overwrite: bool = False, progress: Progress = SILENT
    ) -> Manifest:
        """Write a plan's mosaics and their manifest to OUT, whole or not at all.

        Args:
            plan: one of this pipeline's.
            out: the folder; it must not exist, or be empty, or `overwrite` an older distilled data set.
            overwrite: whether an older one may be replaced.
            progress: told how far writing is.

        Returns:
            What was written, as `OUT/manifest.json` says it.

        Raises:
            DataError: an image changed since it was measured.
            OutputError: OUT cannot be written; it is then as it was.
        """
        out = Path(out)
        check_output(out, self.dataset.given, overwrite=overwrite)
        total = sum(len(part.mosaics) for part in plan.classes)
        with output_folder(out, overwrite=overwrite) as partial, progress.task("Writing", total) as task:
            images = []
            threads = self.runtime.threads
            with self.log.stage("writing"):
                paths = self.paths_of(plan.tiles)
                for file, name, mosaic in write_mosaics(plan, paths, partial, threads=threads):
                    images.append(DistilledImage(file, name, mosaic.tiles))
                    task.advance()
            manifest = build(
                image_count=len(self.images),
                settings=stored_settings(
                    plan.settings,
                    self.options,
                    box_threshold=self.choice.box_threshold,
                    score_view=self.teacher.view,
                    batch=self.scored_batch,
                    foreground_batch=self.foreground_batch,
                ),
                prompts=self.choice.prompts,
                models=self.models,
                selections={part.name: part.selection for part in plan.classes},
                images=images,
                skipped=plan.skipped,
                runtime=self.description,
                looked_at={} if self.quick is None else plan.looked_at,
            )
            write(manifest, partial)
            write_hashes(partial)
            reader = self._whole(plan.settings) or self._reader(plan.settings.selection)
            measurer = look_again(reader, plan, self.images)
            write_run_record(record_run(self.log, plan, self.images, measurer, threads=threads), partial)
        return manifest

    @property
    def description(self) -> str:
        """Name, version and precision of what runs the models; free of the number of threads."""
        teacher = self.teacher.engine.arithmetic + (", tiles" if self.teacher.bundle.tile_of else "")
        quick = [] if self.quick is None else [self.quick.description]
        return " + ".join(dict.fromkeys([self.foreground.description, *quick, teacher]))

    def paths_of(self, tiles: Iterable[Tile]) -> Mapping[str, Location]:
        """Return where each source of tiles lies."""
        wanted = {tile.source for tile in tiles}
        return _Paths({image.source: image for image in self.images if image.source in wanted})

    @property
    def models(self) -> Mapping[str, Model]:
        """The models by their role, as a manifest names them; a cropped-input graph is its teacher's."""
        teacher, plugin = self.teacher.bundle, None if self.choice.plugin is None else str(self.choice.plugin)
        models = {
            "foreground": Model(self.choice.name, self.foreground.sha256, plugin),
            "teacher": Model(teacher.name, teacher.tile_of or teacher.sha256),
        }
        if self.quick is not None:
            models["quick"] = Model(self.quick.name, self.quick.sha256, plugin)
        return models
