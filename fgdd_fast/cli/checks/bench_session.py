"""What `fgdd-fast bench` opens before it measures: images, models, limits, and what a result says of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from fgdd_bench.harness.opening import WayOpener, model_facts
from fgdd_bench.harness.originals import Original, choose_originals, draw_composition, mosaic_settings
from fgdd_bench.harness.result import FORMAT, Limits, rounded
from fgdd_bench.harness.subject import Subject
from fgdd_bench.harness.ways import Task
from fgdd_bench.machine.ceilings import METHOD, device_ceilings, opencv_decode_rate, processor_ceilings
from fgdd_bench.machine.environment import command_line, environment
from fgdd_bench.references.grounded.subject import GroundedSubject
from fgdd_engines.backends import find_backend
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.cli.checks.bench_models import (
    COMPOSED,
    SCORED,
    SEGMENTED,
    BenchOptions,
    Runtimes,
    bundle_of,
    choose_cropped_graph,
    find_foreground,
    find_teacher,
)
from fgdd_fast.cli.distillation.demo import DRAWN_PER_CLASS, pull_models
from fgdd_fast.cli.session import report_skipped
from fgdd_fast.images.dataset import scan
from fgdd_fast.models.fitting import BACKBONE, fit_teacher
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.synthetic import write_drawn_dataset


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
        runtimes = Runtimes(options, console)
        foreground = find_foreground(classes, options, runtimes, console)
        teacher = find_teacher(dataset, options)
        bundles = [bundle for bundle in (bundle_of(foreground), teacher) if bundle is not None]
        on_processor = all(find_backend(runtimes(bundle).device).on_processor for bundle in bundles)
        task = Task(
            crops=options.crops,
            seed=options.seed,
            tile_size=options.size // options.factor,
            factor=options.factor,
            threads=options.threads,
            device="cpu" if on_processor else "cuda",  # the references run where the product does
        )
        mosaic_settings(originals, task, options.size)  # refuses what cannot be cut into equal tiles
        if teacher is not None:
            choose_cropped_graph(teacher, task, runtimes)
        subject = Subject(
            classes=classes,
            runtime=runtimes,
            foreground=foreground if isinstance(foreground, Bundle) else None,
            teacher=teacher,
            composition=draw_composition(originals, task, options.size) if options.need(COMPOSED) else None,
            batch=options.batch,
        )
        grounded = foreground if isinstance(foreground, GroundedSubject) else None
        opener = WayOpener(
            task=task, subject=subject, grounded=grounded, originals=originals, size=options.size
        )
        with console.status("Measuring the limits of this machine"):
            limits = _limits(originals, task)
        facts = {"name": data.resolve().name, "drawn": drawn, **_data_facts(originals)}
        result = _head(facts, options, limits, bundles, runtimes)
        yield BenchSession(originals, task, opener, limits, result)


def _draw(folder: Path, options: BenchOptions, console: Console) -> tuple[Path, BenchOptions]:
    """A drawn data set and, where one is needed and none is named, a teacher fitted on it."""
    fitted = options.need(SCORED) and options.teacher is None
    pull_models([options.foreground] * options.need(SEGMENTED) + [BACKBONE] * fitted)
    console.rule("Drawing a data set", align="left")
    data = folder / "drawn"
    write_drawn_dataset(data, images_per_class=DRAWN_PER_CLASS, seed=options.seed)
    if not fitted:
        return data, options
    console.rule("Fitting a teacher", align="left")
    runtime = RuntimeOptions(device=options.device, threads=options.threads, batch=options.batch)
    teacher = fit_teacher(data, folder / "teacher.onnx", seed=options.seed, runtime=runtime).bundle
    return data, replace(options, teacher=str(teacher.onnx))


def _limits(originals: Sequence[Original], task: Task) -> Limits:
    return Limits(
        opencv_decode_rate([original.image.path for original in originals]),
        processor_ceilings(),
        device_ceilings() if task.device == "cuda" else None,
    )


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
    names = ("repeats", "crops", "size", "factor", "seed", "threads", "batch", "device", "precision")
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
