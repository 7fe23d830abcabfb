"""A grid of the accuracy benchmark, from photographs to a file of results."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.accuracy.plan import ALL_DATA, StudentGrid, plan_full_data, plan_sets
from benchmarks.accuracy.results import Line, ResultFile, SetKey, open_results, set_line
from benchmarks.accuracy.selection import Progress, SelectionGrid, open_selector
from benchmarks.accuracy.sets import MosaicSet, WholeData, whole_data
from benchmarks.accuracy.training import TrainingSettings, Work, open_label_teacher
from benchmarks.accuracy.workers import train_all
from fgdd_bench.machine.environment import environment
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.images.dataset import DataSet
from fgdd_fast.models.foreground import ForegroundChoice
from fgdd_fast.models.network import Runtime, Teacher
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.validation import read_validation
from fgdd_fast.students.results.teacher_accuracy import accuracy_on_photographs, accuracy_on_views


@dataclass(frozen=True)
class Grid:
    """All that a run of the benchmark is given.

    Attributes:
        dataset: the photographs that are distilled.
        validation: folder of those that judge.
        foreground: the foreground model.
        selection: which sets are chosen.
        students: which students learn from each.
        training: how, with the teacher that labels.
        runtime: how a bundle runs while pools are measured.
        store: folder of measurements.
        full_data: whether students of all real data are trained.
        workers: processes that train; as many threads measure.
    """

    dataset: DataSet
    validation: Path
    foreground: ForegroundChoice
    selection: SelectionGrid
    students: StudentGrid
    training: TrainingSettings
    runtime: Callable[[Bundle], Runtime]
    store: Path
    full_data: bool
    workers: int


def run(grid: Grid, path: Path, command: str, progress: Progress) -> None:
    """Measure, choose, label, train: whatever is not yet in a file of results.

    Args:
        grid: what is asked for.
        path: the file of results.
        command: that the run was started with.
        progress: told what is being done.

    Raises:
        FgddError: something failed; what is done is in the file.
    """
    validation = read_validation(
        grid.validation,
        grid.dataset.classes,
        grid.selection.size,
        method=grid.selection.resize,
        threads=grid.workers,
    )
    with closing(open_label_teacher(grid.training)) as teacher:
        conditions = _conditions(grid, validation, teacher)
        with open_results(path, conditions) as file:
            file.add({"kind": "run", "command": command, "environment": environment()})
            if not file.found.teachers:
                file.add(*_teacher_lines(grid, validation, teacher))
            works = [*_full_data(grid, file), *_distilled(grid, file, progress)]
            advance = progress("Training", sum(map(_students, works)))
            for work, lines in train_all(works, grid.training, validation, grid.workers):
                file.add(*lines)
                for _ in range(_students(work)):
                    advance()


def _students(work: Work) -> int:
    return sum(map(len, work.training.students.values()))


def _full_data(grid: Grid, file: ResultFile) -> list[Work]:
    """The students of all real data that are not done."""
    if not grid.full_data:
        return []
    images = whole_data(grid.dataset, grid.workers)
    _note_sets(file, {ALL_DATA: images})
    return plan_full_data(images, grid.students, file.found)


def _distilled(grid: Grid, file: ResultFile, progress: Progress) -> list[Work]:
    """The students of distilled sets that are not done."""
    with open_selector(
        grid.dataset,
        grid.selection,
        teacher=grid.training.teacher,
        foreground=grid.foreground,
        runtime=grid.runtime,
        store=grid.store,
        threads=grid.workers,
        progress=progress,
    ) as selector:
        sets = dict(selector.sets())
    _note_sets(file, sets)
    return plan_sets(sets, grid.students, file.found)


def _note_sets(file: ResultFile, sets: Mapping[SetKey, MosaicSet | WholeData]) -> None:
    """Write down which tiles each row chose, unless the file says so already."""
    lines = {key: set_line(key, images.fingerprint, **images.facts()) for key, images in sets.items()}
    file.add(*(line for key, line in lines.items() if file.found.sets.get(key) != line))


def _teacher_lines(grid: Grid, validation: LabelledImages, small: Teacher) -> list[Line]:
    """How often the teacher is right about the validation images, as they are and as students see them.

    Raises:
        TeacherError: it takes classes for each other, or is no better than guessing.
    """
    bundle, classes = grid.training.teacher, validation.classes
    size = bundle.preprocessing.width
    runtime = grid.training.runtime
    with closing(Teacher(bundle, runtime, view="native", tile_size=size, batch=small.batch)) as teacher:
        method, threads = grid.selection.resize, grid.workers
        whole = accuracy_on_photographs(teacher, grid.validation, classes, method=method, threads=threads)
    shown = {
        f"whole photographs at {size} pixels": whole,
        f"what students see, {validation.images.shape[1]} pixels": accuracy_on_views(small, validation),
    }
    return [{"kind": "teacher", "shown": name, "top1": round(found.top1, 6)} for name, found in shown.items()]


def _conditions(grid: Grid, validation: LabelledImages, teacher: Teacher) -> Line:
    """Everything that a student depends on and that is the same for all of a file."""
    torch = import_optional("torch", "bench")
    selection, training, students = grid.selection, grid.training, grid.students
    pixels = hashlib.sha256(validation.images.tobytes()).hexdigest()
    recipe = {name: value for name, value in asdict(training.recipe).items() if name != "epochs"}
    return {
        "classes": list(grid.dataset.classes),
        "data": {"name": grid.dataset.root.name, "images": len(grid.dataset.images)},
        "validation": {
            "name": grid.validation.name,
            "images": len(validation.labels),
            "labels": validation.labels.tolist(),
            "sha256": pixels,
        },
        "teacher": {
            "name": training.teacher.name,
            "sha256": training.teacher.sha256,
            "labels_by": teacher.engine.arithmetic,
            "shown": "enlarged to its input",
        },
        "foreground": {"name": grid.foreground.name, "sha256": getattr(grid.foreground.source, "sha256", "")},
        "size": selection.size,
        "factor": selection.factor,
        "crops": selection.crops,
        "pool": "all" if selection.pool is None else selection.pool,
        "resize": selection.resize,
        "epochs": students.epochs,
        "label_epochs": training.label_epochs,
        "full_epochs": students.full_epochs,
        "recipe": recipe,
        "students_by": f"torch {torch.__version__}, {training.device}, {platform.machine()}, 1 thread",
    }
