"""What a grid takes: which students are to be trained, how many views that is, and how long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from benchmarks.accuracy.results import Labels, Results, SetKey, StudentKey
from benchmarks.accuracy.rows import FULL_DATA
from benchmarks.accuracy.sets import MosaicSet, WholeData
from benchmarks.accuracy.training import Training, TrainingSettings, Work, open_label_teacher
from fgdd_fast.labels.training_views import ViewRecipe, default_batch
from fgdd_fast.models.network import Images, Teacher
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.online_labels import class_logits
from fgdd_fast.students.inputs.training_set import TrainingSet
from fgdd_fast.students.results.result import Student
from fgdd_fast.students.training.loop import train_students

ALL_DATA = SetKey(FULL_DATA, 0, 0)


@dataclass(frozen=True)
class StudentGrid:
    """The students of every set.

    Attributes:
        architectures: networks.
        training_seeds: of their first weights.
        hard_seeds: those of them with which students learn hard labels as well.
        epochs: passes over a distilled set.
        full_epochs: passes over all of the real data.
    """

    architectures: tuple[str, ...]
    training_seeds: tuple[int, ...]
    hard_seeds: tuple[int, ...]
    epochs: int
    full_epochs: int

    def of_set(self, ipc: int) -> Training:
        """The students of a distilled set."""
        return Training(
            ipc,
            self.epochs,
            {"soft": self._students(self.training_seeds), "hard": self._students(self.hard_seeds)},
        )

    def of_full_data(self, ipc: int) -> tuple[Training, ...]:
        """The students of all real data: one at a time, as they take longest."""
        students = self._students(self.training_seeds)
        return tuple(Training(ipc, self.full_epochs, {"hard": (student,)}) for student in students)

    def _students(self, seeds: Sequence[int]) -> tuple[Student, ...]:
        return tuple(Student(name, seed) for name in self.architectures for seed in seeds)


def plan_sets(sets: Mapping[SetKey, MosaicSet], grid: StudentGrid, found: Results) -> list[Work]:
    """The work that is left of distilled sets; sets of the same tiles and seed are one."""
    works = {
        (images.fingerprint, key.seed): Work(images, images.fingerprint, key.seed, grid.of_set(key.ipc))
        for key, images in sets.items()
    }
    return _left(works.values(), found)


def plan_full_data(images: WholeData, grid: StudentGrid, found: Results) -> list[Work]:
    """The work that is left of students of all real data."""
    ipc = len(images.dataset.images) // len(images.dataset.classes)
    works = [Work(images, images.fingerprint, ALL_DATA.seed, training) for training in grid.of_full_data(ipc)]
    return _left(works, found)


def _left(works: Iterable[Work], found: Results) -> list[Work]:
    """The works that have students which are not done, with only these."""
    left = []
    for work in works:
        students: dict[Labels, tuple[Student, ...]] = {}
        for labels, group in work.training.students.items():
            keys = {
                student: StudentKey(work.fingerprint, work.view_seed, labels, *student_fields(student))
                for student in group
            }
            students[labels] = tuple(student for student, key in keys.items() if key not in found.students)
        if any(students.values()):
            left.append(replace(work, training=replace(work.training, students=students)))
    return left


def student_fields(student: Student) -> tuple[str, int]:
    """What a key says of a student."""
    return student.architecture, student.seed


@dataclass(frozen=True)
class Rates:
    """Views a second of one worker.

    Attributes:
        labelled: by the teacher.
        trained: by architecture.
    """

    labelled: float
    trained: Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """What some works take.

    Attributes:
        trainings: how many there are: sets, and students of all real data.
        students: to be trained.
        labelled, trained: views.
        label_seconds, train_seconds: of one worker.
    """

    trainings: int
    students: int
    labelled: int
    trained: int
    label_seconds: float
    train_seconds: float


def estimate(trainings: Sequence[Training], classes: int, label_epochs: int, rates: Rates) -> Estimate:
    """Add up what trainings take.

    Args:
        trainings: what is to be done.
        classes: of the images.
        label_epochs: epochs that the teacher labels.
        rates: of one worker.
    """
    labelled = trained = students = 0
    train_seconds = 0.0
    for training in trainings:
        images = training.ipc * classes
        views = images * training.epochs
        if training.students.get("soft"):
            labelled += images * min(label_epochs, training.epochs)
        for student in chain.from_iterable(training.students.values()):
            students += 1
            trained += views
            train_seconds += views / rates.trained[student.architecture]
    return Estimate(len(trainings), students, labelled, trained, labelled / rates.labelled, train_seconds)


def measure_rates(settings: TrainingSettings, architectures: Sequence[str], ipc: int) -> Rates:
    """Time the teacher and each architecture on noise, in one worker alone, after once to warm up."""
    count = len(settings.classes) * ipc
    noise = np.random.default_rng(0).integers(0, 256, (count, settings.size, settings.size, 3), np.uint8)
    teacher = open_label_teacher(settings)
    try:
        labelled = _label_rate(teacher, noise)
    finally:
        teacher.close()
    return Rates(labelled, {name: _train_rate(settings, name, noise, ipc) for name in architectures})


def _label_rate(teacher: Teacher, noise: Images) -> float:
    classes = teacher.bundle.classes or ()
    class_logits(teacher, noise[: teacher.batch], classes)
    begin = time.perf_counter()
    class_logits(teacher, noise, classes)
    return len(noise) / (time.perf_counter() - begin)


def _train_rate(settings: TrainingSettings, architecture: str, noise: Images, ipc: int) -> float:
    labels = np.arange(len(noise), dtype=np.int64) % len(settings.classes)
    views = ViewRecipe(settings.size, 1, default_batch(len(settings.classes), ipc), 0)
    judged = LabelledImages(noise[:1], labels[:1], settings.classes)
    training = TrainingSet(noise, labels, settings.classes, views)

    def seconds(epochs: int) -> float:
        recipe = replace(settings.recipe, epochs=epochs)
        begin = time.perf_counter()
        train_students(training, judged, [Student(architecture, 0)], recipe, device=settings.device)
        return time.perf_counter() - begin

    seconds(1)
    return len(noise) * 2 / (seconds(3) - seconds(1))
