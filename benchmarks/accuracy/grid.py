"""A grid of the accuracy benchmark, from photographs to a file of results, and what it takes."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.results import Line, ResultFile, SetKey, open_results, set_line
from benchmarks.accuracy.rows import FULL_DATA
from benchmarks.accuracy.selection import SelectionGrid, choose_sets
from benchmarks.accuracy.sets import AnySet, whole_data
from benchmarks.accuracy.training import (
    Training,
    TrainingGrid,
    Work,
    open_label_teacher,
    train_all,
    unfinished,
)
from fgdd_bench.machine.environment import environment
from fgdd_engines.progress import Progress
from fgdd_fast.images.dataset import DataSet, pool
from fgdd_fast.labels.training_views import ViewRecipe, default_batch
from fgdd_fast.models.factory import choose_foreground
from fgdd_fast.models.network import Teacher
from fgdd_fast.students.inputs.labelled_images import LabelledImages, read_validation
from fgdd_fast.students.inputs.training_set import TrainingSet, class_logits
from fgdd_fast.students.results.result import Student
from fgdd_fast.students.results.teacher_accuracy import accuracy_on_photographs, accuracy_on_views
from fgdd_fast.students.training.loop import train_students

ALL_DATA = SetKey(FULL_DATA, 0, 0)


@dataclass(frozen=True)
class Grid:
    """All that a run of the benchmark is given.

    Attributes:
        dataset: the photographs that are distilled.
        validation: folder of those that judge.
        selection: which sets are chosen.
        training: which students learn from each, and how.
        full_data: whether students of all real data are trained.
        workers: processes that train; as many threads measure.
    """

    dataset: DataSet
    validation: Path
    selection: SelectionGrid
    training: TrainingGrid
    full_data: bool
    workers: int

    @property
    def images_a_class(self) -> int:
        """Photographs of a class, on average."""
        return len(self.dataset.images) // len(self.dataset.classes)


def run_grid(grid: Grid, path: Path, command: str, progress: Progress) -> None:
    """Measure, choose, label, train: whatever is not yet in a file of results.

    Args:
        grid: what is asked for.
        path: the file of results.
        command: that the run was started with.
        progress: told how far it is.

    Raises:
        FgddError: something failed; what is done is in the file.
    """
    classes, size, resize = grid.dataset.classes, grid.selection.size, grid.selection.resize
    validation = read_validation(grid.validation, classes, size, method=resize, threads=grid.workers)
    with closing(open_label_teacher(grid.training)) as teacher:
        conditions = _conditions(grid, validation, teacher)
        with open_results(path, conditions) as file:
            file.add({"kind": "run", "command": command, "environment": environment()})
            if not file.found.teachers:
                file.add(*_teacher_lines(grid, validation, teacher))
            works = list(_works(grid, file, progress))
            with progress.task("Training", sum(work.count for work in works)) as task:
                for work, lines in train_all(works, grid.training, validation, grid.workers):
                    file.add(*lines)
                    task.advance(work.count)


def _works(grid: Grid, file: ResultFile, progress: Progress) -> Iterator[Work]:
    """Yield the students that are not done: of all real data, then of distilled sets, equal ones once."""
    if grid.full_data:
        images = whole_data(grid.dataset, grid.workers)
        _note_sets(file, {ALL_DATA: images})
        trainings = grid.training.of_full_data(grid.images_a_class)
        works = [Work(images, images.fingerprint, ALL_DATA.seed, training) for training in trainings]
        yield from unfinished(works, file.found)
    sets = dict(choose_sets(grid.dataset, grid.selection, progress))
    _note_sets(file, sets)
    distinct = {
        (images.fingerprint, key.seed): Work(
            images, images.fingerprint, key.seed, grid.training.of_set(key.ipc)
        )
        for key, images in sets.items()
    }
    yield from unfinished(distinct.values(), file.found)


def _note_sets(file: ResultFile, sets: Mapping[SetKey, AnySet]) -> None:
    """Write down which tiles each row chose, unless the file says so already."""
    lines = {key: set_line(key, images.fingerprint, **images.facts()) for key, images in sets.items()}
    file.add(*(line for key, line in lines.items() if file.found.sets.get(key) != line))


def _teacher_lines(grid: Grid, validation: LabelledImages, small: Teacher) -> list[Line]:
    """Say how often the teacher is right about the validation images, as they are and as students see them.

    Raises:
        TeacherError: it takes classes for each other, or is no better than guessing.
    """
    bundle, classes, resize = grid.training.teacher, validation.classes, grid.selection.resize
    size, runtime = bundle.preprocessing.width, grid.training.runtime
    with closing(Teacher(bundle, runtime, view="native", tile_size=size, batch=small.batch)) as teacher:
        whole = accuracy_on_photographs(
            teacher, grid.validation, classes, method=resize, threads=grid.workers
        )
    shown = {
        f"whole photographs at {size} pixels": whole,
        f"what students see, {validation.images.shape[1]} pixels": accuracy_on_views(small, validation),
    }
    return [{"kind": "teacher", "shown": name, "top1": round(found.top1, 6)} for name, found in shown.items()]


def _conditions(grid: Grid, validation: LabelledImages, teacher: Teacher) -> Line:
    """Return everything that a student depends on and that is the same for all of a file."""
    selection, training = grid.selection, grid.training
    foreground = choose_foreground(selection.foreground, grid.dataset.classes)
    recipe = {name: value for name, value in asdict(training.recipe).items() if name != "epochs"}
    return {
        "classes": list(grid.dataset.classes),
        "data": {"name": grid.dataset.root.name, "images": len(grid.dataset.images)},
        "validation": {
            "name": grid.validation.name,
            "images": len(validation.labels),
            "labels": validation.labels.tolist(),
            "sha256": hashlib.sha256(validation.images.tobytes()).hexdigest(),
        },
        "teacher": {
            "name": training.teacher.name,
            "sha256": training.teacher.sha256,
            "labels_by": teacher.engine.arithmetic,
            "shown": "enlarged to its input",
        },
        "foreground": {"name": foreground.name, "sha256": getattr(foreground.source, "sha256", "")},
        "size": selection.size,
        "factor": selection.factor,
        "crops": selection.crops,
        "pool": selection.pool,
        "resize": selection.resize,
        "epochs": training.recipe.epochs,
        "label_epochs": training.label_epochs,
        "full_epochs": training.full_epochs,
        "recipe": recipe,
        "students_by": f"torch {torch.__version__}, {training.device}, {platform.machine()}, 1 thread",
    }


@dataclass(frozen=True)
class Rates:
    """Views a second of one worker: labelled by the teacher, and trained, by architecture."""

    labelled: float
    trained: Mapping[str, float]


def describe(grid: Grid) -> Iterator[str]:
    """Say how many sets, labels and students a grid has at the most, and about how long it takes."""
    selection, training = grid.selection, grid.training
    rows, ipcs, seeds = len(selection.rows), len(selection.ipcs), len(selection.seeds)
    pools = sum(len(pool(grid.dataset, selection.pool, seed)) for seed in selection.seeds)
    sets = [training.of_set(ipc) for ipc in selection.ipcs] * (rows * seeds)
    full = training.of_full_data(grid.images_a_class) if grid.full_data else ()
    rates = measure_rates(training, max(selection.ipcs))
    trained = ", ".join(f"{name} on {rate:.0f}" for name, rate in rates.trained.items())
    yield (
        f"{rows} rows, {ipcs} numbers of images, {seeds} selection seeds: at most {len(sets)} sets, of which "
        "equal ones are trained once."
    )
    yield (
        f"Measured first, unless the store knows: {pools:,} images (of all seeds), "
        f"{selection.crops + 1} views of each in {len(selection.views)} ways."
    )
    yield f"One worker labels {rates.labelled:.0f} views a second, and trains {trained}."
    for name, trainings in (("Distilled sets", sets), ("All real data", full)):
        yield f"{name}: {estimate(trainings, training, rates, grid.workers)}"


def estimate(trainings: Sequence[Training], grid: TrainingGrid, rates: Rates, workers: int) -> str:
    """Say what trainings take together, at the rates of one worker."""
    labelled = trained = students = 0
    train_minutes = 0.0
    for training in trainings:
        images = training.ipc * len(grid.classes)
        views = images * training.epochs
        if training.students.get("soft"):
            labelled += images * min(grid.label_epochs, training.epochs)
        for group in training.students.values():
            students += len(group)
            trained += views * len(group)
            train_minutes += sum(views / rates.trained[student.architecture] for student in group) / 60
    label_minutes = labelled / rates.labelled / 60
    return (
        f"{students:,} students; {trained:,} views trained, {train_minutes:.0f} minutes of a worker; "
        f"{labelled:,} labelled, {label_minutes:.0f}; "
        f"together {(label_minutes + train_minutes) / workers:.0f} minutes with {workers} workers."
    )


def measure_rates(grid: TrainingGrid, ipc: int) -> Rates:
    """Time the teacher and each architecture on noise, in one worker alone, after once to warm up."""
    count, classes = len(grid.classes) * ipc, grid.teacher.classes or ()
    noise = np.random.default_rng(0).integers(0, 256, (count, grid.size, grid.size, 3), np.uint8)
    with closing(open_label_teacher(grid)) as teacher:
        class_logits(teacher, noise[: teacher.batch], classes)
        begin = time.perf_counter()
        class_logits(teacher, noise, classes)
        labelled = count / (time.perf_counter() - begin)
    labels = np.arange(count, dtype=np.int64) % len(grid.classes)
    views = ViewRecipe(grid.size, 1, default_batch(len(grid.classes), ipc), 0)
    judged = LabelledImages(noise[:1], labels[:1], grid.classes)
    training = TrainingSet(noise, labels, grid.classes, views)

    def seconds(architecture: str, epochs: int) -> float:
        recipe = replace(grid.recipe, epochs=epochs)
        begin = time.perf_counter()
        train_students(training, judged, [Student(architecture, 0)], recipe, device=grid.device)
        return time.perf_counter() - begin

    trained = {}
    for name in grid.architectures:
        seconds(name, 1)
        trained[name] = count * 2 / (seconds(name, 3) - seconds(name, 1))
    return Rates(labelled, trained)
