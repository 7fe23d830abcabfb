"""Training of students side by side."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from fgdd_engines.progress import SILENT, Progress, Task
from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.training_views import render
from fgdd_fast.parallel import ordered_map
from fgdd_fast.students.architectures import find_architecture
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.training_set import TrainingSet
from fgdd_fast.students.results.result import Student, StudentResult
from fgdd_fast.students.training.checkpoints import Checkpoints, training_key
from fgdd_fast.students.training.recipe import StudentRecipe
from fgdd_fast.students.training.run import StudentRun, compiling, normalised, soft_loss

SAVE_EVERY = 30.0  # seconds
_log = logging.getLogger(__name__)


def train_students(
    training: TrainingSet,
    validation: LabelledImages,
    students: Sequence[Student],
    recipe: StudentRecipe,
    *,
    device: str = "cpu",
    threads: int = 1,
    checkpoints: Path | None = None,
    save_every: float = SAVE_EVERY,
    progress: Progress = SILENT,
) -> tuple[StudentResult, ...]:
    """Train students of one training set side by side, and judge each on the validation images.

    Views, and their labels, are prepared once for all of them; seeds differ in the initial weights alone. On
    a CPU a student's curve depends on the arguments (and the number of threads) alone: not on the students
    beside it, nor on interruptions.

    Args:
        training: what they learn from.
        validation: what judges them: images of the size of the views.
        students: each once.
        recipe: how they are trained.
        device: of PyTorch, such as `cpu` or `cuda`; see `choose_device`.
        threads: processor threads.
        checkpoints: folder that keeps each student's state: what is found there goes on, or is complete.
        save_every: seconds between two states, at least; they are of whole epochs.
        progress: shows the epochs of the students of each architecture.

    Returns:
        The results, in the order of `students`.

    Raises:
        SettingsError: an architecture is unknown, or cannot take views of this size, or be compiled.
        DataError: training and validation do not fit together, or a checkpoint is damaged or of another
            training.
        OutputError: a checkpoint cannot be written.
    """
    _check(training, validation, students)
    store = None
    if checkpoints is not None:
        store = Checkpoints(checkpoints, training_key(training, validation, recipe), save_every)
    runs = _begin(training, students, recipe, store, device)
    with (
        _shown(runs, recipe.epochs, progress) as tasks,
        compiling() if recipe.compile else nullcontext(),
        _torch_threads(threads),
        ThreadPoolExecutor(threads, "views") as renderers,
    ):
        for epoch in range(min(run.epochs for run in runs), recipe.epochs):
            learning = [run for run in runs if run.epochs == epoch]
            _train_epoch(training, learning, epoch, renderers, threads, torch.device(device))
            for run in learning:
                run.end_epoch(validation)
                tasks[run.student.architecture].advance()
                if run.complete:
                    _log.info("%s: %.1f %% right", run.student, 100 * run.curve[run.epochs])
            if store is not None:
                store.save(learning)
    return tuple(run.result(validation) for run in runs)


def choose_device(wanted: str) -> str:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
        SettingsError: PyTorch has no such device.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise SettingsError("PyTorch finds no CUDA device", "Use --device cpu.")
    return ("cuda" if has_cuda else "cpu") if wanted == "auto" else wanted


def _check(training: TrainingSet, validation: LabelledImages, students: Sequence[Student]) -> None:
    if not students or len(set(students)) < len(students):
        raise SettingsError("Students are named twice, or none is", "Name each architecture and seed once.")
    if training.classes != validation.classes:
        raise DataError("The validation images have other classes than students learn, or in another order")
    size = validation.images.shape[1]
    if size != training.views.size:
        raise DataError(
            f"The validation images have {size} pixels a side, and students see {training.views.size}"
        )


def _begin(
    training: TrainingSet,
    students: Sequence[Student],
    recipe: StudentRecipe,
    store: Checkpoints | None,
    device: str,
) -> list[StudentRun]:
    """The students, each as it was left."""
    loss = functional.cross_entropy
    if training.soft is not None:
        loss = partial(soft_loss, temperature=recipe.temperature)
    runs = []
    for student in students:
        architecture = find_architecture(student.architecture)
        classes, size = len(training.classes), training.views.size
        run = StudentRun(student, architecture, classes, size, recipe, loss, device)
        state = None if store is None else store.read(student, architecture.origin, device)
        if state is not None:
            run.go_on(state)
        runs.append(run)
    return runs


@contextmanager
def _shown(runs: Sequence[StudentRun], epochs: int, progress: Progress) -> Iterator[dict[str, Task]]:
    """A task for each architecture, on which are the epochs that its students have been trained already."""
    with ExitStack() as stack:
        tasks = {}
        for name in dict.fromkeys(run.student.architecture for run in runs):
            group = [run.epochs for run in runs if run.student.architecture == name]
            tasks[name] = stack.enter_context(progress.task(name, epochs * len(group)))
            tasks[name].advance(sum(group))
        yield tasks


def _train_epoch(
    training: TrainingSet,
    runs: Sequence[StudentRun],
    epoch: int,
    renderers: Executor,
    threads: int,
    device: torch.device,
) -> None:
    """Show the views of one epoch to students."""
    views, targets = training.epoch(epoch)

    def batch(places: slice) -> tuple[Pixels, Tensor]:
        return render(training.images, views, training.views, places), torch.from_numpy(targets[places])

    for run in runs:
        run.begin_epoch()
    for pixels, wanted in ordered_map(
        renderers, batch, batch_places(len(views), training.views.batch), 2 * threads
    ):
        images, aims = normalised(pixels, device), wanted.to(device)
        for run in runs:
            run.step(images, aims)


def batch_places(views: int, batch: int) -> Iterator[slice]:
    """Give the batches of an epoch's views; one of a single view, which has no spread, joins the other."""
    start = 0
    while start < views:
        end = min(start + batch, views)
        if views - end == 1:
            end = views
        yield slice(start, end)
        start = end


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
