"""The front door: open a folder of labelled images with its models, or distil it at once.

    with open_pipeline("DATA", teacher="teacher.onnx") as pipeline:
        pipeline.measure()
        plan = pipeline.plan(ipc=10)
        pipeline.write(plan, "OUT")

`distill` does all of it at once. What was measured lies in a store, so that another plan measures only what
is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import TeacherError
from fgdd_fast.images.dataset import DataSet, pool, scan
from fgdd_fast.images.tiles import default_view
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground, choose_quick, open_foreground
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, check_classes, check_features, open_teacher
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.options import (
    NO_FOREGROUND,
    MeasureOptions,
    PlanOptions,
    foreground_for,
)
from fgdd_fast.output.folder import check_output
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.run_record import RunLog
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import Plan, check_pool
from fgdd_fast.report_page.report import write_report
from fgdd_fast.runtime.choose import RuntimeOptions, batch_of, runtime_of


@contextmanager
def open_pipeline(
    data: str | Path | DataSet, *, runtime: RuntimeOptions | None = None, **measuring: Any
) -> Iterator[Pipeline]:
    """Open a folder of labelled images with its models, checked against each other.

    Args:
        data: a folder with one folder of images for each class, a list of images and classes, or what was
            scanned.
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
            f"Fit one on these images: fgdd-fast teacher fit {dataset.given} -o teacher.onnx   "
            "Then add: --teacher teacher.onnx",
        )
    prompts = None if options.prompts is None else read_prompts(Path(options.prompts))
    named, threshold = options.foreground or NO_FOREGROUND, options.box_threshold
    choice = choose_foreground(named, dataset.classes, prompts=prompts, box_threshold=threshold)
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
            runtime=chosen,
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
    named = data.given if isinstance(data, DataSet) else Path(data)
    check_output(Path(out), named, overwrite=overwrite)
    dataset = data if isinstance(data, DataSet) else scan(named)
    check_pool(pool(dataset, measuring.pool, measuring.seed), measuring.crops, settings)
    given["foreground"] = measuring.foreground or foreground_for(settings)
    if measuring.teacher is not None and settings.selection.needs_features:
        check_features(find_bundle(str(measuring.teacher), "teacher"))
    with open_pipeline(dataset, runtime=runtime, **given) as pipeline:
        for text in remarks:
            pipeline.log.warn(text)
        plan = pipeline.plan_with(settings, progress=progress)
        manifest = pipeline.write(plan, out, overwrite=overwrite, progress=progress)
    if report:
        write_report(out, named, progress=progress)
    return plan, manifest
