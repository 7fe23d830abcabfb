"""Coresets: which few of many points stand for all of them; pure functions of features.

Points lie in the order in which they are preferred, such as that of their losses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.seeding import seeded_hash

ITERATIONS = 100  # of k-means, at most; a class's few hundred tiles settle in a tenth of that


def best_of_clusters(points: NDArray[np.floating], count: int, seed: int) -> list[int]:
    """Return the first point of each of `count` clusters, in the order of the points.

    Where some clusters are empty, the others' second follow, and so on.

    Args:
        points: finite values [n, channels], n at least `count`.
        count: how many, at least 1.
        seed: of the clusters.
    """
    taken = [0] * count
    turns = []  # how many points of the same cluster come before
    for place in cluster(points, count, seed):
        turns.append(taken[place])
        taken[place] += 1
    return [int(place) for place in np.argsort(turns, kind="stable")[:count]]


def herd(points: NDArray[np.floating], count: int) -> list[int]:
    """Return points one by one, each the one that brings their mean nearest to that of all points.

    Source: Welling, "Herding dynamical weights to learn" (ICML 2009), as coresets use it. Points are scaled
    to unit length; of equally good ones the first is taken.

    Args:
        points: finite values [n, channels], n at least `count`.
        count: how many, at least 1.
    """
    unit = _unit(points)
    wanted, total = unit.mean(axis=0), np.zeros(unit.shape[1])
    chosen: list[int] = []
    for number in range(1, count + 1):
        distances = np.square(wanted * number - total - unit).sum(axis=1)
        distances[chosen] = np.inf
        chosen.append(int(distances.argmin()))
        total += unit[chosen[-1]]
    return chosen


def farthest(points: NDArray[np.floating], count: int) -> list[int]:
    """Return the first point, then one by one the point farthest from all taken: greedy k-centre.

    Source: Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach" (ICLR
    2018). Points are scaled to unit length; of equally far ones the first is taken.

    Args:
        points: finite values [n, channels], n at least `count`.
        count: how many, at least 1.
    """
    unit = _unit(points)
    chosen = [0]
    nearest = np.square(unit - unit[0]).sum(axis=1)
    while len(chosen) < count:
        nearest[chosen] = -1  # never twice, also where points are equal
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(unit - unit[chosen[-1]]).sum(axis=1))
    return chosen


def _unit(points: NDArray[np.floating]) -> NDArray[np.float64]:
    values = points.astype(np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


def cluster(points: NDArray[np.floating], clusters: int, seed: int) -> NDArray[np.int64]:
    """Divide points into clusters, each of the points nearest to its mean.

    Args:
        points: finite values [n, channels], n at least 1.
        clusters: how many, at least 1.
        seed: any whole number; the same points in the same order give the same clusters.

    Returns:
        The cluster of each point [n], from 0. Fewer clusters than asked have points where fewer points are
        distinct, and rarely where one loses its points while the means move.
    """
    values = points.astype(np.float64)
    means = _first_means(values, clusters, seed)
    nearest = _nearest(values, means)
    for _ in range(ITERATIONS):
        belongs = np.arange(len(means))[:, None] == nearest
        members = belongs.sum(axis=1, keepdims=True)
        means = np.where(members > 0, belongs.astype(np.float64) @ values / np.maximum(members, 1), means)
        before, nearest = nearest, _nearest(values, means)
        if np.array_equal(nearest, before):
            break
    return nearest


def _first_means(points: NDArray[np.float64], clusters: int, seed: int) -> NDArray[np.float64]:
    """Draw points one by one, each by its squared distance from the nearest one drawn before."""
    places: list[int] = []
    weights = np.ones(len(points))
    while len(places) < clusters and weights.any():
        cumulative = weights.cumsum()
        place = int(np.searchsorted(cumulative, _fraction(seed, len(places)) * cumulative[-1], side="right"))
        place = min(place, len(points) - 1)  # a product that is rounded up
        places.append(place)
        distances = np.square(points - points[place]).sum(axis=1)  # exactly 0 for equal points
        weights = distances if len(places) == 1 else np.minimum(weights, distances)
    return points[places]


def _nearest(points: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.int64]:
    """The mean nearest to each point [n]; the first of equally near ones."""
    distances = np.square(means).sum(axis=1) - 2 * points @ means.T  # squared, less a number for each point
    return np.asarray(distances.argmin(axis=1), np.int64)


def _fraction(seed: int, draw: int) -> float:
    """A number in [0, 1) for each draw."""
    digest = seeded_hash("fgdd k-means", seed, str(draw)).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) * 2.0**-53
