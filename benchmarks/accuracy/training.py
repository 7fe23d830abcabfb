"""The students of one set: images cut, views labelled by the teacher once, students trained side by side.

Each set is one worker's, with one thread, so that a student's accuracy is the same whatever runs beside it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.intervals import pack_bits
from benchmarks.accuracy.results import Labels, Line, StudentKey, student_line
from benchmarks.accuracy.sets import TrainingImages
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, default_batch
from fgdd_fast.models.network import Runtime, Teacher
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.online_labels import OnlineLabels
from fgdd_fast.students.inputs.training_set import SoftLabels, TrainingSet
from fgdd_fast.students.results.result import Student, StudentResult
from fgdd_fast.students.training.loop import train_students
from fgdd_fast.students.training.recipe import StudentRecipe

TEACHER_BATCH = 8  # views an inference; more of them overflow the caches of a processor


@dataclass(frozen=True)
class TrainingSettings:
    """How students are trained, the same for all of a file of results.

    Attributes:
        classes: their names, in the order of labels.
        size: side of images and of views in pixels.
        resize: how images are resized.
        recipe: of the students; a work has its own number of epochs.
        label_epochs: epochs of views that the teacher labels at most; students see them again and again.
        teacher: gives the soft labels.
        runtime: of the teacher, with one thread.
        device: of the students, for PyTorch.
    """

    classes: tuple[str, ...]
    size: int
    resize: ResizeMethod
    recipe: StudentRecipe
    label_epochs: int
    teacher: Bundle
    runtime: Runtime
    device: str


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

    images: TrainingImages
    fingerprint: str
    view_seed: int
    training: Training


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
        """The views of an epoch, counted from 0, and their logits float32 [n, classes]."""
        index = epoch % self._epochs
        if index not in self._known:
            begin = time.perf_counter()
            self._known[index] = self._online(index)
            self.seconds += time.perf_counter() - begin
        return self._known[index]


def open_label_teacher(settings: TrainingSettings) -> Teacher:
    """The teacher that labels views: each is enlarged to its input."""
    return Teacher(
        settings.teacher, settings.runtime, view="resize", tile_size=settings.size, batch=TEACHER_BATCH
    )


def train(work: Work, settings: TrainingSettings, validation: LabelledImages, teacher: Teacher) -> list[Line]:
    """Train the students of a set.

    Args:
        work: the set and its students.
        settings: how.
        validation: judges them.
        teacher: see `open_label_teacher`.

    Returns:
        The line of each student.

    Raises:
        FgddError: an image or a network failed.
    """
    images, labels = work.images.read(settings.size, settings.resize)
    batch = default_batch(len(settings.classes), work.training.ipc)
    views = ViewRecipe(settings.size, work.images.factor, batch, work.view_seed)
    online = OnlineLabels(teacher, settings.classes, images, views)
    repeated = RepeatedLabels(online, settings.label_epochs)
    recipe = replace(settings.recipe, epochs=work.training.epochs)
    lines: list[Line] = []
    for kind, students in work.training.students.items():
        if not students:
            continue
        soft = repeated if kind == "soft" else None
        training = TrainingSet(images, labels, settings.classes, views, soft)
        results = train_students(training, validation, students, recipe, device=settings.device, threads=1)
        label_seconds = repeated.seconds / len(students) if soft else 0.0
        for result in results:
            key = StudentKey(
                work.fingerprint, work.view_seed, kind, result.student.architecture, result.student.seed
            )
            facts = {"images": len(images), "epochs": recipe.epochs, "label_seconds": round(label_seconds, 2)}
            lines.append(student_line(key, **facts, **result_facts(result)))
    return lines


def result_facts(result: StudentResult) -> Line:
    """What the line of a student says of its result."""
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
