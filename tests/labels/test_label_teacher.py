"""Which teacher may label which images."""

from __future__ import annotations

import numpy as np
import pytest

from fgdd_fast.errors import TeacherError
from fgdd_fast.labels.teacher import check_predictions

CLASSES = ("coat", "hat", "shoe")


LABELS = np.repeat(np.arange(3), 4)


def logits(predictions: np.ndarray) -> np.ndarray:
    return np.eye(len(CLASSES), dtype=np.float32)[predictions]


def check(mosaics: np.ndarray, tiles: np.ndarray) -> None:
    """Check a teacher with these predictions; of each image's tiles, it says the same."""
    check_predictions(logits(mosaics), np.stack([logits(tiles)] * 4, axis=1), LABELS, CLASSES, "t")


def test_a_teacher_that_is_mostly_right_passes() -> None:
    predictions = LABELS.copy()
    predictions[::5] = 0
    check(predictions, predictions)


@pytest.mark.parametrize("order", [[1, 0, 2], [1, 2, 0]])
def test_class_names_in_another_order_are_refused_by_name(order: list[int]) -> None:
    predictions = np.array(order)[LABELS]
    with pytest.raises(TeacherError, match="order of its outputs: images of 'coat' are taken for 'hat'"):
        check(predictions, predictions)


GUESSES = np.array([0, 1, 2, 2, 1, 0, 2, 0, 0, 0, 1, 2])


def test_a_teacher_that_guesses_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"no better than guessing on tiles: .* of 48 tiles"):
        check(np.zeros_like(LABELS) + (LABELS == 0), GUESSES)


@pytest.mark.parametrize("known", ["images", "tiles"])
def test_a_teacher_need_not_know_both_images_and_tiles(known: str) -> None:
    swapped = np.array([1, 0, 2])[LABELS]
    check(*((LABELS, swapped) if known == "images" else (swapped, LABELS)))


def test_too_few_to_tell_is_said(caplog: pytest.LogCaptureFixture) -> None:
    few = np.array([0, 1])
    check_predictions(logits(few), logits(few)[:, None], few, CLASSES, "t")
    assert "Too few images to tell" in caplog.text
