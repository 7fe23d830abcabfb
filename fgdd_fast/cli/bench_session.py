"""What `fgdd-fast bench` opens before it measures: images, models, limits, and what a result says of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from fgdd_fast.benchmarks.ceilings import METHOD, device_ceilings, opencv_decode_rate, processor_ceilings
from fgdd_fast.benchmarks.environment import command_line, environment
from fgdd_fast.benchmarks.grounded_subject import GroundedSubject
from fgdd_fast.benchmarks.opening import WayOpener, model_facts
from fgdd_fast.benchmarks.originals import Original, choose_originals, draw_composition
from fgdd_fast.benchmarks.result import FORMAT, Limits, rounded
from fgdd_fast.benchmarks.subject import Subject
from fgdd_fast.benchmarks.ways import PathName, ReferenceName, Task
from fgdd_fast.catalogue import find_bundle
from fgdd_fast.cli.demo import DRAWN_PER_CLASS, pull_models
from fgdd_fast.cli.options import BACKBONE
from fgdd_fast.cli.session import RuntimeOptions, open_runtime, report_skipped
from fgdd_fast.cli.teacher import TeacherOptions, fit_teacher
from fgdd_fast.dataset import DataSet, scan
from fgdd_fast.drawing import write_drawn_dataset
from fgdd_fast.engines.base import ON_PROCESSOR
from fgdd_fast.engines.bundle import Bundle
from fgdd_fast.errors import EngineError, SettingsError, TeacherError
from fgdd_fast.foreground_opening import choose_foreground
from fgdd_fast.networks import Runtime, check_classes
from fgdd_fast.prompts import read_prompts

RANDOM = "grounded-sam2-random"  # at the published sizes, with random weights: for its times alone
_SCORED: frozenset[PathName] = frozenset({"teacher", "all"})
_SEGMENTED: frozenset[PathName] = frozenset({"foreground", "all"})
_COMPOSED: frozenset[PathName] = frozenset({"compose", "all"})


@dataclass(frozen=True, kw_only=True)
class BenchOptions(RuntimeOptions):
    """The options of `bench` that say what is measured, named as on the command line."""

    paths: tuple[PathName, ...]
    references: tuple[ReferenceName, ...]
    repeats: int
    images: int
    foreground: str
    prompts: Path | None
    box_threshold: float | None
    detector: str | None
    segmenter: str | None
    teacher: str | None
    crops: int
    size: int
    factor: int
    seed: int

    def need(self, paths: frozenset[PathName]) -> bool:
        """Whether any of some paths is measured."""
        return bool(paths & set(self.paths))


@dataclass(frozen=True)
class BenchSession:
    """Everything that measuring needs.

    Attributes:
        originals: the images.
        task: what every way is given.
        opener: opens the ways.
        limits: what stages are held against.
        result: what is known before anything is measured; the paths are still empty.
    """

    originals: Sequence[Original]
    task: Task
    opener: WayOpener
    limits: Limits
    result: dict[str, Any]


class _Runtimes:
    """How each bundle runs, chosen once."""

    def __init__(self, options: RuntimeOptions, console: Console) -> None:
        self._options = options
        self._console = console
        self._chosen: dict[str, Runtime] = {}

    def __call__(self, bundle: Bundle) -> Runtime:
        if bundle.sha256 not in self._chosen:
            self._chosen[bundle.sha256] = open_runtime(bundle, self._options, self._console)
        return self._chosen[bundle.sha256]


@contextmanager
def open_bench(data: Path | None, options: BenchOptions, console: Console) -> Iterator[BenchSession]:
    """Find the images and models, and measure the limits.

    Args:
        data: the images; None to draw some, and to fit a teacher on them where none is named.
        options: what is measured.
        console: told of progress.

    Raises:
        FgddError: the images, a model or a setting cannot be used.
    """
    with TemporaryDirectory() as folder:
        drawn = data is None
        if data is None:
            data, options = _draw(Path(folder), options, console)
        dataset = scan(data)
        originals, skipped = choose_originals(dataset, options.images, options.seed)
        report_skipped(skipped, console)
        present = {original.image.class_name for original in originals}
        classes = tuple(name for name in dataset.classes if name in present)
        runtimes = _Runtimes(options, console)
        foreground = _foreground(classes, options, runtimes, console)
        teacher = _teacher(dataset, options)
        bundles = [bundle for bundle in (_bundle_of(foreground), teacher) if bundle is not None]
        task = Task(
            crops=options.crops,
            seed=options.seed,
            tile_size=options.size // options.factor,
            factor=options.factor,
            threads=options.threads,
            device=_device([runtimes(bundle) for bundle in bundles]),
        )
        composition = draw_composition(originals, task, options.size) if options.need(_COMPOSED) else None
        subject = Subject(
            classes=classes,
            runtime=runtimes,
            foreground=foreground if isinstance(foreground, Bundle) else None,
            teacher=teacher,
            composition=composition,
            batch=options.batch,
        )
        opener = WayOpener(
            task=task,
            subject=subject,
            grounded=foreground if isinstance(foreground, GroundedSubject) else None,
            originals=originals,
            size=options.size,
        )
        if teacher is not None:
            _choose_tile_form(teacher, task, runtimes)
        with console.status("Measuring the limits of this machine"):
            limits = Limits(
                opencv_decode_rate([original.image.path for original in originals]),
                processor_ceilings(),
                device_ceilings() if task.device == "cuda" else None,
            )
        facts = {"name": data.resolve().name, "drawn": drawn, **_data_facts(originals)}
        result = _head(facts, options, limits, bundles, runtimes)
        yield BenchSession(originals, task, opener, limits, result)


def _draw(folder: Path, options: BenchOptions, console: Console) -> tuple[Path, BenchOptions]:
    """A drawn data set and, where one is needed and none is named, a teacher fitted on it."""
    fitted = options.need(_SCORED) and options.teacher is None
    pull_models([options.foreground] * options.need(_SEGMENTED) + [BACKBONE] * fitted, console)
    console.rule("Drawing a data set", align="left")
    data = folder / "drawn"
    write_drawn_dataset(data, images_per_class=DRAWN_PER_CLASS, seed=options.seed)
    if not fitted:
        return data, options
    console.rule("Fitting a teacher", align="left")
    fitting = TeacherOptions(
        resize="area",
        seed=options.seed,
        device=options.device,
        precision="auto",
        threads=options.threads,
        batch=options.batch,
    )
    teacher = fit_teacher(data, folder / "teacher.onnx", options=fitting, console=console)
    return data, replace(options, teacher=str(teacher.onnx))


def _foreground(
    classes: tuple[str, ...], options: BenchOptions, runtimes: _Runtimes, console: Console
) -> Bundle | GroundedSubject | None:
    """The foreground model that the paths need: a saliency model, or Grounded SAM 2 and what it looks for.

    Raises:
        FgddError: it is missing or cannot be used.
    """
    if not options.need(_SEGMENTED):
        return None
    detector, segmenter, name = options.detector, options.segmenter, options.foreground
    if name == RANDOM:
        random = import_module("fgdd_fast.benchmarks.random_grounded").random_grounded(progress=console.print)
        detector, segmenter, name = random.detector, random.segmenter, str(random.bundle.onnx)
    prompts = None if options.prompts is None else read_prompts(options.prompts)
    choice = choose_foreground(name, classes, prompts=prompts, box_threshold=options.box_threshold)
    if not isinstance(choice.source, Bundle):
        raise SettingsError(
            "Given masks are no model, so there is nothing to measure",
            "Name a model with --foreground, or leave foreground and all out of --stages.",
        )
    if choice.source.prompting is None:
        return choice.source
    if options.references and (detector is None or segmenter is None):
        raise SettingsError(
            "The references run the checkpoints that Grounded SAM 2 was exported from, and none are named",
            "Add --detector and --segmenter, as they were given to 'fgdd-fast export grounded-sam2'.",
        )
    return GroundedSubject(
        bundle=choice.source,
        runtime=runtimes(choice.source),
        detector=detector or "",
        segmenter=segmenter or "",
        classes=classes,
        prompts=choice.prompts,
        threshold=choice.box_threshold,
        batch=options.batch,
    )


def _bundle_of(foreground: Bundle | GroundedSubject | None) -> Bundle | None:
    return foreground.bundle if isinstance(foreground, GroundedSubject) else foreground


def _teacher(dataset: DataSet, options: BenchOptions) -> Bundle | None:
    """The teacher that the paths need.

    Raises:
        FgddError: it is missing, cannot be used, or does not know a class.
    """
    if not options.need(_SCORED):
        return None
    if options.teacher is None:
        raise TeacherError(
            "No teacher is named",
            f"Fit one on these images: fgdd-fast teacher fit {dataset.root} -o teacher.onnx   "
            "Then add: --teacher teacher.onnx; or leave teacher and all out of --stages.",
        )
    teacher = find_bundle(options.teacher, "teacher")
    check_classes(teacher, dataset.classes)
    return teacher


def _choose_tile_form(teacher: Bundle, task: Task, runtimes: _Runtimes) -> None:
    """Choose now how a tile form runs: to compare what can run it takes long where it is new."""
    form = teacher.find_tile_form(task.tile_size)
    if form is not None:
        with suppress(SettingsError, EngineError):  # then the teacher itself runs
            runtimes(form)


def _device(runtimes: Sequence[Runtime]) -> Any:
    """Where the references run: where the product does."""
    on_gpu = any(runtime.device not in ON_PROCESSOR for runtime in runtimes)
    return "cuda" if on_gpu else "cpu"


def _data_facts(originals: Sequence[Original]) -> dict[str, Any]:
    return {
        "images": len(originals),
        "classes": len({original.image.class_name for original in originals}),
        "megapixels": fmean(original.file.width * original.file.height / 1e6 for original in originals),
        "kilobytes": fmean(original.image.path.stat().st_size / 1e3 for original in originals),
    }


def _head(
    data: dict[str, Any],
    options: BenchOptions,
    limits: Limits,
    bundles: Sequence[Bundle],
    runtime: Callable[[Bundle], Runtime],
) -> dict[str, Any]:
    """What a result says before anything is measured."""
    names = (
        "images",
        "repeats",
        "crops",
        "size",
        "factor",
        "seed",
        "threads",
        "batch",
        "device",
        "precision",
    )
    result: dict[str, Any] = rounded(
        {
            "format": FORMAT,
            "command": command_line(["fgdd-fast", *sys.argv[1:]]),
            "data": data,
            "settings": {name: getattr(options, name) for name in names},
            "models": {bundle.role: model_facts(bundle, runtime(bundle)) for bundle in bundles},
            "environment": environment(),
            "limits": {"method": METHOD, **asdict(limits)},
            "paths": [],
            "unfinished": list(options.paths),
        }
    )
    return result
