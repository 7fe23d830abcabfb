"""A teacher for one's own classes: a linear classifier on the features of a frozen backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.optional_imports import import_optional
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import Skipped, SourceImage
from fgdd_fast.images.depth import SixteenBit, read_image_at
from fgdd_fast.images.resize import ResizeMethod, resize
from fgdd_fast.models.network import BatchedNetwork, Images
from fgdd_fast.parallel import batched, ordered_map, single_threaded_opencv
from fgdd_fast.seeding import seeded_hash

# How sure the accuracy on held-out images must be to lie above chance, as a one-sided binomial test.
CHANCE_P_VALUE = 0.01

# scikit-learn's C times the number of samples. On 3,068 photographs of 10 classes and features of
# EfficientNet-lite0, 3 was as accurate as 30 on whole images and better on crops; 300 was worse on both.
PENALTY_WEIGHT = 3.0


@dataclass(frozen=True)
class Head:
    """A linear classifier on features: logits = features @ weight.T + bias.

    Attributes:
        weight: float32 [classes, channels].
        bias: float32 [classes].
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [n, classes] of features [n, channels]."""
        return features @ self.weight.T + self.bias


@dataclass(frozen=True)
class Accuracy:
    """How often predictions on held-out images are right.

    Attributes:
        confusion: images counted by class (row) and prediction (column), int [classes, classes].
        classes: their names.
    """

    confusion: NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def images(self) -> int:
        """Images judged."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of all images predicted right."""
        return float(np.trace(self.confusion) / max(self.images, 1))

    @property
    def per_class(self) -> dict[str, float]:
        """Share of each class's images predicted right; classes without images are left out."""
        totals = self.confusion.sum(axis=1)
        shares = np.diag(self.confusion) / np.maximum(totals, 1)
        return {
            name: float(share)
            for name, share, total in zip(self.classes, shares, totals, strict=True)
            if total
        }

    @property
    def chance(self) -> float:
        """Share that always guessing the most frequent class would get right."""
        return float(self.confusion.sum(axis=1).max() / max(self.images, 1))

    def above_chance(self) -> bool:
        """Whether guessing would hardly ever get as many right: the exact binomial tail is small."""
        right, total, chance = int(np.trace(self.confusion)), self.images, self.chance
        if chance >= 1 or total == 0:
            return False
        terms = (
            math.lgamma(total + 1)
            - math.lgamma(k + 1)
            - math.lgamma(total - k + 1)
            + k * math.log(chance)
            + (total - k) * math.log1p(-chance)
            for k in range(right, total + 1)
        )
        return math.fsum(math.exp(term) for term in terms) < CHANCE_P_VALUE


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]) -> Accuracy:
    """Compare predictions with labels.

    Args:
        logits: [n, classes].
        labels: indices into `classes`, [n].
        classes: names in the order of the logits.
    """
    return compare(logits.argmax(axis=1), labels, classes)


def compare(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str]) -> Accuracy:
    """Compare predicted classes with labels, both indices into `classes`, [n]."""
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return Accuracy(confusion, tuple(classes))


def hold_out(
    images: Sequence[SourceImage], share: float, seed: int
) -> tuple[tuple[SourceImage, ...], tuple[SourceImage, ...]]:
    """Split images class by class into a part to fit on and a part held out.

    The split depends on (seed, source) alone. A class of at least two images has one in each part.

    Returns:
        (to fit on, held out), each in the order of `images`.
    """
    by_class: dict[str, list[str]] = {}
    for image in images:
        by_class.setdefault(image.class_name, []).append(image.source)
    held: set[str] = set()
    for sources in by_class.values():
        sources.sort(key=lambda source: seeded_hash("fgdd hold out", seed, source).digest())
        count = min(max(round(share * len(sources)), 1), len(sources) - 1)
        held.update(sources[:count])
    fitted = tuple(image for image in images if image.source not in held)
    return fitted, tuple(image for image in images if image.source in held)


def whole_images(
    images: Sequence[SourceImage],
    network: BatchedNetwork,
    run: Callable[[Images], NDArray[np.float32]],
    *,
    method: ResizeMethod,
    threads: int,
    sixteen_bit: SixteenBit = "shift",
    advance: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.float32], tuple[SourceImage, ...], tuple[Skipped, ...]]:
    """What a network says of whole images, each resized to its input.

    Args:
        images: read, resized and run in overlapping stages.
        network: gives the input size and the number of useful calls at once.
        run: from uint8 [n, height, width, 3] to float32 [n, ...].
        method: how images are resized.
        threads: reading threads.
        sixteen_bit: how samples of 16 bits are read; see `fgdd_fast.images.depth`.
        advance: called once for each image that is done.

    Returns:
        (results [n, ...], the images that they belong to, the images that cannot be used).
    """
    skipped: list[Skipped] = []

    def read(image: SourceImage) -> tuple[SourceImage, Images] | Skipped:
        try:
            return image, resize(read_image_at(image.location, sixteen_bit).pixels, network.size, method)
        except ImageError as error:
            return Skipped(image.source, error.problem)

    def usable(items: Iterable[tuple[SourceImage, Images] | Skipped]) -> Iterator[tuple[SourceImage, Images]]:
        for item in items:
            advance()
            if isinstance(item, Skipped):
                skipped.append(item)
            else:
                yield item

    def infer(batch: list[tuple[SourceImage, Images]]) -> tuple[list[SourceImage], NDArray[np.float32]]:
        return [image for image, _ in batch], run(np.stack([pixels for _, pixels in batch]))

    ahead = 2 * network.batch * network.streams + 2 * threads
    with (
        single_threaded_opencv(),
        ThreadPoolExecutor(threads, "read") as readers,
        ThreadPoolExecutor(network.streams, "infer") as runners,
    ):
        batches = batched(usable(ordered_map(readers, read, images, ahead)), network.batch)
        parts = list(ordered_map(runners, infer, batches, 2 * network.streams))
    if not parts:
        reason = skipped[0].reason if skipped else "there is none"
        raise DataError(f"Not one image could be used; the first reason is: {reason}")
    used = tuple(image for part, _ in parts for image in part)
    return np.concatenate([results for _, results in parts]), used, tuple(skipped)


def fit_head(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Head:
    """Fit a multinomial logistic regression on standardised features.

    Args:
        features: float32 [n, channels].
        labels: indices of classes from 0, each of which occurs, [n]; at least two classes.

    Returns:
        The head on features as they are: the standardisation is folded into it.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    linear_model = import_optional("sklearn.linear_model", "models")
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1  # a dead channel says nothing, whatever its weight
    model = linear_model.LogisticRegression(C=PENALTY_WEIGHT / len(labels), max_iter=1000)
    model.fit((features - mean) / scale, labels)
    coefficients, intercept = model.coef_, model.intercept_
    if len(coefficients) == 1:  # of two classes scikit-learn keeps only the second one's
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weight = coefficients / scale
    return Head(weight.astype(np.float32), (intercept - weight @ mean).astype(np.float32))


def swapped_classes(confusion: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Classes that a teacher seems to call by each other's names.

    Two classes that look alike are confused one way or in part; names in the wrong order send the majority of
    every class concerned to another one, in a closed cycle.

    Args:
        confusion: images by folder (row) and prediction (column), [classes, classes].

    Returns:
        (folder, prediction) for each folder whose majority is predicted as another class within such a cycle.
    """
    totals = confusion.sum(axis=1)
    favourite = confusion.argmax(axis=1)
    majority = confusion.max(axis=1) * 2 > totals
    wrong: list[tuple[int, int]] = []
    for start in range(len(confusion)):
        seen = [start]
        while majority[seen[-1]] and favourite[seen[-1]] not in seen:
            seen.append(int(favourite[seen[-1]]))
        if len(seen) > 1 and majority[seen[-1]] and favourite[seen[-1]] == start:
            wrong.append((start, int(favourite[start])))
    return tuple(wrong)
