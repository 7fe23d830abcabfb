"""What the command of the accuracy benchmark does, apart from its options: these need no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.accuracy.plan import Estimate, StudentGrid, estimate, measure_rates
from benchmarks.accuracy.rows import CONTROLS, choose_rows
from benchmarks.accuracy.run import Grid, run
from benchmarks.accuracy.selection import SelectionGrid
from benchmarks.accuracy.training import TrainingSettings
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import pool, scan
from fgdd_fast.images.views import default_view
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground
from fgdd_fast.models.network import Runtime, check_classes
from fgdd_fast.runtime.choose import choose_runtime
from fgdd_fast.students.architectures import find_architecture
from fgdd_fast.students.training.recipe import StudentRecipe

SMALL = 64  # pixels: up to here mosaics of one tile are sensible
CURVE = 5  # validations of a student


@dataclass(frozen=True)
class GridOptions:
    """The options of the command, named as on the command line; see its `--help`."""

    data: Path
    validation: Path
    teacher: str
    foreground: str
    rows: tuple[str, ...]
    rules: tuple[str, ...]
    controls: Any
    score_view: Any
    ipcs: tuple[int, ...]
    size: int
    factor: int | None
    architectures: tuple[str, ...]
    selection_seeds: int
    first_seed: int
    training_seeds: int
    hard_seeds: int
    epochs: int
    label_epochs: int | None
    full_epochs: int
    full_data: bool
    arithmetic: Any
    compile: bool
    pool: int
    crops: int
    device: Any
    precision: Any
    student_device: str
    workers: int
    store: Path


def make_grid(options: GridOptions) -> Grid:
    """The grid that options ask for, checked as far as that takes no time.

    Raises:
        FgddError: an option cannot be met.
    """
    dataset = scan(options.data)
    teacher = find_bundle(options.teacher, "teacher")
    check_classes(teacher, dataset.classes)
    for name in options.architectures:
        find_architecture(name).new(len(dataset.classes), options.size)

    def runtime(model: Bundle) -> Runtime:
        return choose_runtime(model, options.device, options.precision, options.workers).runtime

    return Grid(
        dataset=dataset,
        validation=options.validation,
        foreground=choose_foreground(options.foreground, dataset.classes),
        selection=_selection(options, teacher),
        students=_students(options),
        training=_training(options, dataset.classes, teacher, replace(runtime(teacher), threads=1)),
        runtime=runtime,
        store=options.store,
        full_data=options.full_data,
        workers=options.workers,
    )


def _selection(options: GridOptions, teacher: Bundle) -> SelectionGrid:
    factor = options.factor or (1 if options.size <= SMALL else 2)
    if options.size % factor:
        raise SettingsError(
            f"{options.size} pixels cannot be cut into {factor} equal tiles", "Choose another --size."
        )
    controls = CONTROLS if options.controls == "both" else (options.controls,)
    view = options.score_view or default_view(options.size // factor, teacher.preprocessing.width)
    return SelectionGrid(
        rows=choose_rows(options.rows, options.rules, controls, view),
        ipcs=options.ipcs,
        seeds=tuple(range(options.first_seed, options.first_seed + options.selection_seeds)),
        size=options.size,
        factor=factor,
        crops=options.crops,
        pool=options.pool,
        resize="area",
    )


def _students(options: GridOptions) -> StudentGrid:
    return StudentGrid(
        architectures=options.architectures,
        training_seeds=tuple(range(options.training_seeds)),
        hard_seeds=tuple(range(min(options.hard_seeds, options.training_seeds))),
        epochs=options.epochs,
        full_epochs=options.full_epochs,
    )


def _training(
    options: GridOptions, classes: tuple[str, ...], teacher: Bundle, runtime: Runtime
) -> TrainingSettings:
    epochs = options.epochs
    return TrainingSettings(
        classes=classes,
        size=options.size,
        resize="area",
        recipe=StudentRecipe(
            epochs,
            validate_every=max(epochs // CURVE, 1),
            arithmetic=options.arithmetic,
            compile=options.compile,
        ),
        label_epochs=min(options.label_epochs or epochs, epochs),
        teacher=teacher,
        runtime=runtime,
        device=options.student_device,
    )


def run_grid(grid: Grid, results: Path, command: str, console: Console) -> None:
    """Run a grid, showing progress.

    Raises:
        FgddError: something failed; what is done is in the file of results.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def progress(name: str, total: int) -> Callable[[], None]:
            if not console.is_terminal:
                console.print(f"{name}: {total}", highlight=False)
            task: TaskID = bar.add_task(name, total=total)
            return lambda: bar.advance(task)

        run(grid, results, command, progress)


def show_plan(grid: Grid, console: Console) -> None:
    """Say how many sets, labels and students a grid has at the most, and about how long it takes."""
    selection, students = grid.selection, grid.students
    classes = len(grid.dataset.classes)
    rows, ipcs, seeds = len(selection.rows), len(selection.ipcs), len(selection.seeds)
    pools = sum(len(pool(grid.dataset, selection.pool, seed)) for seed in selection.seeds)
    sets = [students.of_set(ipc) for _ in selection.rows for ipc in selection.ipcs for _ in selection.seeds]
    full = students.of_full_data(len(grid.dataset.images) // classes) if grid.full_data else ()
    rates = measure_rates(grid.training, students.architectures, max(selection.ipcs))
    trained = ", ".join(f"{name} on {rate:.0f}" for name, rate in rates.trained.items())
    lines = [
        f"{rows} rows, {ipcs} numbers of images, {seeds} selection seeds: at most {len(sets)} sets, of which "
        "equal ones are trained once.",
        f"Measured first, unless the store knows: {pools:,} images (of all seeds), "
        f"{selection.crops + 1} views of each in {len(selection.views)} ways.",
        f"One worker labels {rates.labelled:.0f} views a second, and trains {trained}.",
    ]
    for name, trainings in (("Distilled sets", sets), ("All real data", full)):
        found = estimate(trainings, classes, grid.training.label_epochs, rates)
        lines.append(f"{name}: {_words(found, grid.workers)}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _words(found: Estimate, workers: int) -> str:
    minutes = (found.label_seconds + found.train_seconds) / workers / 60
    train, label = found.train_seconds / 60, found.label_seconds / 60
    return (
        f"{found.students:,} students; {found.trained:,} views trained, {train:.0f} minutes of a worker; "
        f"{found.labelled:,} labelled, {label:.0f}; together {minutes:.0f} minutes with {workers} workers."
    )
