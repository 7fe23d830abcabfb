"""Rankings that were tried and not taken into the tool, so that what they gave can be measured again.

They are names of rows as the tool's own rankings are. What came of them: docs/results/varied-scenes.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.selection.coresets import best_of_clusters, herd
from fgdd_fast.selection.ranking import (
    RANKINGS,
    Coreset,
    FeaturesOf,
    Ranking,
    RankingKind,
    rank_by_features,
    rank_by_loss,
)
from fgdd_fast.selection.records import Tile


def most_occupied(tiles: Sequence[Tile], count: int) -> list[Tile]:
    """Take the images that their foreground fills most."""
    return sorted(tiles, key=lambda tile: (-tile.occupancy, tile.source))[:count]


def typical_occupancy(tiles: Sequence[Tile], count: int, *, low: float, high: float) -> list[Tile]:
    """Take the lowest losses of the images whose occupancy lies between two quantiles of their class."""
    least, most = np.quantile([tile.occupancy for tile in tiles], [low, high])
    return sorted(tiles, key=lambda tile: (not least <= tile.occupancy <= most, tile.loss, tile.source))[
        :count
    ]


def diverse_among_best(
    tiles: Sequence[Tile], count: int, *, times: int, features: FeaturesOf, coreset: Coreset
) -> list[Tile]:
    """Take a coreset of the `times` times as many tiles of lowest loss."""
    best = rank_by_loss(tiles, times * count)
    return rank_by_features(best, count, features=features, coreset=coreset)


def cover(points: NDArray[np.floating], count: int) -> list[int]:
    """Return points one by one, each what brings all points nearest to a taken one (facility location)."""
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    nearest = np.full(len(unit), -1.0)
    chosen: list[int] = []
    for _ in range(count):
        gains = np.maximum(alike, nearest).sum(axis=1)
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        nearest = np.maximum(nearest, alike[chosen[-1]])
    return chosen


def _best_clusters(times: int) -> RankingKind:
    def make(features: FeaturesOf, seed: int) -> Ranking:
        coreset = partial(best_of_clusters, seed=seed)
        return partial(diverse_among_best, times=times, features=features, coreset=coreset)

    return RankingKind(make, "clusters of the lowest losses", True)


def _typical(low: float, high: float) -> RankingKind:
    return RankingKind(lambda _, __: partial(typical_occupancy, low=low, high=high), "typical occupancies")


RANKINGS |= {
    "occupied": RankingKind(lambda _, __: most_occupied, "the largest occupancies"),
    "typical": _typical(0.2, 0.8),
    "typical-narrow": _typical(0.35, 0.65),
    "coverage": RankingKind(
        lambda features, _: partial(rank_by_features, features=features, coreset=cover), "coverage", True
    ),
    "best4-herding": RankingKind(
        lambda features, _: partial(diverse_among_best, times=4, features=features, coreset=herd),
        "herding among the lowest losses",
        True,
    ),
    "best2-kmeans": _best_clusters(2),
    "best4-kmeans": _best_clusters(4),
}
