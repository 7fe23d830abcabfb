"""Whether two ways to run a network lead to the same decisions: figures, and what is accepted of them.

A tensor may differ by much where nothing depends on it, and by little where a path flips. So what is compared
is what is decided: occupancies and the paths that follow from them, losses and the crops that they choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

QUANTILE = 0.3  # of the default threshold rule
NEAR_TIE = 2e-3  # an occupancy that close to the threshold may fall on either side of it
NEAR_LOSS = 0.02  # nats; a crop whose loss is that close to the best is as good a choice

Floats = NDArray[np.float32]
ToleranceLevel = Literal["same arithmetic", "lower precision"]


@dataclass(frozen=True)
class Tolerance:
    """The limit of a figure.

    Attributes:
        limit: the largest value that is accepted, or the smallest.
        at_least: whether it is the smallest.
    """

    limit: float
    at_least: bool = False

    def met_by(self, value: float) -> bool:
        """Return whether a figure is accepted; what is not a number never is."""
        return value >= self.limit if self.at_least else value <= self.limit

    def widened(self, value: float) -> Tolerance:
        """Return the tolerance that accepts this value as well, where it is a number."""
        limit = min(self.limit, value) if self.at_least else max(self.limit, value)
        return replace(self, limit=limit) if np.isfinite(value) else self

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.limit:.3g}"


_SOME = Tolerance(1e-3, at_least=True)  # images in which nothing is found anyhow tell nothing
# Figures without a tolerance are reported only.
TOLERANCES: Mapping[ToleranceLevel, Mapping[str, Tolerance]] = {
    "same arithmetic": {
        "with_foreground": _SOME,
        "mean_occupancy_error": Tolerance(1e-3),
        "same_path": Tolerance(0.995, at_least=True),
        "mean_regret": Tolerance(2e-3),
        "loss_rank_correlation": Tolerance(0.999, at_least=True),
        "mean_cosine_distance": Tolerance(1e-3),
        "batch_occupancy_error": Tolerance(1e-3),
        "batch_loss_error": Tolerance(5e-3),
        "batch_cosine_distance": Tolerance(1e-3),
    },
    "lower precision": {
        "with_foreground": _SOME,
        "mean_occupancy_error": Tolerance(0.01),
        "same_path": Tolerance(0.95, at_least=True),
        "mean_regret": Tolerance(0.02),
        "loss_rank_correlation": Tolerance(0.97, at_least=True),
        "mean_cosine_distance": Tolerance(0.01),
        "batch_occupancy_error": Tolerance(0.01),
        "batch_loss_error": Tolerance(0.02),
        "batch_cosine_distance": Tolerance(0.01),
    },
}


@dataclass(frozen=True)
class ParityReport:
    """How a candidate's decisions compare with the reference's.

    Attributes:
        figures: by name; `same_...` are shares of images, occupancies shares of an image, losses nats.
        level: which tolerances hold.
        images: on how many images.
    """

    figures: Mapping[str, float]
    level: ToleranceLevel
    images: int

    @property
    def tolerances(self) -> Mapping[str, Tolerance]:
        """What is accepted of the figures."""
        return TOLERANCES[self.level]

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Each figure that is not accepted, in words; empty where the decisions agree."""
        return shortfalls_of(self.figures, self.tolerances)

    @property
    def accepted(self) -> bool:
        """Whether the decisions agree."""
        return not self.shortfalls

    @property
    def excess(self) -> float:
        """How far the worst figure is from its tolerance: at most 1 where all are accepted, else above.

        An error is taken as a multiple of its limit, and so is what a share lacks of 1.
        """
        tolerances = self.tolerances
        known = [(tolerances[name], value) for name, value in self.figures.items() if name in tolerances]
        ratios = [
            (1 - value) / (1 - tolerance.limit) if tolerance.at_least else value / tolerance.limit
            for tolerance, value in known
        ]
        return max((ratio if np.isfinite(ratio) else float("inf") for ratio in ratios), default=0.0)

    def as_json(self) -> dict[str, Any]:
        """For a sidecar; a figure that is not finite, for which JSON has no word, becomes None."""
        figures = {name: value if np.isfinite(value) else None for name, value in self.figures.items()}
        return {"figures": figures, "strictness": self.level, "images": self.images}


def shortfalls_of(figures: Mapping[str, float], accepted: Mapping[str, Tolerance]) -> tuple[str, ...]:
    """Return each figure that is not accepted, in words."""
    return tuple(
        f"{name.replace('_', ' ')} is {value:.3g} ({accepted[name]} is accepted)"
        for name, value in figures.items()
        if name in accepted and not accepted[name].met_by(value)
    )


def occupancy_figures(expected: Floats, found: Floats) -> dict[str, float]:
    """Compare the occupancies [n] of the same images, and the paths that they take.

    Where the reference finds no foreground in any image, nothing is compared, and `with_foreground` says so.

    Each side has the threshold of its own occupancies. An image that is at the reference's threshold, or so
    near that either path is right, does not count as another path.
    """
    errors = np.abs(expected - found)
    return {
        "with_foreground": float((expected > 0).mean()),
        "mean_occupancy_error": float(errors.mean()),
        "largest_occupancy_error": float(errors.max()),
        "same_path": float(same_path(expected, found).mean()),
    }


def same_path(expected: Floats, found: Floats) -> NDArray[np.bool_]:
    """Return which images of one class take the same path with the occupancies `expected` and `found` [n]."""
    threshold = _threshold(expected)
    near = np.abs(expected - threshold) <= NEAR_TIE
    same = (expected >= threshold) == (found >= _threshold(found))
    return np.asarray(near | same)


def _threshold(occupancies: Floats) -> float:
    """Return the threshold of the default rule: the quantile of the images in which something was found."""
    some = occupancies[occupancies > 0]
    return float(np.quantile(some, QUANTILE)) if some.size else 1.0


def loss_figures(expected: Floats, found: Floats) -> dict[str, float]:
    """Compare losses (nats) [images, 1 + crops]: the whole image first, then its candidate crops.

    The regret is by how much the crop chosen is worse than the best one, by the losses `expected`.
    """
    errors = np.abs(expected - found)
    crops = expected[:, 1:]
    chosen = found[:, 1:].argmin(axis=1)
    regret = crops[np.arange(len(crops)), chosen] - crops.min(axis=1)
    return {
        "mean_loss_error": float(errors.mean()),
        "largest_loss_error": float(errors.max()),
        "loss_rank_correlation": rank_correlation(expected.ravel(), found.ravel()),
        "same_crop": float((chosen == crops.argmin(axis=1)).mean()),
        "same_or_near_crop": float((regret <= NEAR_LOSS).mean()),
        "mean_regret": float(regret.mean()),
    }


def rank_correlation(expected: Floats, found: Floats) -> float:
    """Spearman's correlation of two rows [n]; 1 where there is nothing to rank, nan where one is not finite.

    Equal values share their mean rank.
    """
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return float("nan")
    one, other = _ranks(expected), _ranks(found)
    if np.array_equal(one, other):
        return 1.0
    spread = float(one.std() * other.std())
    return float(((one - one.mean()) * (other - other.mean())).mean()) / spread if spread else 0.0


def _ranks(values: Floats) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], np.float64)


def feature_figures(expected: Floats, found: Floats) -> dict[str, float]:
    """Compare features [n, channels] by the angle between those of the same image."""
    return {"mean_cosine_distance": cosine_distance(expected, found)}


def cosine_distance(expected: Floats, found: Floats) -> float:
    """Mean over rows of 1 - the cosine of the angle between features [n, channels]."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return float(1 - ((expected * found).sum(axis=1) / lengths).mean())
