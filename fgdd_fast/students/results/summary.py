"""Students of one architecture together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgdd_fast.students.results.result import StudentResult


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
        """As JSON values."""
        return {"mean": self.mean, "deviation": self.deviation, "values": list(self.values)}

    def __str__(self) -> str:
        """In percent, such as `43.1 ± 1.7`."""
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
        """As JSON values."""
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
