"""The options of `fgdd-fast bench`, and the models that they name."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rich.console import Console

from fgdd_bench.harness.ways import PathName, ReferenceName, Task
from fgdd_bench.references.grounded.subject import GroundedSubject
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.cli.session import RuntimeOptions, open_runtime
from fgdd_fast.errors import EngineError, SettingsError, TeacherError
from fgdd_fast.images.dataset import DataSet
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import asked_by_class, choose_foreground
from fgdd_fast.models.network import Runtime, check_classes
from fgdd_fast.models.prompts import read_prompts

RANDOM = "grounded-sam2-random"  # at the published sizes, with random weights: for its times alone
SCORED: frozenset[PathName] = frozenset({"teacher", "all"})
SEGMENTED: frozenset[PathName] = frozenset({"foreground", "all"})
COMPOSED: frozenset[PathName] = frozenset({"compose", "all"})


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

    def references_along(self, path: PathName) -> tuple[ReferenceName, ...]:
        """The references that differ along a path: without a network there is nothing to compile."""
        compiles = path in SCORED | SEGMENTED
        return tuple(name for name in self.references if name != "compiled" or compiles)

    def need(self, paths: frozenset[PathName]) -> bool:
        """Whether any of some paths is measured."""
        return bool(paths & set(self.paths))


class Runtimes:
    """How each bundle runs, chosen once."""

    def __init__(self, options: RuntimeOptions, console: Console) -> None:
        self._options = options
        self._console = console
        self._chosen: dict[str, Runtime] = {}

    def __call__(self, bundle: Bundle) -> Runtime:
        if bundle.sha256 not in self._chosen:
            self._chosen[bundle.sha256] = open_runtime(bundle, self._options, self._console)
        return self._chosen[bundle.sha256]


def find_foreground(
    classes: tuple[str, ...], options: BenchOptions, runtimes: Runtimes, console: Console
) -> Bundle | GroundedSubject | None:
    """The foreground model that the paths need: a saliency model, or Grounded SAM 2 and what it looks for.

    Raises:
        FgddError: it is missing or cannot be used.
    """
    if not options.need(SEGMENTED):
        return None
    detector, segmenter, name = options.detector, options.segmenter, options.foreground
    if name == RANDOM:
        random = import_module("fgdd_bench.references.grounded.random_grounded")
        made = random.random_grounded(progress=console.print)
        detector, segmenter, name = made.detector, made.segmenter, str(made.bundle.onnx)
    prompts = None if options.prompts is None else read_prompts(options.prompts)
    choice = choose_foreground(name, classes, prompts=prompts, box_threshold=options.box_threshold)
    if not isinstance(choice.source, Bundle):
        raise SettingsError(
            "Given masks are no model, so there is nothing to measure",
            "Name a model with --foreground, or leave foreground and all out of --stages.",
        )
    if not asked_by_class(choice.source):
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


def bundle_of(foreground: Bundle | GroundedSubject | None) -> Bundle | None:
    return foreground.bundle if isinstance(foreground, GroundedSubject) else foreground


def find_teacher(dataset: DataSet, options: BenchOptions) -> Bundle | None:
    """The teacher that the paths need.

    Raises:
        FgddError: it is missing, cannot be used, or does not know a class.
    """
    if not options.need(SCORED):
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


def choose_cropped_graph(teacher: Bundle, task: Task, runtimes: Runtimes) -> None:
    """Choose now how a cropped-input graph runs: to compare what can run it takes long where it is new."""
    form = teacher.find_cropped_graph(task.tile_size)
    if form is not None:
        with suppress(SettingsError, EngineError):  # then the teacher itself runs
            runtimes(form)
