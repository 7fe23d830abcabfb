"""Drawn images that small students tell apart, and students small enough for a test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, draw_epoch
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.training_set import TrainingSet
from fgdd_fast.students.results.result import Student
from fgdd_fast.students.training.recipe import StudentRecipe

SIZE = 12
COLOURS = np.array([[r, g, b] for r in (60, 190) for g in (60, 190) for b in (60, 190)])
CLASSES = tuple("abcdefgh")
RECIPE = StudentRecipe(epochs=12, learning_rate=4e-3, validate_every=4)
STUDENT = Student("convnet2-w8", 0)


def drawn_images(each: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noisy squares of one colour for each class, `each` of a class, uint8 [n, SIZE, SIZE, 3] and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(COLOURS)), each)
    noise = rng.normal(0, 20, (len(labels), SIZE, SIZE, 3))
    return np.clip(COLOURS[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels


def validation_set(each: int = 10) -> LabelledImages:
    images, labels = drawn_images(each, seed=1)
    return LabelledImages(images, labels, CLASSES)


def training_set(each: int = 6, *, batch: int = 8, shuffle: int | None = None) -> TrainingSet:
    """Hard labels; those of other images where a seed to shuffle them by is given."""
    images, labels = drawn_images(each, seed=0)
    if shuffle is not None:
        labels = np.random.default_rng(shuffle).permutation(labels)
    return TrainingSet(images, labels, CLASSES, ViewRecipe(SIZE, 1, batch, seed=0))


def soft_training_set(each: int = 6) -> TrainingSet:
    """Labels of a teacher that compares the mean colour of a view's centre with that of each class."""
    images, labels = drawn_images(each, seed=0)
    views = ViewRecipe(SIZE, 1, 8, seed=0)

    def soft(epoch: int) -> tuple[EpochViews, NDArray[np.float32]]:
        drawn = draw_epoch(views, len(images), SIZE, epoch)
        area = (drawn.patch[:, 2] * drawn.patch[:, 3] / SIZE**2)[:, None]
        own = labels[drawn.image]
        mixed = (1 - area) * COLOURS[own] + area * COLOURS[own[drawn.partner]]
        distance = np.square(mixed[:, None] - COLOURS[None]).sum(axis=2)
        return drawn, (-distance / 500).astype(np.float32)

    return TrainingSet(images, labels, CLASSES, views, soft, "the colours")
