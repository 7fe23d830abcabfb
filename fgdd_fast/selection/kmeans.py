"""k-means clustering with k-means++ centres (Arthur and Vassilvitskii, SODA 2007), in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.seeding import seeded_hash

ITERATIONS = 100  # at most; a class's few hundred tiles settle in a tenth of that


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
