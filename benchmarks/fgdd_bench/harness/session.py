"""A whole benchmark: images, models and limits are found, every path is measured, and a result says it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, cast

from fgdd_bench.harness.bench import measure_path
from fgdd_bench.harness.implementation import COMPOSED, SCORED, SEGMENTED, PathName, ReferenceName
from fgdd_bench.harness.opening import ImplementationOpener
from fgdd_bench.harness.result import FORMAT, Limits, path_result, rounded
from fgdd_bench.harness.subject import Original, Subject, Task, choose_originals, draw_plan
from fgdd_bench.machine.ceilings import multiply_add_rates, opencv_decode_rate
from fgdd_bench.machine.environment import environment, load_average, thread_settings
from fgdd_engines.backends import find_backend, split_device
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.progress import SILENT, Progress
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_export.catalogue.prepare import pull_model
from fgdd_fast.errors import EngineError, SettingsError, TeacherError
from fgdd_fast.images.dataset import DataSet, scan
from fgdd_fast.images.tiles import default_view
from fgdd_fast.models.catalogue.catalogue import find_bundle, load_catalogue
from fgdd_fast.models.factory import asked_by_class, choose_foreground
from fgdd_fast.models.fitting import BACKBONE, fit_teacher
from fgdd_fast.models.foreground import ForegroundChoice
from fgdd_fast.models.network import Runtime, check_classes
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.runtime.choose import RuntimeOptions, batch_of, runtime_of
from fgdd_fast.synthetic import write_drawn_dataset

RANDOM = "grounded-sam2-random"  # at the published sizes, with random weights: for its times alone
DRAWN_PER_CLASS = 30

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(RuntimeOptions):
    """What is measured, named as on the command line; see `fgdd-fast bench --help`."""

    for_speed_alone: ClassVar[bool] = True

    paths: tuple[PathName, ...]
    references: tuple[ReferenceName, ...]
    repeats: int = 5
    images: int = 100
    foreground: str = "saliency-u2netp"
    prompts: Path | None = None
    box_threshold: float | None = None
    detector: str | None = None
    segmenter: str | None = None
    teacher: str | None = None
    crops: int = 5
    size: int = 224
    factor: int = 2
    seed: int = 0

    @property
    def compared(self) -> bool:
        """Whether there is something to compare: the null device answers by rote."""
        return self.device == "auto" or not find_backend(self.device).only_copies

    def references_along(self, path: PathName) -> tuple[ReferenceName, ...]:
        """Return the references that differ along a path: without a network there is nothing to compile."""
        if not self.compared:
            return ()
        compiles = path in (*SCORED, *SEGMENTED)
        return tuple(name for name in self.references if name != "compiled" or compiles)

    def needs(self, paths: Sequence[PathName]) -> bool:
        """Return whether any of some paths is measured."""
        return any(path in self.paths for path in paths)


@dataclass(frozen=True)
class BenchSession:
    """Everything that measuring needs, and the result, to which paths are added as they are measured."""

    options: BenchOptions
    opener: ImplementationOpener
    limits: Limits
    result: dict[str, Any]

    def measure(
        self, write: Callable[[dict[str, Any]], None] = lambda _: None, *, progress: Progress = SILENT
    ) -> list[str]:
        """Measure path by path, and return what of our answers is not accepted.

        Args:
            write: given the result after each path.
            progress: told how many of the runs that count are done.

        Raises:
            FgddError: something cannot be opened or run; what was finished is in the result.
        """
        options, result, failures = self.options, self.result, list[str]()
        references = {path: options.references_along(path) for path in options.paths}
        runs = sum(1 + len(names) for names in references.values()) + ("decode" in references)  # its limit
        with progress.task("Turns", runs * options.repeats) as turns:
            for path, names in references.items():
                measured = measure_path(
                    path,
                    self.opener,
                    names,
                    repeats=options.repeats,
                    compared=options.compared,
                    advance=turns.advance,
                )
                failures += [f"{path}: {failure}" for failure in measured.failures]
                result["paths"].append(path_result(measured, self.opener.task, self.limits))
                result["unfinished"].remove(path)
                result["load_average_after"] = load_average()
                result["environment"]["threads"] = thread_settings()
                write(result)
        return failures


@contextmanager
def open_bench(data: Path | None, options: BenchOptions, command: str) -> Iterator[BenchSession]:
    """Find the images and models, and measure the limits.

    Args:
        data: the images; None to draw some, and to fit a teacher on them where none is named.
        options: what is measured.
        command: that the result names.

    Raises:
        FgddError: the images, a model or a setting cannot be used.
    """
    with TemporaryDirectory() as folder:
        drawn = data is None
        if data is None:
            data, options = _draw(Path(folder), options)
        dataset = scan(data)
        originals, skipped = choose_originals(dataset, options.images, options.seed)
        for item in skipped:
            _log.warning("Skipped %s: %s", item.source, item.reason)
        subject, bundles = _subject(dataset, originals, options)
        runtimes = {bundle.role: subject.runtime(bundle) for bundle in bundles}
        task = _task(options, subject.teacher, runtimes.values())
        task.mosaics(1)  # refuses what cannot be cut into equal tiles
        form = None if subject.teacher is None else subject.teacher.find_cropped_graph(task.tile_size)
        if form is not None:
            with suppress(SettingsError, EngineError):  # then the teacher itself runs
                subject.runtime(form)  # chosen now: to compare what can run it takes long where it is new
        if options.needs(COMPOSED):
            subject = replace(subject, plan=draw_plan(originals, task))
        _log.info("Measuring the limits of this machine")
        files = [original.image.path for original in originals]
        limits = Limits(opencv_decode_rate(files), multiply_add_rates())
        names = ("repeats", "crops", "size", "factor", "seed", "threads", "batch", "device", "precision")
        result: dict[str, Any] = {
            "format": FORMAT,
            "command": command,
            "data": {"name": data.resolve().name, "drawn": drawn, **_data_facts(originals)},
            "settings": {name: getattr(options, name) for name in names} | {"view": task.view},
            "models": {bundle.role: model_facts(bundle, runtimes[bundle.role]) for bundle in bundles},
            "environment": environment(),
            "limits": limits.as_json(),
            "paths": [],
            "unfinished": list(options.paths),
        }
        opener = ImplementationOpener(task=task, subject=subject, originals=originals)
        yield BenchSession(options, opener, limits, rounded(result))


def _chosen_once(options: RuntimeOptions) -> Callable[[Bundle], Runtime]:
    """Return a function that says how a bundle runs, and chooses that when it is first asked."""
    chosen: dict[str, Runtime] = {}

    def runtime(bundle: Bundle) -> Runtime:
        if bundle.sha256 not in chosen:
            chosen[bundle.sha256] = runtime_of(bundle, options)
        return chosen[bundle.sha256]

    return runtime


def _subject(
    dataset: DataSet, originals: Sequence[Original], options: BenchOptions
) -> tuple[Subject, list[Bundle]]:
    """Find the models that the paths need; return them as subject, without mosaics, and as a list."""
    present = {original.image.class_name for original in originals}
    classes = tuple(name for name in dataset.classes if name in present)
    choice, checkpoints = _find_foreground(classes, options)
    teacher = _find_teacher(dataset, options)
    sources = (None if choice is None else cast(Bundle, choice.source), teacher)
    subject = Subject(
        classes=classes,
        runtime=_chosen_once(options),
        foreground=choice,
        checkpoints=checkpoints,
        teacher=teacher,
        batch=batch_of(sources[0], options),
        scored=batch_of(sources[1], options),
    )
    return subject, [bundle for bundle in sources if bundle is not None]


def _task(options: BenchOptions, teacher: Bundle | None, runtimes: Iterable[Runtime]) -> Task:
    """Return what `fgdd-fast distill` does by default, on the device where this project runs."""
    devices = [runtime.device for runtime in runtimes]
    backends = [find_backend(device) for device in devices]
    on_processor = all(backend.on_processor or backend.only_copies for backend in backends)
    side = options.size // options.factor
    return Task(
        crops=options.crops,
        seed=options.seed,
        size=options.size,
        factor=options.factor,
        view="pad" if teacher is None else default_view(side, teacher.preprocessing.width),
        threads=options.threads,
        device="cpu" if on_processor else "cuda",
        gpu=0 if on_processor else max(split_device(device)[1] for device in devices),
    )


def _draw(folder: Path, options: BenchOptions) -> tuple[Path, BenchOptions]:
    """Draw a data set and, where a teacher is needed and none is named, fit one on it."""
    fitted = options.needs(SCORED) and options.teacher is None
    for name in [options.foreground] * options.needs(SEGMENTED) + [BACKBONE] * fitted:
        if name in load_catalogue():
            pull_model(name)
    _log.info("Drawing a data set")
    data = folder / "drawn"
    write_drawn_dataset(data, images_per_class=DRAWN_PER_CLASS, seed=options.seed)
    if not fitted:
        return data, options
    _log.info("Fitting a teacher")
    device = options.device if options.compared else "auto"
    runtime = RuntimeOptions(device=device, threads=options.threads, batch=options.batch)
    teacher = fit_teacher(data, folder / "teacher.onnx", seed=options.seed, runtime=runtime).bundle
    return data, replace(options, teacher=str(teacher.onnx))


def _find_foreground(
    classes: tuple[str, ...], options: BenchOptions
) -> tuple[ForegroundChoice | None, tuple[str, str] | None]:
    """Find the foreground model that the paths need, and the checkpoints of a Grounded SAM 2."""
    if not options.needs(SEGMENTED):
        return None, None
    detector, segmenter, name = options.detector, options.segmenter, options.foreground
    if name == RANDOM:
        made = import_module("fgdd_bench.references.grounded.random_grounded").random_grounded()
        (detector, segmenter), name = made.checkpoints, str(made.bundle.onnx)
    prompts = None if options.prompts is None else read_prompts(options.prompts)
    choice = choose_foreground(name, classes, prompts=prompts, box_threshold=options.box_threshold)
    if not isinstance(choice.source, Bundle):
        raise SettingsError(
            f"'{choice.name}' is no model in a bundle, so there is nothing to measure",
            "Name a model with --foreground, or leave foreground and all out of --stages.",
        )
    if not asked_by_class(choice.source):
        if choice.source.prompting is not None:
            raise SettingsError(
                f"'{choice.name}' is neither a saliency model nor a Grounded SAM 2, which are compared here",
                "Name one of these with --foreground, or leave foreground and all out of --stages.",
            )
        return choice, None
    if detector is None or segmenter is None:
        if options.references and options.compared:
            raise SettingsError(
                "The references run the checkpoints of Grounded SAM 2, and none are named",
                "Add --detector and --segmenter, as they were given to 'fgdd-fast export grounded-sam2'.",
            )
        return choice, None
    return choice, (detector, segmenter)


def _find_teacher(dataset: DataSet, options: BenchOptions) -> Bundle | None:
    """Find the teacher that the paths need; it knows all classes."""
    if not options.needs(SCORED):
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


def _data_facts(originals: Sequence[Original]) -> dict[str, Any]:
    return {
        "images": len(originals),
        "classes": len({original.image.class_name for original in originals}),
        "megapixels": fmean(original.file.width * original.file.height / 1e6 for original in originals),
        "kilobytes": fmean(original.image.path.stat().st_size / 1e3 for original in originals),
    }


def model_facts(bundle: Bundle, runtime: Runtime) -> dict[str, Any]:
    """Return what a result says of a model that we ran: its name, and the hashes of all that it is."""
    graph = runtime.variants.get(bundle.sha256, bundle)
    wanted = (split_device(runtime.device)[0], graph.fingerprint, runtime.precision == "tf32")
    engines = [
        plan.sha256
        for plan in PlanStore().list()
        if (plan.key.flavour, plan.key.model_sha256, plan.key.precision == "tf32") == wanted
    ]
    return {
        "name": bundle.onnx.stem,
        "sha256": bundle.sha256,
        "parts": dict(bundle.parts),
        "variant": graph.variant,
        "variant_sha256": None if graph is bundle else graph.sha256,
        "asked": f"{runtime.device} {runtime.precision}",
        "engines": engines,
    }
