"""The steps of `fgdd-fast evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from rich.console import Console

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.files import stage_file, write_file
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.cli.session import RuntimeOptions, open_runtime, progress_bar, report_skipped
from fgdd_fast.errors import OutputError, TeacherError
from fgdd_fast.labels.teacher import teacher_model
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Runtime, Teacher, check_classes
from fgdd_fast.output.folder import writing
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.opening import (
    LabelKind,
    OpenedTraining,
    Wishes,
    open_training,
)
from fgdd_fast.students.inputs.training_set import TrainingSet
from fgdd_fast.students.inputs.validation import read_validation
from fgdd_fast.students.results.curves import draw_curves
from fgdd_fast.students.results.report import JudgedTeacher, chance, report
from fgdd_fast.students.results.result import Student, StudentResult
from fgdd_fast.students.results.summary import Summary, summarise
from fgdd_fast.students.results.teacher_accuracy import accuracy_on_photographs, accuracy_on_views
from fgdd_fast.students.training.recipe import Arithmetic, StudentRecipe

EXTRA = "evaluate"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The options of `evaluate`, named as on the command line."""

    val: Path
    teacher: str | None
    labels: LabelKind | None
    architectures: tuple[str, ...]
    seeds: int
    seed: int
    epochs: int | None
    size: int | None
    batch: int | None
    learning_rate: float | None
    arithmetic: Arithmetic
    compile: bool
    device: Literal["auto", "cpu", "cuda"]
    threads: int
    checkpoints: Path | None
    json_file: Path | None
    plot: Path | None

    @property
    def students(self) -> tuple[Student, ...]:
        """Every architecture with every seed."""
        seeds = range(self.seed, self.seed + self.seeds)
        return tuple(Student(name, seed) for name in self.architectures for seed in seeds)

    @property
    def wishes(self) -> Wishes:
        """What is asked of the training set."""
        return Wishes(
            labels=self.labels, size=self.size, epochs=self.epochs, batch=self.batch, seed=self.seed
        )


@dataclass(frozen=True)
class Evaluation:
    """What became of an evaluation.

    Attributes:
        opened: what students learned from.
        validation: what judged them.
        recipe: how they were trained.
        results: the students.
        teacher: the teacher's own accuracy, where one was named.
        device: that the students were trained on.
    """

    opened: OpenedTraining
    validation: LabelledImages
    recipe: StudentRecipe
    results: tuple[StudentResult, ...]
    teacher: JudgedTeacher | None
    device: str

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The students of each architecture together."""
        return summarise(self.results, self.validation.classes)


def run_evaluation(data: Path, options: EvaluateOptions, console: Console) -> Evaluation:
    """Train and judge students.

    Args:
        data: a distilled data set, or a folder of images.
        options: how.
        console: for progress.

    Raises:
        FgddError: see `fgdd_fast.errors`; checkpoints are kept.
    """
    import_optional("torch", EXTRA)
    bundle = None if options.teacher is None else find_bundle(options.teacher, "teacher")
    opened = _open(data, options, bundle, console)
    validation = _read_validation(opened, options, console)
    device = import_module("fgdd_fast.students.training.loop").choose_device(options.device)
    recipe = StudentRecipe(
        epochs=opened.epochs,
        learning_rate=options.learning_rate,
        arithmetic=options.arithmetic,
        compile=options.compile,
    )
    teacher: JudgedTeacher | None = None
    training = opened.training
    with ExitStack() as stack:
        if bundle is not None:
            runtime = _teacher_runtime(bundle, options, console)
            teacher = _judge(bundle, runtime, opened, validation, options, console)
            if opened.labels == "online":
                asked = stack.enter_context(closing(_open_teacher(bundle, runtime, training.views.size)))
                training = opened.with_teacher(asked)
        results = _train(training, validation, recipe, device, options, console)
    return Evaluation(opened, validation, recipe, results, teacher, device)


def check_outputs(options: EvaluateOptions) -> None:
    """Find out before the long work whether the files that are asked for can be written.

    Raises:
        OutputError: one cannot.
        MissingExtraError: curves are wanted, and matplotlib is not installed.
    """
    if options.plot is not None:
        import_optional("matplotlib", EXTRA)
    for path in (options.json_file, options.plot):
        if path is None:
            continue
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder", "Name a file.")
        with writing(path):
            stage_file(path, b"").unlink()


def write_outputs(
    evaluation: Evaluation, options: EvaluateOptions, environment: Mapping[str, object]
) -> None:
    """Write the files that are asked for.

    Raises:
        OutputError: one cannot be written.
    """
    opened, validation, teacher = evaluation.opened, evaluation.validation, evaluation.teacher
    if options.json_file is not None:
        result = report(
            opened,
            validation,
            evaluation.recipe,
            evaluation.results,
            teacher=teacher,
            environment=environment,
        )
        text = json.dumps(result, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
        with writing(options.json_file):
            write_file(options.json_file, text.encode("ascii"))
    if options.plot is not None:
        levels = {"chance": chance(validation)}
        if teacher is not None:
            levels["teacher"] = teacher.photographs.top1
        picture = draw_curves(evaluation.results, levels)
        with writing(options.plot):
            write_file(options.plot, picture)


def _open(data: Path, options: EvaluateOptions, bundle: Bundle | None, console: Console) -> OpenedTraining:
    """The training set, with which the teacher and every architecture can do something."""
    with progress_bar(console) as bar:
        task = bar.add_task("Reading images", total=None)
        opened = open_training(
            data,
            options.wishes,
            has_teacher=bundle is not None,
            threads=options.threads,
            advance=lambda total: bar.update(task, total=total, advance=1),
        )
    report_skipped(opened.skipped, console)
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
    check = import_module("fgdd_fast.students.architectures").check_architecture
    for name in options.architectures:
        check(name, len(training.classes), training.views.size)
    return opened


def _read_validation(opened: OpenedTraining, options: EvaluateOptions, console: Console) -> LabelledImages:
    training = opened.training
    with progress_bar(console) as bar:
        task = bar.add_task("Reading validation images", total=None)
        validation = read_validation(
            options.val,
            training.classes,
            training.views.size,
            method=opened.resize,
            threads=options.threads,
            advance=lambda total: bar.update(task, total=total, advance=1),
        )
    report_skipped(validation.skipped, console)
    seen = sum(sha256 in opened.sources for sha256 in validation.hashes)
    if seen:
        console.print(
            f"[yellow]{seen} of {len(validation.hashes)} validation images are among those that students "
            "learn from: their accuracy is flattering.[/yellow]",
            soft_wrap=True,
        )
    return validation


def _teacher_runtime(bundle: Bundle, options: EvaluateOptions, console: Console) -> Runtime:
    chosen = RuntimeOptions(
        device="auto", precision="auto", threads=options.threads, batch=VIEWS_PER_INFERENCE
    )
    return open_runtime(bundle, chosen, console)


def _open_teacher(bundle: Bundle, runtime: Runtime, size: int) -> Teacher:
    """The teacher, to be shown images of a size, brought to its input."""
    return Teacher(bundle, runtime, view="resize", tile_size=size, batch=VIEWS_PER_INFERENCE)


def _judge(
    bundle: Bundle,
    runtime: Runtime,
    opened: OpenedTraining,
    validation: LabelledImages,
    options: EvaluateOptions,
    console: Console,
) -> JudgedTeacher:
    """The teacher's own accuracy on the validation images."""
    with progress_bar(console) as bar:
        task = bar.add_task("Asking the teacher", total=len(validation.images) + len(validation.skipped))
        with closing(_open_teacher(bundle, runtime, bundle.preprocessing.width)) as teacher:
            photographs = accuracy_on_photographs(
                teacher,
                options.val,
                validation.classes,
                method=opened.resize,
                threads=options.threads,
                advance=lambda: bar.advance(task),
            )
    with closing(_open_teacher(bundle, runtime, opened.training.views.size)) as teacher:
        views = accuracy_on_views(teacher, validation)
    return JudgedTeacher(teacher_model(bundle), photographs, views)


def _train(
    training: TrainingSet,
    validation: LabelledImages,
    recipe: StudentRecipe,
    device: str,
    options: EvaluateOptions,
    console: Console,
) -> tuple[StudentResult, ...]:
    """Train all students, showing how far those of each architecture are, and how well the last one did."""
    module = import_module("fgdd_fast.students.training.loop")
    trained = dict.fromkeys(options.students, 0)
    with progress_bar(console) as bar:
        tasks = {
            name: bar.add_task(name, total=recipe.epochs * options.seeds) for name in options.architectures
        }

        def watch(student: Student, epochs: int, top1: float | None) -> None:
            name = student.architecture
            bar.advance(tasks[name], epochs - trained[student])
            trained[student] = epochs
            if top1 is not None:
                bar.update(tasks[name], description=f"{name} {top1:.1%}")

        results: tuple[StudentResult, ...] = module.train_students(
            training,
            validation,
            options.students,
            recipe,
            device=device,
            threads=options.threads,
            checkpoints=options.checkpoints,
            watch=watch,
        )
    return results
