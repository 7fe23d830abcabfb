"""The statistics of students: means, paired differences with intervals, and DD-Ranking's measures.

Differences are paired: two rows are compared on the same validation images, with the same seeds of the
selection (which draw the pool and the candidate crops) and of the training (which draw the first weights).

Sources: the bootstrap of n - 1 units is that of Rao and Wu (1988), the degrees of freedom are those of
Satterthwaite (1946); IOR, HLR and LRS are those of "DD-Ranking: Rethinking the Evaluation of Dataset
Distillation" (Li et al., arXiv 2505.13300), as the documentation in its public repository
NUS-HPC-AI-Lab/DD-Ranking defines them (doc/introduction.md).
"""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.optional_imports import import_optional

RESAMPLES = 2_000
CONFIDENCE = 0.95
CHUNK = 500  # resamples that are held in memory at the same time

Bits = NDArray[np.bool_]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None of a single one) and number of some figures."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Interval:
    """Where a difference lies with the confidence asked for."""

    low: float
    high: float

    @property
    def side(self) -> int:
        """1 where all of it is above zero, -1 where all of it is below, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Difference:
    """How much better one row is than another.

    Attributes:
        mean: over selection seeds, of the means over their training seeds and all images.
        bootstrap: percentiles of means over resampled selection seeds, training seeds and images.
        small_sample: Student's interval, for few seeds that differ much; None of one seed.
        selection_seeds: how many there are.
        ahead: how many of them have a mean above zero.
    """

    mean: float
    bootstrap: Interval
    small_sample: Interval | None
    selection_seeds: int
    ahead: int


def spread(values: Sequence[float]) -> Spread:
    """Return the mean and the sample standard deviation of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


def class_accuracies(correct: Bits, labels: NDArray[np.int64], classes: int) -> Reals:
    """Return the share of each class's images answered right, [..., classes]; NaN for a class without images.

    Args:
        correct: whether each image is answered right, [..., images].
        labels: their classes, [images].
        classes: how many there are.
    """
    members = np.eye(classes)[labels]
    counts = members.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(correct.astype(np.float64) @ members / counts, np.float64)


def paired_difference(
    differences: Sequence[Reals],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference:
    """Return the difference between two rows, with intervals.

    Args:
        differences: for each selection seed, float [training seeds, images]: what is right in the first row
            (1, or a share where several cells are averaged) less what is right in the second.
        resamples: of the bootstrap.
        confidence: of the intervals, in (0, 1).
        seed: of the resampling.
    """
    by_selection = [float(part.mean()) for part in differences]
    means = resampled_means(differences, resamples=resamples, seed=seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(
        mean=statistics.fmean(by_selection),
        bootstrap=Interval(float(low), float(high)),
        small_sample=_small_sample(differences, by_selection, confidence),
        selection_seeds=len(differences),
        ahead=sum(mean > 0 for mean in by_selection),
    )


def resampled_means(differences: Sequence[Reals], *, resamples: int, seed: int) -> Reals:
    """Return means over resampled selection seeds, training seeds within each, and images, [resamples].

    Of n seeds n - 1 are drawn with replacement, so that the means vary no less than the estimate does, also
    for few seeds (n drawn of n give (n - 1) / n of the variance); of a single seed that one. The images drawn
    are the same for all seeds of a resample.

    Args:
        differences: as for `paired_difference`.
        resamples: how many.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    stacked = np.concatenate(differences)
    means = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        students = _student_weights(rng, [len(part) for part in differences], size)
        drawn = _image_weights(rng, stacked.shape[1], size)
        means.append(((students @ stacked) * drawn).sum(axis=1))
    return np.concatenate(means)


def _student_weights(rng: np.random.Generator, students: Sequence[int], size: int) -> Reals:
    """Return the weight of every student in each resample, [size, all students]; each resample's sum to 1.

    Args:
        students: training seeds of each selection seed.
        size: resamples.
    """
    seeds = len(students)
    draws = max(seeds - 1, 1)
    chosen = rng.multinomial(draws, np.full(seeds, 1 / seeds), size)
    parts = []
    for place, count in enumerate(students):
        within = max(count - 1, 1)
        taken = rng.multinomial(chosen[:, place] * within, np.full(count, 1 / count))
        parts.append(taken / (within * draws))
    return np.concatenate(parts, axis=1)


def _image_weights(rng: np.random.Generator, images: int, size: int) -> Reals:
    """Return the weight of every image in each resample, [size, images]; each resample's sum to 1."""
    drawn = rng.integers(0, images, (size, images)) + images * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images) / images


def _small_sample(
    differences: Sequence[Reals], by_selection: Sequence[float], confidence: float
) -> Interval | None:
    """Return Student's interval of the mean, from the variances between seeds and between images."""
    seeds = len(by_selection)
    if seeds < 2:
        return None
    by_image = np.mean([part.mean(axis=0) for part in differences], axis=0)
    images = len(by_image)
    variances = (statistics.variance(by_selection) / seeds, float(by_image.var(ddof=1)) / images)
    total = sum(variances)
    mean = statistics.fmean(by_selection)
    if total == 0:
        return Interval(mean, mean)
    degrees = total**2 / (variances[0] ** 2 / (seeds - 1) + variances[1] ** 2 / (images - 1))
    quantile = import_optional("scipy.stats", "models").t.ppf((1 + confidence) / 2, degrees)
    reach = float(quantile) * math.sqrt(total)
    return Interval(mean - reach, mean + reach)


def label_robust_score(ior: float, hlr: float, weight: float = 0.5) -> float:
    """Return DD-Ranking's LRS, (exp(a) - exp(-1)) / (e - exp(-1)), with a = weight IOR - (1 - weight) HLR."""
    balance = weight * ior - (1 - weight) * hlr
    return (math.exp(balance) - math.exp(-1)) / (math.e - math.exp(-1))


def pack_bits(correct: Bits) -> str:
    """Return bits [n] as text: eight a byte, the first the highest, in base64."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode("ascii")


def unpack_bits(text: str, count: int) -> Bits:
    """Return the first `count` bits of what `pack_bits` wrote.

    Raises:
        ValueError: the text is no base64, or does not hold just so many.
    """
    packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"{len(packed)} bytes do not hold {count} bits")
    return np.unpackbits(packed, count=count).astype(np.bool_)
