"""Evaluate a distilled data set: train students on it, and judge them on images that they have not seen."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.files import stage_file
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import OutputError, TeacherError
from fgdd_fast.labels.teacher import teacher_model
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Runtime, Teacher, check_classes
from fgdd_fast.output.folder import writing
from fgdd_fast.runtime.choose import RuntimeOptions, available_processors, runtime_of
from fgdd_fast.students.architectures import check_architecture
from fgdd_fast.students.inputs.labelled_images import LabelledImages, read_validation
from fgdd_fast.students.inputs.opening import LabelKind, OpenedTraining, TrainingOptions, open_training
from fgdd_fast.students.results.report import Evaluation, JudgedTeacher
from fgdd_fast.students.results.result import Student
from fgdd_fast.students.results.teacher_accuracy import accuracy_on_photographs, accuracy_on_views
from fgdd_fast.students.training.recipe import Arithmetic, StudentRecipe

EXTRA = "evaluate"
_log = logging.getLogger(__name__)


def evaluate(
    data: str | os.PathLike[str],
    *,
    validation: str | os.PathLike[str],
    teacher: str | os.PathLike[str] | None = None,
    labels: LabelKind | None = None,
    architectures: Sequence[str] = ("resnet18",),
    students: int = 3,
    seed: int = 0,
    epochs: int | None = None,
    size: int | None = None,
    student_batch: int | None = None,
    learning_rate: float | None = None,
    precision: Arithmetic = "fp32",
    compile: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    teacher_runtime: RuntimeOptions | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Train students by RDED's recipe, and judge them on the images of a validation folder.

    Args:
        data: a distilled data set; or a folder of images, as students of all real data are the ceiling.
        validation: a folder of held-out images, one folder a class.
        teacher: a bundle that labels views online, and is judged too; else stored labels are learned.
        labels: what is learned: the teacher's answers, `stored` or `online`, or the true classes, `hard`.
        architectures: names; see `architectures`.
        students: of each architecture; they differ in their initial weights.
        seed: of the first student; also of the views, where none are stored.
        epochs: passes over the images; by default all that are stored, else 300.
        size: side in pixels of what students see; by default that of `data`, 224 for a folder of images.
        student_batch: views of a step; by default RDED's for so many images and classes.
        learning_rate: AdamW's at first; by default RDED's for the architecture.
        precision: of the arithmetic while training: `fp32` or `bf16`.
        compile: whether students are compiled, for long trainings.
        device: that trains: `cpu`, `cuda`, or `auto`, which is the GPU where PyTorch finds one.
        threads: processor threads; by default all that this process may use.
        teacher_runtime: how the teacher runs; by default the fastest way that decides as the reference does.
        checkpoints: a folder that keeps students, to go on with after a stop; by default nothing is kept.
        progress: shows what is read, and the epochs of the students of each architecture.

    Raises:
        FgddError: see `fgdd_fast.errors`; checkpoints are kept.
    """
    import_optional("torch", EXTRA)
    threads = threads or available_processors()
    bundle = None if teacher is None else find_bundle(str(teacher), "teacher")
    asked = TrainingOptions(labels=labels, size=size, epochs=epochs, batch=student_batch, seed=seed)
    opened = _open(Path(data), asked, bundle, architectures, threads, progress)
    held_out = _read_validation(opened, Path(validation), threads, progress)
    recipe = StudentRecipe(opened.epochs, learning_rate, arithmetic=precision, compile=compile)
    named = [Student(name, seed + place) for name in architectures for place in range(students)]
    judge = None
    if bundle is not None:
        judge = _Judge(bundle, runtime_of(bundle, teacher_runtime or RuntimeOptions(threads=threads)))
    kept = None if checkpoints is None else Path(checkpoints)
    return _train(opened, held_out, Path(validation), named, recipe, judge, device, threads, kept, progress)


def check_outputs(*paths: Path | None) -> None:
    """Find out before the long work whether files can be written; None is passed over.

    Raises:
        OutputError: one cannot.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder", "Name a file.")
        with writing(path):
            stage_file(path, b"").unlink()


def _open(
    data: Path,
    asked: TrainingOptions,
    bundle: Bundle | None,
    architectures: Sequence[str],
    threads: int,
    progress: Progress,
) -> OpenedTraining:
    """The training set, with which the teacher and every architecture can do something."""
    opened = open_training(data, asked, has_teacher=bundle is not None, threads=threads, progress=progress)
    training = opened.training
    if bundle is not None:
        check_classes(bundle, training.classes)
    if bundle is not None and opened.stored is not None:
        given, stored = teacher_model(bundle), opened.stored.teacher
        if given.sha256 != stored.sha256:
            raise TeacherError(
                f"The labels stored in {data} are those of {stored.name} ({stored.sha256[:12]}), not of "
                f"{given.name} ({given.sha256[:12]})",
                "Name that teacher, or use --labels online.",
            )
    for name in architectures:
        check_architecture(name, len(training.classes), training.views.size)
    return opened


def _read_validation(
    opened: OpenedTraining, folder: Path, threads: int, progress: Progress
) -> LabelledImages:
    """The images that judge students; said is how many of them students learn from."""
    found = read_validation(
        folder,
        opened.training.classes,
        opened.training.views.size,
        method=opened.resize,
        sixteen_bit=opened.sixteen_bit,
        threads=threads,
        progress=progress,
    )
    if seen := sum(sha256 in opened.sources for sha256 in found.hashes):
        _log.warning(
            "%d of %d validation images are among those that students learn from: their accuracy is "
            "flattering",
            seen,
            len(found.hashes),
        )
    return found


@dataclass(frozen=True)
class _Judge:
    """The teacher, and how it runs."""

    bundle: Bundle
    runtime: Runtime

    def open(self, size: int) -> Teacher:
        """The teacher, to be shown images of a size, brought to its input."""
        return Teacher(self.bundle, self.runtime, view="resize", tile_size=size, batch=VIEWS_PER_INFERENCE)

    def judge(
        self, opened: OpenedTraining, validation: LabelledImages, folder: Path, progress: Progress
    ) -> JudgedTeacher:
        """The teacher's own accuracy on the validation images."""
        total = len(validation.images) + len(validation.skipped)
        with (
            closing(self.open(self.bundle.preprocessing.width)) as teacher,
            progress.task("Asking the teacher", total) as task,
        ):
            photographs = accuracy_on_photographs(
                teacher,
                folder,
                validation.classes,
                method=opened.resize,
                sixteen_bit=opened.sixteen_bit,
                threads=self.runtime.threads,
                advance=task.advance,
            )
        with closing(self.open(opened.training.views.size)) as teacher:
            views = accuracy_on_views(teacher, validation)
        return JudgedTeacher(teacher_model(self.bundle), photographs, views)


def _train(
    opened: OpenedTraining,
    validation: LabelledImages,
    folder: Path,
    students: Sequence[Student],
    recipe: StudentRecipe,
    judge: _Judge | None,
    device: str,
    threads: int,
    checkpoints: Path | None,
    progress: Progress,
) -> Evaluation:
    """Judge the teacher, where there is one, and train students."""
    from fgdd_fast.students.training.loop import choose_device, train_students  # noqa: PLC0415

    device = choose_device(device)
    judged, training = None, opened.training
    with ExitStack() as stack:
        if judge is not None:
            judged = judge.judge(opened, validation, folder, progress)
            if opened.labels == "online":
                training = opened.with_teacher(stack.enter_context(closing(judge.open(training.views.size))))
        results = train_students(
            training,
            validation,
            students,
            recipe,
            device=device,
            threads=threads,
            checkpoints=checkpoints,
            progress=progress,
        )
    return Evaluation(opened, validation, recipe, results, judged, device)
