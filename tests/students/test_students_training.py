"""Students are trained by RDED's recipe, each as if alone, and go on where they were stopped."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_fast.students.results.result import Spread, Student, StudentResult, summarise

torch = pytest.importorskip("torch")

from tiny_students import (  # noqa: E402
    CLASSES,
    RECIPE,
    SIZE,
    STUDENT,
    soft_training_set,
    training_set,
    validation_set,
)
from watched_progress import Watched  # noqa: E402

from fgdd_engines.progress import SILENT, Progress  # noqa: E402
from fgdd_fast.errors import DataError, SettingsError  # noqa: E402
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, draw_epoch, render  # noqa: E402
from fgdd_fast.students.inputs.labelled_images import LabelledImages  # noqa: E402
from fgdd_fast.students.inputs.training_set import TrainingSet, class_shares  # noqa: E402
from fgdd_fast.students.training.loop import batch_places, train_students  # noqa: E402
from fgdd_fast.students.training.recipe import StudentRecipe, learning_rate  # noqa: E402
from fgdd_fast.students.training.run import new_optimizer, soft_loss  # noqa: E402

RESNET = Student("resnet18-small-w2", 1)


def train(training: TrainingSet, *students: Student, recipe: StudentRecipe = RECIPE) -> list[StudentResult]:
    return list(train_students(training, validation_set(), students or [STUDENT], recipe))


def same(one: StudentResult, other: StudentResult) -> bool:
    """Bit for bit, but for the time it took."""
    return (
        one.losses == other.losses
        and one.curve == other.curve
        and np.array_equal(one.predictions, other.predictions)
    )


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    rates = [learning_rate(2e-3, epoch, 300) for epoch in (0, 100, 150, 200, 300)]
    cosines = [1, math.sqrt(3) / 2, math.sqrt(2) / 2, 0.5, 0]
    assert rates == pytest.approx([1e-3 * (1 + cosine) for cosine in cosines])


def test_the_soft_loss_is_the_divergence_at_the_temperature() -> None:
    # At T = 20 the student's answer is (1/3, 2/3), and the teacher's (3/4, 1/4).
    student = torch.tensor([[0.0, 20 * math.log(2)], [5.0, 5.0]])
    teacher = torch.tensor([[20 * math.log(3), 0.0], [1.0, 1.0]])
    divergence = 0.75 * math.log(9 / 4) + 0.25 * math.log(3 / 8)
    assert soft_loss(student, teacher, 20.0).item() == pytest.approx(divergence / 2, rel=1e-5)


def test_only_weights_of_several_axes_decay() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2))
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = new_optimizer(network, 0.1, 0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in network.named_parameters():
        factor = 0.95 if value.ndim > 1 else 1.0
        assert torch.allclose(value, factor * before[name]), name


@given(st.integers(1, 200), st.integers(1, 60))
def test_batches_cover_all_views_and_none_of_several_has_a_single_one(views: int, batch: int) -> None:
    places = list(batch_places(views, batch))
    assert [place for part in places for place in range(views)[part]] == list(range(views))
    if batch > 1 and len(places) > 1:
        assert all(2 <= part.stop - part.start <= batch + 1 for part in places)


@given(st.integers(0, 1000))
def test_the_share_of_a_class_is_its_share_of_the_pixels(seed: int) -> None:
    labels = np.array([0, 1, 2, 1, 0])
    recipe = ViewRecipe(8, 1, 3, seed)
    views = draw_epoch(recipe, len(labels), 8, 0)
    images = np.broadcast_to(labels[:, None, None, None], (5, 8, 8, 3)).astype(np.uint8)
    pixels = render(images, views, recipe)[..., 0]
    expected = [[(view == label).mean() for label in range(3)] for view in pixels]
    assert class_shares(views, labels, 3, 8) == pytest.approx(np.array(expected), abs=1e-6)


def test_a_student_learns_what_can_be_learned() -> None:
    hard, soft = train(training_set())[0], train(soft_training_set())[0]
    assert hard.accuracy > 0.9
    assert soft.accuracy > 0.9
    assert list(hard.curve) == [4, 8, 12]
    assert hard.losses[-1] < hard.losses[0]
    assert soft.losses[-1] < soft.losses[0]
    assert hard.balanced_accuracy == pytest.approx(hard.accuracy)  # there are as many of each class


def test_a_student_of_shuffled_labels_stays_at_chance() -> None:
    found = [train(training_set(shuffle=seed))[0].accuracy for seed in range(5)]
    assert np.mean(found) < 0.3  # 0.125 is expected


def test_a_seed_repeats_its_curve_exactly_and_another_does_not() -> None:
    training = soft_training_set()
    first, again, other = (train(training, Student(STUDENT.architecture, seed))[0] for seed in (3, 3, 4))
    assert same(first, again)
    assert first.losses != other.losses


def test_a_student_does_not_depend_on_those_beside_it() -> None:
    training = soft_training_set()
    alone = train(training, RESNET)[0]
    beside = train(training, STUDENT, RESNET, Student("convnet1-w4", 5))
    assert [result.student for result in beside] == [STUDENT, RESNET, Student("convnet1-w4", 5)]
    assert same(alone, beside[1])


def test_training_leaves_the_random_numbers_and_threads_of_others_alone() -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train_students(training_set(2), validation_set(2), [STUDENT], replace(RECIPE, epochs=1), threads=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_soft_labels_are_asked_for_once_for_all_students() -> None:
    training = soft_training_set(2)
    asked: list[int] = []

    def soft(epoch: int) -> tuple[EpochViews, np.ndarray]:
        asked.append(epoch)
        assert training.soft is not None
        return training.soft(epoch)

    train(replace(training, soft=soft), STUDENT, RESNET, recipe=replace(RECIPE, epochs=3))
    assert asked == [0, 1, 2]


def test_bf16_learns_too() -> None:
    assert train(soft_training_set(), recipe=replace(RECIPE, arithmetic="bf16"))[0].accuracy > 0.8


def test_a_stopped_training_goes_on_to_the_same_curve(tmp_path: Path) -> None:
    def train_on(progress: Progress = SILENT) -> tuple[StudentResult, ...]:
        settings: dict[str, Any] = {"checkpoints": tmp_path, "save_every": 0, "progress": progress}
        return train_students(training, validation, students, RECIPE, **settings)

    training, validation, students = soft_training_set(), validation_set(), [STUDENT, RESNET]
    straight = train_students(training, validation, students, RECIPE)
    for epochs in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            train_on(Watched(stop_at=epochs))
    (tmp_path / f"{RESNET}.pt").unlink()  # as if it had been stopped between the two files
    watched = Watched()
    assert all(map(same, straight, train_on(watched)))
    assert watched.steps[:3] == [
        (STUDENT.architecture, 6),
        (RESNET.architecture, 0),
        (RESNET.architecture, 1),
    ]
    assert all(map(same, straight, train_on()))


KILLED = """
import os, signal, sys
from pathlib import Path
from tiny_students import *
from fgdd_fast.students.training import checkpoints, loop

def write_until(path, content):
    if write_until.written == 2:
        (path.parent / ".half.part").write_bytes(content[:50])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
    write_until.written += 1

write, checkpoints.write_file, write_until.written = checkpoints.write_file, write_until, 0
kept = {"checkpoints": Path(sys.argv[1]), "save_every": 0}
loop.train_students(soft_training_set(), validation_set(), [STUDENT], RECIPE, **kept)
"""


def test_a_killed_training_goes_on_to_the_same_curve(tmp_path: Path) -> None:
    command, support = [sys.executable, "-c", KILLED, str(tmp_path)], Path(__file__).parents[1] / "support"
    killed = subprocess.run(command, cwd=support, capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    training, watched = soft_training_set(), Watched()
    kept: dict[str, Any] = {"checkpoints": tmp_path, "save_every": 0, "progress": watched}
    (found,) = train_students(training, validation_set(), [STUDENT], RECIPE, **kept)
    assert watched.steps[0] == (STUDENT.architecture, 2)
    assert same(found, train(training)[0])


def train_one_epoch(folder: Path, training: TrainingSet | None = None, epochs: int = 1) -> None:
    training = training or training_set(2)
    validation = replace(validation_set(2), classes=training.classes)
    train_students(training, validation, [STUDENT], replace(RECIPE, epochs=epochs), checkpoints=folder)


@pytest.mark.parametrize(
    ("training", "epochs"),
    [
        (training_set(2, shuffle=0), 1),
        (training_set(3), 1),
        (training_set(2, batch=5), 1),
        (replace(training_set(2), classes=CLASSES[::-1]), 1),
        (replace(soft_training_set(2), views=training_set(2).views), 1),
        (training_set(2), 2),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path: Path, training: TrainingSet, epochs: int
) -> None:
    train_one_epoch(tmp_path)
    with pytest.raises(DataError, match="of another training"):
        train_one_epoch(tmp_path, training, epochs)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    train_one_epoch(tmp_path)
    file = tmp_path / f"{STUDENT}.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=f"{STUDENT}.pt is damaged"):
        train_one_epoch(tmp_path)


@pytest.mark.parametrize(
    ("validation", "problem"),
    [
        (replace(validation_set(2), classes=CLASSES[::-1]), "in another order"),
        (replace(validation_set(2), images=np.zeros((16, 8, 8, 3), np.uint8)), f"8 pixels .* see {SIZE}"),
    ],
)
def test_validation_images_that_do_not_fit_are_refused(validation: LabelledImages, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        train_students(training_set(2), validation, [STUDENT], RECIPE)


@pytest.mark.parametrize("students", [[], [STUDENT, STUDENT]])
def test_students_are_named_once(students: list[Student]) -> None:
    with pytest.raises(SettingsError):
        train_students(training_set(2), validation_set(2), students, RECIPE)


@pytest.mark.parametrize("bad", [np.zeros((16, 7), np.float32), np.full((16, 8), np.nan, np.float32)])
def test_soft_labels_that_do_not_fit_are_refused(bad: np.ndarray) -> None:
    training = soft_training_set(2)
    assert training.soft is not None
    views = training.soft(0)[0]
    with pytest.raises(DataError, match="soft labels of epoch 0"):
        train(replace(training, soft=lambda epoch: (views, bad)))


LABELS = np.array([0, 0, 0, 1])


def result(architecture: str, seed: int, predictions: list[int], best: float = 0.75) -> StudentResult:
    return StudentResult(
        student=Student(architecture, seed),
        parameters=5,
        losses=(0.5, math.inf),
        curve={1: best, 2: 0.5},
        predictions=np.array(predictions),
        labels=LABELS,
        seconds=1.0,
    )


def test_a_result_counts_images_and_classes() -> None:
    found = result("a", 0, [0, 1, 1, 1])
    assert found.accuracy == 0.5
    assert found.per_class == pytest.approx({0: 1 / 3, 1: 1.0})
    assert found.balanced_accuracy == pytest.approx(2 / 3)
    assert found.best_accuracy == 0.75
    assert found.to_json()["losses"] == [0.5, None]


def test_students_are_brought_together_by_architecture() -> None:
    results = [
        result("b", 0, [0, 0, 0, 0]),
        result("a", 0, [0, 1, 1, 1]),
        result("b", 1, [0, 0, 1, 1], best=1.0),
    ]
    found = summarise(results, ("x", "y"))
    assert [(one.architecture, one.seeds) for one in found] == [("b", (0, 1)), ("a", (0,))]
    assert found[0].top1.values == (0.75, 0.75)
    assert found[0].best.values == (0.75, 1.0)
    assert found[0].per_class == pytest.approx({"x": 5 / 6, "y": 1 / 2})


def test_a_spread_has_the_sample_deviation() -> None:
    spread = Spread((0.2, 0.4, 0.6))
    assert (spread.mean, spread.deviation) == (pytest.approx(0.4), pytest.approx(0.2))
    assert str(spread) == "40.0 ± 20.0"
    assert (Spread((0.25,)).deviation, str(Spread((0.25,)))) == (None, "25.0")
