"""The front door: open a folder of labelled images with its models, or distil it at once.

    with open_pipeline("DATA", teacher="teacher.onnx") as pipeline:
        pipeline.measure()
        plan = pipeline.plan(ipc=10)
        pipeline.write(plan, "OUT")

`distill` does all of it at once. What was measured lies in a store, so that another plan measures only what
is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.cluster.connecting import workers_for
from fgdd_fast.errors import ImageError, TeacherError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import DataSet, SourceImage, pool, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.tiles import default_view, tile_pixels
from fgdd_fast.measurement.forecast import Forecast, StoreView
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground, choose_quick, open_foreground
from fgdd_fast.models.foreground import ForegroundChoice
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
from fgdd_fast.output.mosaic import compose, encode
from fgdd_fast.output.run_record import RunLog
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import MosaicSettings, Plan, check_pool
from fgdd_fast.report_page.report import write_report
from fgdd_fast.runtime.choose import RuntimeOptions, batch_of, runtime_of


@dataclass(frozen=True)
class DistillationForecast:
    """What distilling would take.

    Attributes:
        measuring: of what is missing in the store.
        classes, mosaics: how many there are, or would be.
        settings: of the mosaics.
        output_bytes: about how large the mosaics' files are, by one that was made of whole images.
    """

    measuring: Forecast
    classes: int
    mosaics: int
    settings: MosaicSettings
    output_bytes: int


@contextmanager
def open_pipeline(
    data: str | Path | DataSet,
    *,
    runtime: RuntimeOptions | None = None,
    look_only: bool = False,
    progress: Progress = SILENT,
    **measuring: Any,
) -> Iterator[Pipeline]:
    """Open a folder of labelled images with its models, checked against each other.

    Args:
        data: a folder with one folder of images for each class, a list of images and classes, or what was
            scanned.
        runtime: how the models run; the fastest that decides as the reference does by default.
        look_only: whether the store stays as it is, for `Pipeline.forecast`; nothing can be measured then.
        progress: told that the models are opened.
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
        raise _no_teacher(dataset.given)
    choice = _choose(options, dataset)
    quick_choice = choose_quick(choice) if options.foreground_effort == "decide" else None
    teacher_bundle = find_bundle(str(options.teacher), "teacher")
    check_classes(teacher_bundle, dataset.classes)
    tile_size = options.size // options.factor
    log = RunLog()
    with ExitStack() as stack:
        opening = stack.enter_context(ExitStack())
        opening.enter_context(log.stage("opening the models"))
        opening.enter_context(progress.task("Opening the models"))
        store = stack.enter_context((StoreView if look_only else Store)(Path(options.store)))
        asked = choice.source, teacher_bundle, quick_choice and quick_choice.source
        cluster, runtime = stack.enter_context(workers_for(runtime, asked, here=look_only))
        foreground_batch = batch_of(choice.source, runtime)
        chosen, threads = partial(runtime_of, options=runtime), runtime.threads
        opened = partial(
            open_foreground, runtime=chosen, batch=foreground_batch, resize=options.resize, threads=threads
        )
        foreground = stack.enter_context(closing(opened(choice)))
        quick = None if quick_choice is None else stack.enter_context(closing(opened(quick_choice)))
        view = options.score_view or default_view(tile_size, teacher_bundle.preprocessing.width)
        batch = batch_of(teacher_bundle, runtime) * VIEWS_PER_INFERENCE
        teacher = open_teacher(teacher_bundle, runtime=chosen, view=view, tile_size=tile_size, batch=batch)
        stack.enter_context(closing(teacher))
        opening.close()
        what = options, runtime, dataset, pool(dataset, options.pool, options.seed), choice
        yield Pipeline(*what, foreground, teacher, store, foreground_batch, log, quick, cluster)


def _no_teacher(data: Path) -> TeacherError:
    return TeacherError(
        "No teacher is named",
        f"Fit one on these images: fgdd-fast teacher fit {data} -o teacher.onnx   "
        "Then add: --teacher teacher.onnx",
    )


def _choose(options: MeasureOptions, dataset: DataSet) -> ForegroundChoice:
    prompts = None if options.prompts is None else read_prompts(Path(options.prompts))
    named, threshold = options.foreground or NO_FOREGROUND, options.box_threshold
    return choose_foreground(str(named), dataset.classes, prompts=prompts, box_threshold=threshold)


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
    dataset, settings, given = _checked(data, Path(out), options, overwrite=overwrite)
    with open_pipeline(dataset, runtime=runtime, progress=progress, **given) as pipeline:
        for text in remarks:
            pipeline.log.warn(text)
        plan = pipeline.plan_with(settings, progress=progress)
        manifest = pipeline.write(plan, out, overwrite=overwrite, progress=progress)
    if report:
        write_report(out, dataset.given, progress=progress)
    return plan, manifest


def forecast_distillation(
    data: str | Path | DataSet,
    out: str | Path,
    *,
    overwrite: bool = False,
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> DistillationForecast:
    """Tell what `distill` would measure, and how long that should take; nothing is written.

    What would be refused is refused. A few of the images that are not measured yet are, for their time.

    Args, Raises: as for `distill`.
    """
    dataset, settings, given = _checked(data, Path(out), options, overwrite=overwrite)
    with open_pipeline(dataset, runtime=runtime, look_only=True, progress=progress, **given) as pipeline:
        measuring, each = (
            pipeline.forecast(settings, progress=progress),
            _mosaic_bytes(pipeline.images, settings),
        )
    if settings.most_bytes is not None:
        settings = replace(settings, ipc=max(1, settings.most_bytes // max(1, each * len(dataset.classes))))
    mosaics = sum(map(settings.ipc_of, dataset.classes))
    return DistillationForecast(measuring, len(dataset.classes), mosaics, settings, mosaics * each)


def _mosaic_bytes(images: Sequence[SourceImage], settings: MosaicSettings) -> int:
    """How large the file of a mosaic is that is made of whole images from all over the pool."""
    count, tiles = settings.factor**2, list[Pixels]()
    for image in images[:: max(1, len(images) // count)]:
        with suppress(ImageError):
            pixels = read_image(image.path).pixels
            whole = Box(0, 0, pixels.shape[1], pixels.shape[0])
            tiles.append(tile_pixels(pixels, whole, settings.tile_size, settings.resize))
    if not tiles:
        return 0
    return len(encode(compose(list(islice(cycle(tiles), count)), settings.factor), settings.format))


def _checked(
    data: str | Path | DataSet, out: Path, options: Mapping[str, Any], *, overwrite: bool
) -> tuple[DataSet, MosaicSettings, dict[str, Any]]:
    """The images, how is decided, and how measured, once all is checked that can be before the long work."""
    names = {each.name for each in fields(PlanOptions)}
    deciding = PlanOptions(**{name: value for name, value in options.items() if name in names})
    given = {name: value for name, value in options.items() if name not in names}
    measuring = MeasureOptions(**given)
    settings = deciding.settings(measuring)
    named = data.given if isinstance(data, DataSet) else Path(data)
    check_output(out, named, overwrite=overwrite)
    dataset = data if isinstance(data, DataSet) else scan(named)
    check_pool(pool(dataset, measuring.pool, measuring.seed), measuring.crops, settings)
    given["foreground"] = measuring.foreground or foreground_for(settings)
    if measuring.teacher is not None and settings.selection.needs_features:
        check_features(find_bundle(str(measuring.teacher), "teacher"))
    return dataset, settings, given
