"""What the command of the accuracy benchmark does, apart from its options: these need no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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

from fgdd_fast.benchmarks.accuracy.plan import Estimate, StudentGrid, estimate, measure_rates
from fgdd_fast.benchmarks.accuracy.rows import CONTROLS, choose_rows
from fgdd_fast.benchmarks.accuracy.run import Grid, run
from fgdd_fast.benchmarks.accuracy.selection import SelectionGrid
from fgdd_fast.benchmarks.accuracy.training import TrainingSettings
from fgdd_fast.catalogue import find_bundle
from fgdd_fast.dataset import pool, scan
from fgdd_fast.devices import choose_runtime
from fgdd_fast.engines.bundle import Bundle
from fgdd_fast.errors import SettingsError
from fgdd_fast.foreground_opening import choose_foreground
from fgdd_fast.networks import Runtime, check_classes
from fgdd_fast.students.architectures import find_architecture
from fgdd_fast.students.recipe import StudentRecipe

SMALL = 64  # pixels: up to here mosaics of one tile are sensible
CURVE = 5  # validations of a student


def make_grid(
    *,
    data: Path,
    validation: Path,
    teacher: str,
    foreground: str,
    rows: tuple[str, ...],
    rules: tuple[str, ...],
    controls: Any,
    ipcs: tuple[int, ...],
    size: int,
    factor: int | None,
    architectures: tuple[str, ...],
    selection_seeds: int,
    first_seed: int,
    training_seeds: int,
    hard_seeds: int,
    epochs: int,
    label_epochs: int | None,
    full_epochs: int,
    full_data: bool,
    arithmetic: Any,
    pool: int,
    crops: int,
    device: Any,
    precision: Any,
    student_device: str,
    workers: int,
    store: Path,
) -> Grid:
    """The grid that options ask for, checked as far as that takes no time.

    Raises:
        FgddError: an option cannot be met.
    """
    dataset = scan(data)
    bundle = find_bundle(teacher, "teacher")
    check_classes(bundle, dataset.classes)
    for name in architectures:
        find_architecture(name).new(len(dataset.classes), size)

    def runtime(model: Bundle) -> Runtime:
        return choose_runtime(model, device, precision, workers).runtime

    factor = factor or (1 if size <= SMALL else 2)
    if size % factor:
        raise SettingsError(
            f"{size} pixels cannot be cut into {factor} equal tiles", "Choose another --size."
        )
    selection = SelectionGrid(
        rows=choose_rows(rows, rules, CONTROLS if controls == "both" else (controls,)),
        ipcs=ipcs,
        seeds=tuple(range(first_seed, first_seed + selection_seeds)),
        size=size,
        factor=factor,
        crops=crops,
        pool=pool,
        resize="area",
    )
    students = StudentGrid(
        architectures=architectures,
        training_seeds=tuple(range(training_seeds)),
        hard_seeds=tuple(range(min(hard_seeds, training_seeds))),
        epochs=epochs,
        full_epochs=full_epochs,
    )
    training = TrainingSettings(
        classes=dataset.classes,
        size=size,
        resize="area",
        recipe=StudentRecipe(epochs, validate_every=max(epochs // CURVE, 1), arithmetic=arithmetic),
        label_epochs=min(label_epochs or epochs, epochs),
        teacher=bundle,
        runtime=replace(runtime(bundle), threads=1),
        device=student_device,
    )
    return Grid(
        dataset=dataset,
        validation=validation,
        foreground=choose_foreground(foreground, dataset.classes),
        selection=selection,
        students=students,
        training=training,
        runtime=runtime,
        store=store,
        full_data=full_data,
        workers=workers,
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
