"""The students of one set: images cut, views labelled by the teacher once, students trained side by side.

Each set is the work of one process, with one thread, so that a student's accuracy is the same whatever runs
beside it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.intervals import pack_bits
from benchmarks.accuracy.results import Labels, Line, Results, StudentKey, student_line
from benchmarks.accuracy.sets import AnySet
from fgdd_bench.machine.processes import worker_context
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import EngineError
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, default_batch
from fgdd_fast.models.network import Runtime, Teacher
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.training_set import OnlineLabels, SoftLabels, TrainingSet
from fgdd_fast.students.results.result import Student, StudentResult
from fgdd_fast.students.training.loop import train_students
from fgdd_fast.students.training.recipe import StudentRecipe

TEACHER_BATCH = 8  # views an inference; more of them overflow the caches of a processor


@dataclass(frozen=True, kw_only=True)
class TrainingGrid:
    """The students of every set, and how they are trained.

    Attributes:
        architectures: networks.
        training_seeds: how many first weights.
        hard_seeds: how many of these also learn hard labels.
        full_epochs: passes over all of the real data.
        label_epochs: epochs of views that the teacher labels at most; students see them again and again.
        recipe: of the students, with the passes over a distilled set.
        classes: their names, in the order of labels.
        size: side of images and of views in pixels.
        teacher: gives the soft labels.
        runtime: of the teacher, with one thread.
        device: of the students, for PyTorch.
    """

    architectures: tuple[str, ...]
    training_seeds: int
    hard_seeds: int
    full_epochs: int
    label_epochs: int
    recipe: StudentRecipe
    classes: tuple[str, ...]
    size: int
    teacher: Bundle
    runtime: Runtime
    device: str

    def of_set(self, ipc: int) -> Training:
        """Return the students of a distilled set."""
        seeds: dict[Labels, int] = {
            "soft": self.training_seeds,
            "hard": min(self.hard_seeds, self.training_seeds),
        }
        students = {labels: self._students(range(count)) for labels, count in seeds.items()}
        return Training(ipc, self.recipe.epochs, students)

    def of_full_data(self, ipc: int) -> tuple[Training, ...]:
        """Return the students of all real data: one at a time, as they take longest."""
        students = self._students(range(self.training_seeds))
        return tuple(Training(ipc, self.full_epochs, {"hard": (student,)}) for student in students)

    def _students(self, seeds: Sequence[int]) -> tuple[Student, ...]:
        return tuple(Student(name, seed) for name in self.architectures for seed in seeds)


@dataclass(frozen=True)
class Training:
    """How the students of a set are trained, besides what is the same for all.

    Attributes:
        ipc: images of each class, on the average, which says how large a batch is.
        epochs: passes over the images.
        students: those to be trained, by the labels that they learn.
    """

    ipc: int
    epochs: int
    students: Mapping[Labels, tuple[Student, ...]]


@dataclass(frozen=True)
class Work:
    """The students of one set.

    Attributes:
        images: what they learn from.
        fingerprint: of the images.
        view_seed: of the views.
        training: which students, and how.
    """

    images: AnySet
    fingerprint: str
    view_seed: int
    training: Training

    @property
    def count(self) -> int:
        """How many students there are."""
        return sum(map(len, self.training.students.values()))


def unfinished(works: Iterable[Work], found: Results) -> Iterator[Work]:
    """Yield the works that have students which are not in the results, with only these."""
    for work in works:
        students: dict[Labels, tuple[Student, ...]] = {
            labels: tuple(student for student in group if _key(work, labels, student) not in found.students)
            for labels, group in work.training.students.items()
        }
        if any(students.values()):
            yield replace(work, training=replace(work.training, students=students))


def _key(work: Work, labels: Labels, student: Student) -> StudentKey:
    return StudentKey(work.fingerprint, work.view_seed, labels, student.architecture, student.seed)


class RepeatedLabels:
    """The first epochs of views with the teacher's logits, again and again; labelled when first asked for.

    Args:
        online: labels any epoch.
        epochs: how many are labelled.

    Attributes:
        seconds: that labelling took so far.
    """

    def __init__(self, online: SoftLabels, epochs: int) -> None:
        self._online = online
        self._epochs = epochs
        self._known: dict[int, tuple[EpochViews, NDArray[np.float32]]] = {}
        self.seconds = 0.0

    def __call__(self, epoch: int) -> tuple[EpochViews, NDArray[np.float32]]:
        """Return the views of an epoch, counted from 0, and their logits float32 [n, classes]."""
        index = epoch % self._epochs
        if index not in self._known:
            begin = time.perf_counter()
            self._known[index] = self._online(index)
            self.seconds += time.perf_counter() - begin
        return self._known[index]


def open_label_teacher(grid: TrainingGrid) -> Teacher:
    """Open the teacher that labels views: each is enlarged to its input."""
    return Teacher(grid.teacher, grid.runtime, view="resize", tile_size=grid.size, batch=TEACHER_BATCH)


def train(work: Work, grid: TrainingGrid, validation: LabelledImages, teacher: Teacher) -> list[Line]:
    """Train the students of a set, and return the line of each.

    Args:
        work: the set and its students.
        grid: how.
        validation: judges them.
        teacher: see `open_label_teacher`.

    Raises:
        FgddError: an image or a network failed.
    """
    images, labels = work.images.read(grid.size, "area")
    batch = default_batch(len(grid.classes), work.training.ipc)
    views = ViewRecipe(grid.size, work.images.factor, batch, work.view_seed)
    repeated = RepeatedLabels(OnlineLabels(teacher, grid.classes, images, views), grid.label_epochs)
    recipe = replace(grid.recipe, epochs=work.training.epochs)
    lines: list[Line] = []
    for kind, students in work.training.students.items():
        if not students:
            continue
        soft = repeated if kind == "soft" else None
        training = TrainingSet(images, labels, grid.classes, views, soft)
        results = train_students(training, validation, students, recipe, device=grid.device, threads=1)
        label_seconds = repeated.seconds / len(students) if soft else 0.0
        facts = {"images": len(images), "epochs": recipe.epochs, "label_seconds": round(label_seconds, 2)}
        for result in results:
            key = _key(work, kind, result.student)
            lines.append(student_line(key, **facts, **_result_facts(result)))
    return lines


def _result_facts(result: StudentResult) -> Line:
    """Return what the line of a student says of its result."""
    return {
        "top1": round(result.accuracy, 6),
        "balanced": round(result.balanced_accuracy, 6),
        "best_top1": round(result.best_accuracy, 6),
        "correct": pack_bits(result.predictions == result.labels),
        "curve": {str(epoch): round(value, 6) for epoch, value in result.curve.items()},
        "last_loss": float(f"{result.losses[-1]:.5g}"),
        "parameters": result.parameters,
        "seconds": round(result.seconds, 2),
    }


_worker: tuple[TrainingGrid, LabelledImages, Teacher]  # what a process of the pool keeps between sets


def train_all(
    works: Sequence[Work], grid: TrainingGrid, validation: LabelledImages, workers: int
) -> Iterator[tuple[Work, list[Line]]]:
    """Train the students of many sets, and yield each set's as soon as they are done.

    Args:
        works: the sets, begun in this order.
        grid: how students are trained.
        validation: judges them.
        workers: processes; with 1 this one does it all.

    Raises:
        FgddError: an image or a network failed, or a process ended.
    """
    if workers == 1:
        with closing(open_label_teacher(grid)) as teacher:
            yield from ((work, train(work, grid, validation, teacher)) for work in works)
        return
    executor = ProcessPoolExecutor(workers, worker_context(), _begin, (grid, validation))
    try:
        futures = {executor.submit(_train, work): work for work in works}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise EngineError(
            "A process that trains students ended", "Run again: it goes on from there."
        ) from error
    finally:
        for process in multiprocessing.active_children():
            process.terminate()  # nothing that it has in hand is wanted any more
        executor.shutdown(cancel_futures=True)


def _begin(grid: TrainingGrid, validation: LabelledImages) -> None:
    """Get a process ready; it ends when its parent does, however that comes about."""
    global _worker  # noqa: PLW0603 - a process of the pool has no other place for what it keeps
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    _worker = grid, validation, open_label_teacher(grid)


def _train(work: Work) -> list[Line]:
    return train(work, *_worker)
