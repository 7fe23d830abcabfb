"""What became of a student, as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Student:
    """Which network is trained.

    Attributes:
        architecture: its name in `architectures.ARCHITECTURES`.
        seed: of its initial weights.
    """

    architecture: str
    seed: int

    def __str__(self) -> str:
        return f"{self.architecture}-seed{self.seed}"


@dataclass(frozen=True, eq=False)
class StudentResult:
    """A student's training, and its answers after the last epoch.

    Attributes:
        student: which network it was.
        parameters: weights that were trained.
        losses: mean loss (nats) over the views of each epoch.
        curve: top-1 accuracy on the validation images, in [0, 1], by epochs trained (1 for the first).
        predictions: class answered for each validation image after the last epoch, int64 [m].
        labels: their true classes, int64 [m].
        seconds: that the training took, the preparation of views and labels left out.
    """

    student: Student
    parameters: int
    losses: tuple[float, ...]
    curve: Mapping[int, float]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    seconds: float

    @property
    def accuracy(self) -> float:
        """Top-1 after the last epoch, in [0, 1]."""
        return float(np.mean(self.predictions == self.labels))

    @property
    def best_accuracy(self) -> float:
        """The highest top-1 of the curve: chosen on the validation images, and so flattering."""
        return max(self.curve.values())

    @property
    def per_class(self) -> dict[int, float]:
        """Share of the images of each class answered right after the last epoch, by label."""
        right = self.predictions == self.labels
        return {int(label): float(right[self.labels == label].mean()) for label in np.unique(self.labels)}

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes of the share of each one's images answered right, after the last epoch."""
        return float(np.mean(list(self.per_class.values())))

    def to_json(self) -> dict[str, Any]:
        """As JSON values; a loss that is no finite number is null."""
        return {
            "architecture": self.student.architecture,
            "seed": self.student.seed,
            "parameters": self.parameters,
            "top1": self.accuracy,
            "balanced": self.balanced_accuracy,
            "best_top1": self.best_accuracy,
            "curve": {str(epoch): value for epoch, value in self.curve.items()},
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses],
            "predictions": self.predictions.tolist(),
            "seconds": round(self.seconds, 3),
        }
