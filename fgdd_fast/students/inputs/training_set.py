"""What students learn from: images, the views of them, and soft or hard labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import DataError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, draw_epoch

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

    images: Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    views: ViewRecipe
    soft: SoftLabels | None = None
    origin: str = "hard labels"

    def epoch(self, index: int) -> tuple[EpochViews, NDArray[np.float32]]:
        """The views of an epoch, and what is learned of each.

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
    """The share of each class in the area of each view: of its own image, and of the one pasted in by CutMix.

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
