"""What became of a student, and of those of one architecture together, as numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Student:
    """Which network is trained.

    Attributes:
        architecture: its name; see `architectures`.
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
        origin: who the network is, where it is not built in.
    """

    student: Student
    parameters: int
    losses: tuple[float, ...]
    curve: Mapping[int, float]
    predictions: NDArray[np.int64]
    labels: NDArray[np.int64]
    seconds: float
    origin: str | None = None

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
        """Return it as JSON values; a loss that is no finite number is null."""
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
            **({} if self.origin is None else {"origin": self.origin}),
        }


@dataclass(frozen=True)
class Spread:
    """Values of one measure over seeds.

    Attributes:
        values: at least one, in the order of the seeds.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Their sample standard deviation (n - 1); None for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"mean": self.mean, "deviation": self.deviation, "values": list(self.values)}

    def __str__(self) -> str:
        """Return mean and deviation in percent, such as `43.1 ± 1.7`."""
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


@dataclass(frozen=True)
class Summary:
    """The students of one architecture.

    Attributes:
        architecture: its name.
        parameters: of each.
        seeds: of the students.
        top1: after the last epoch, in [0, 1].
        balanced: mean over the classes of the share of each that is right, after the last epoch.
        best: the highest top-1 of each curve, which is chosen on the validation images.
        per_class: share of each class's images that is right after the last epoch, the mean over the seeds.
    """

    architecture: str
    parameters: int
    seeds: tuple[int, ...]
    top1: Spread
    balanced: Spread
    best: Spread
    per_class: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "parameters": self.parameters,
            "seeds": list(self.seeds),
            "top1": self.top1.to_json(),
            "balanced": self.balanced.to_json(),
            "best_top1": self.best.to_json(),
            "per_class": dict(self.per_class),
        }


def summarise(results: Iterable[StudentResult], classes: Sequence[str]) -> tuple[Summary, ...]:
    """Bring together the students of each architecture, in the order of their first ones.

    Args:
        results: of students that were judged on the same images.
        classes: names in the order of the labels.
    """
    groups: dict[str, list[StudentResult]] = {}
    for result in results:
        groups.setdefault(result.student.architecture, []).append(result)
    return tuple(_summary(name, group, classes) for name, group in groups.items())


def _summary(name: str, group: Sequence[StudentResult], classes: Sequence[str]) -> Summary:
    shares = [result.per_class for result in group]
    return Summary(
        architecture=name,
        parameters=group[0].parameters,
        seeds=tuple(result.student.seed for result in group),
        top1=Spread(tuple(result.accuracy for result in group)),
        balanced=Spread(tuple(result.balanced_accuracy for result in group)),
        best=Spread(tuple(result.best_accuracy for result in group)),
        per_class={
            classes[label]: math.fsum(share[label] for share in shares) / len(shares) for label in shares[0]
        },
    )
