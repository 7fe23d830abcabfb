"""Soft labels that the teacher gives while students are trained."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, draw_epoch, render
from fgdd_fast.models.network import Teacher, fingerprint_text
from fgdd_fast.parallel import ordered_map


class OnlineLabels:
    """The views of any epoch, and the teacher's logits for them: what `fgdd-fast label` would have stored.

    Args:
        teacher: opened for tiles of the size of a view.
        classes: names in the order of the columns of the logits; the teacher knows them all.
        images: uint8 [n, side, side, 3], RGB.
        recipe: how they become views.

    Attributes:
        origin: all that a logit depends on but for its view.
    """

    def __init__(self, teacher: Teacher, classes: Sequence[str], images: Pixels, recipe: ViewRecipe) -> None:
        self._teacher = teacher
        self._classes = classes
        self._images = images
        self._recipe = recipe
        self.origin = fingerprint_text(teacher.fingerprint, {"view": teacher.view})

    def __call__(self, epoch: int) -> tuple[EpochViews, NDArray[np.float32]]:
        """The views of an epoch, counted from 0, and their logits float32 [n, classes]."""
        count, batch = len(self._images), self._recipe.batch
        views = draw_epoch(self._recipe, count, self._images.shape[1], epoch)

        def label(start: int) -> NDArray[np.float32]:
            pixels = render(self._images, views, self._recipe, slice(start, start + batch))
            return class_logits(self._teacher, pixels, self._classes)

        threads = self._teacher.streams
        with ThreadPoolExecutor(threads, "label") as executor:
            return views, np.concatenate([*ordered_map(executor, label, range(0, count, batch), 2 * threads)])


def class_logits(teacher: Teacher, images: Pixels, classes: Sequence[str]) -> NDArray[np.float32]:
    """A teacher's logits of some of its classes.

    Args:
        teacher: is shown each image as a tile.
        images: uint8 [n, side, side, 3], RGB, of the teacher's tile size.
        classes: names; the teacher knows them all.

    Returns:
        float32 [n, classes], in the order of the names.
    """
    shown = np.stack([teacher.show(image) for image in images])
    columns = [teacher.label(name) for name in classes]
    return np.ascontiguousarray(teacher.logits(shown)[:, columns])
