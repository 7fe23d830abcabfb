"""The front door: open a folder of labelled images with its models, measure it, look at a plan, and write it.

    with open_pipeline("DATA", teacher="teacher.onnx") as pipeline:
        pipeline.measure()
        plan = pipeline.plan(ipc=10)
        pipeline.write(plan, "OUT")

`distill` does all of it at once. What was measured lies in a store, so that another plan measures only what
is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.doubts import doubts
from fgdd_fast.errors import TeacherError
from fgdd_fast.images.dataset import DataSet, SourceImage, pool, scan
from fgdd_fast.images.tiles import default_view
from fgdd_fast.measurement.effort import decide_measured, look_again
from fgdd_fast.measurement.looks import Looks
from fgdd_fast.measurement.measurer import Measured, Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground, choose_quick, open_foreground
from fgdd_fast.models.foreground import ForegroundChoice, ForegroundModel
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Teacher, check_classes, check_features, open_teacher
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.options import MeasureOptions, PlanOptions, stored_settings
from fgdd_fast.output.folder import check_output, output_folder
from fgdd_fast.output.manifest import DistilledImage, Manifest, Model, build, write
from fgdd_fast.output.run_record import RunLog, record_run, write_run_record
from fgdd_fast.output.writing import write_mosaics
from fgdd_fast.planning import MosaicSettings, Plan, check_pool
from fgdd_fast.report_page.report import write_report
from fgdd_fast.runtime.choose import RuntimeOptions, batch_of, runtime_of
from fgdd_fast.selection.select import PLAIN, SelectionSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """An open pipeline over the pool of one data set; made by `open_pipeline`.

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

    @property
    def scored_batch(self) -> int:
        """Images all of whose views an inference of the teacher takes."""
        return max(1, self.teacher.batch // VIEWS_PER_INFERENCE)

    def measurer(self, selection: SelectionSettings = PLAIN) -> Measurer:
        """Return what measures all images in full and reads their records back, whatever the effort.

        Args:
            selection: what its decisions need is measured as well.
        """
        settings = self._settings(selection)
        return Measurer(self.foreground, self.teacher, settings, self.store, self.dataset.classes)

    def _reader(self, selection: SelectionSettings = PLAIN) -> Measurer | Looks:
        if self.quick is None:
            return self.measurer(selection)
        settings, classes = self._settings(selection), self.dataset.classes
        return Looks(self.quick, self.foreground, self.teacher, settings, self.store, classes)

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
        if settings.selection.needs_features:
            check_features(self.teacher.bundle)
        measurer = self._reader(settings.selection)
        measured = self._measure(measurer, progress)
        left_out = {item.source for item in measured.skipped}
        usable = [image for image in self.images if image.source not in left_out]
        with self.log.stage("deciding"):
            plan = decide_measured(
                self.dataset, usable, measurer, settings, measured.skipped, self.paths, progress
            )
        for text in doubts(plan, self.teacher):
            _log.warning("%s", text)
            self.log.warn(text)
        return Plan(settings, plan.classes, (*self.dataset.skipped, *measured.skipped, *plan.skipped))

    def _measure(self, measurer: Measurer | Looks, progress: Progress) -> Measured:
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
        check_output(out, self.dataset.root, overwrite=overwrite)
        total = sum(len(part.mosaics) for part in plan.classes)
        with output_folder(out, overwrite=overwrite) as partial, progress.task("Writing", total) as task:
            images = []
            threads = self.runtime.threads
            with self.log.stage("writing"):
                for file, name, mosaic in write_mosaics(plan, self.paths, partial, threads=threads):
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
            measurer = look_again(self._reader(plan.settings.selection), plan, self.images)
            write_run_record(record_run(self.log, plan, self.images, measurer, threads=threads), partial)
        return manifest

    @property
    def description(self) -> str:
        """Name, version and precision of what runs the models; free of the number of threads."""
        teacher = self.teacher.engine.arithmetic + (", tiles" if self.teacher.bundle.tile_of else "")
        quick = [] if self.quick is None else [self.quick.description]
        return " + ".join(dict.fromkeys([self.foreground.description, *quick, teacher]))

    @cached_property
    def paths(self) -> Mapping[str, Path]:
        """The file of each source of the pool."""
        return {image.source: image.path for image in self.images}

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


@contextmanager
def open_pipeline(
    data: str | Path | DataSet, *, runtime: RuntimeOptions | None = None, **measuring: Any
) -> Iterator[Pipeline]:
    """Open a folder of labelled images with its models, checked against each other.

    Args:
        data: a folder with one folder of images for each class, or one that was scanned.
        runtime: how the models run; the fastest that decides as the reference does by default.
        measuring: what is measured, and with which models: the attributes of
            `fgdd_fast.options.MeasureOptions`.

    Yields:
        The pipeline, which is closed when the block ends.

    Raises:
        FgddError: the folder, a bundle, a runtime or the store cannot be used.
    """
    options = MeasureOptions(**measuring)
    runtime = runtime or RuntimeOptions()
    dataset = data if isinstance(data, DataSet) else scan(Path(data))
    if options.teacher is None:
        raise TeacherError(
            "No teacher is named",
            f"Fit one on these images: fgdd-fast teacher fit {dataset.root} -o teacher.onnx   "
            "Then add: --teacher teacher.onnx",
        )
    prompts = None if options.prompts is None else read_prompts(Path(options.prompts))
    choice = choose_foreground(
        options.foreground, dataset.classes, prompts=prompts, box_threshold=options.box_threshold
    )
    quick_choice = choose_quick(choice) if options.foreground_effort == "decide" else None
    teacher_bundle = find_bundle(str(options.teacher), "teacher")
    check_classes(teacher_bundle, dataset.classes)
    tile_size = options.size // options.factor
    log = RunLog()
    with ExitStack() as stack:
        opening = stack.enter_context(ExitStack())
        opening.enter_context(log.stage("opening the models"))
        store = stack.enter_context(Store(Path(options.store)))
        foreground_batch = batch_of(choice.source, runtime)
        chosen, threads = partial(runtime_of, options=runtime), runtime.threads
        opened = partial(
            open_foreground, runtime=chosen, batch=foreground_batch, resize=options.resize, threads=threads
        )
        foreground = stack.enter_context(closing(opened(choice)))
        quick = None if quick_choice is None else stack.enter_context(closing(opened(quick_choice)))
        teacher = open_teacher(
            teacher_bundle,
            runtime=lambda bundle: runtime_of(bundle, runtime),
            view=options.score_view or default_view(tile_size, teacher_bundle.preprocessing.width),
            tile_size=tile_size,
            batch=batch_of(teacher_bundle, runtime) * VIEWS_PER_INFERENCE,
        )
        stack.enter_context(closing(teacher))
        images = pool(dataset, options.pool, options.seed)
        models = choice, foreground, teacher
        opening.close()
        yield Pipeline(options, runtime, dataset, images, *models, store, foreground_batch, log, quick)


def distill(
    data: str | Path | DataSet,
    out: str | Path,
    *,
    overwrite: bool = False,
    report: bool = False,
    remarks: Iterable[str] = (),
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> tuple[Plan, Manifest]:
    """Measure what is missing of DATA, decide, and write OUT whole.

    What can be refused is refused before the long work.

    Args:
        data: a folder with one folder of images for each class, or what `fgdd_fast.open_data` opened.
        out: the folder to write; `overwrite` replaces an older distilled data set there.
        overwrite: whether an older one may be replaced.
        report: whether `OUT/report.html` is written as well, which needs Jinja: see `write_report`.
        remarks: sentences that a report is to show among what is worth knowing.
        runtime: how the models run.
        progress: told how far it is.
        options: what is measured, and how it is decided: the attributes of `fgdd_fast.options.MeasureOptions`
            and of `fgdd_fast.options.PlanOptions`.

    Returns:
        What was decided, and what was written.

    Raises:
        FgddError: see `fgdd_fast.errors`; OUT is then as it was, and what was measured is kept.
    """
    names = {each.name for each in fields(PlanOptions)}
    deciding = PlanOptions(**{name: value for name, value in options.items() if name in names})
    given = {name: value for name, value in options.items() if name not in names}
    measuring = MeasureOptions(**given)
    settings = deciding.settings(measuring)
    root = data.root if isinstance(data, DataSet) else Path(data)
    check_output(Path(out), root, overwrite=overwrite)
    dataset = data if isinstance(data, DataSet) else scan(root)
    check_pool(pool(dataset, measuring.pool, measuring.seed), measuring.crops, settings)
    if measuring.teacher is not None and settings.selection.needs_features:
        check_features(find_bundle(str(measuring.teacher), "teacher"))
    with open_pipeline(dataset, runtime=runtime, **given) as pipeline:
        for text in remarks:
            pipeline.log.warn(text)
        plan = pipeline.plan_with(settings, progress=progress)
        manifest = pipeline.write(plan, out, overwrite=overwrite, progress=progress)
    if report:
        write_report(out, root, progress=progress)
    return plan, manifest
