"""What students learn from: images, the views of them, and soft or hard labels.

Soft labels are stored, or given by the teacher while students are trained: `OnlineLabels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import DataError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, draw_epoch, render
from fgdd_fast.models.network import Teacher, fingerprint_text
from fgdd_fast.output.distilled import Pictures
from fgdd_fast.parallel import ordered_map

# Of an epoch, counted from 0: its views, and the teacher's logits for them, float32 [n, classes].
SoftLabels = Callable[[int], tuple[EpochViews, NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A distilled set, or real images, with the labels that are learned.

    Attributes:
        images: uint8 [n, side, side, 3], RGB.
        labels: indices of classes, int64 [n].
        classes: their names, in the order of the labels and of the columns of logits.
        views: how images become views.
        soft: views and logits of an epoch; None to learn the hard labels.
        origin: what the soft labels come from, such as the teacher's hash; a checkpoint of students that
            learned from others is refused.
    """

    images: Pixels | Pictures
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    views: ViewRecipe
    soft: SoftLabels | None = None
    origin: str = "hard labels"

    def epoch(self, index: int) -> tuple[EpochViews, NDArray[np.float32]]:
        """Return the views of an epoch, and what is learned of each.

        Returns:
            (views, targets float32 [n, classes]): the teacher's logits; with hard labels the share of each
            class in the view's area.
        """
        if self.soft is None:
            views = draw_epoch(self.views, len(self.images), self.images.shape[1], index)
            return views, class_shares(views, self.labels, len(self.classes), self.views.size)
        views, logits = self.soft(index)
        if logits.shape != (len(views), len(self.classes)):
            raise DataError(
                f"The soft labels of epoch {index} have the shape {logits.shape}, and there are "
                f"{len(views)} views and {len(self.classes)} classes"
            )
        if not np.isfinite(logits).all():
            raise DataError(f"The soft labels of epoch {index} are not all finite numbers")
        return views, logits


def class_shares(
    views: EpochViews, labels: NDArray[np.int64], classes: int, size: int
) -> NDArray[np.float32]:
    """Return the share of each class in the area of each view: its own image's, and that pasted in by CutMix.

    Args:
        views: n of them.
        labels: of the images, indices of classes.
        classes: how many there are.
        size: side of a view in pixels.

    Returns:
        float32 [n, classes]; each row sums to 1.
    """
    own = labels[views.image]
    pasted = own[views.partner]
    area = (views.patch[:, 2].astype(np.float32) * views.patch[:, 3]) / size**2
    shares = np.zeros((len(own), classes), np.float32)
    places = np.arange(len(own))
    shares[places, own] = 1 - area
    np.add.at(shares, (places, pasted), area)
    return shares


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

    def __init__(
        self, teacher: Teacher, classes: Sequence[str], images: Pixels | Pictures, recipe: ViewRecipe
    ) -> None:
        self._teacher = teacher
        self._classes = classes
        self._images = images
        self._recipe = recipe
        self.origin = fingerprint_text(teacher.fingerprint, {"view": teacher.view})

    def __call__(self, epoch: int) -> tuple[EpochViews, NDArray[np.float32]]:
        """Return the views of an epoch, counted from 0, and their logits float32 [n, classes]."""
        count, batch = len(self._images), self._recipe.batch
        views = draw_epoch(self._recipe, count, self._images.shape[1], epoch)

        def label(start: int) -> NDArray[np.float32]:
            pixels = render(self._images, views, self._recipe, slice(start, start + batch))
            return class_logits(self._teacher, pixels, self._classes)

        threads = self._teacher.streams
        with ThreadPoolExecutor(threads, "label") as executor:
            return views, np.concatenate([*ordered_map(executor, label, range(0, count, batch), 2 * threads)])


def class_logits(teacher: Teacher, images: Pixels, classes: Sequence[str]) -> NDArray[np.float32]:
    """Return a teacher's logits of some of its classes.

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
