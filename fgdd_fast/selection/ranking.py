"""Rankings: which of a class's tiles stay, by name; pure functions of tiles and of their features.

Lowest loss alone undoes the dual path, because the best of several crops beats one whole view, and it repeats
itself, because photographs that the teacher finds easy look alike. `stratified` mends the one, `kmeans` the
other, `stratified-kmeans` both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import SettingsError
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.selection.records import Tile, TileKind

Ranking = Callable[[Sequence[Tile], int], list[Tile]]
"""Chooses from a class's tiles, no two from the same image: the best `count` (all if fewer), best first."""

FeaturesOf = Callable[[Sequence[Tile]], NDArray[np.floating]]
"""Looks up what a teacher sees in tiles: finite values [n, channels]."""

ITERATIONS = 100  # of k-means, at most; a class's few hundred tiles settle in a tenth of that

RankingName: TypeAlias = str
"""One of `RANKINGS`."""


def make_ranking(name: RankingName, features: FeaturesOf, seed: int) -> Ranking:
    """Return the ranking of a name.

    Args:
        name: one of `RANKINGS`.
        features: for the rankings `WITH_FEATURES`; no other calls it.
        seed: of the clusters.

    Raises:
        SettingsError: there is no such ranking.
    """
    if name not in _REGISTRY:
        raise SettingsError(f"There is no ranking '{name}'", f"Choose one of: {', '.join(RANKINGS)}.")
    return _REGISTRY[name].make(features, seed)


def rank_by_loss(tiles: Sequence[Tile], count: int) -> list[Tile]:
    """RDED's ranking: ascending loss; equal losses in the order of their sources."""
    return sorted(tiles, key=_loss_and_source)[:count]


def rank_by_kind(tiles: Sequence[Tile], count: int, *, within: Ranking) -> list[Tile]:
    """Give each kind its share of the tiles chosen: the share that it has of the tiles there are.

    Whole tiles come first, then crops, each as `within` ranks them. So the mosaics, to which `arrange` deals
    tiles out in turn, get the same number of whole tiles, give or take one. (Alternating kinds would not do:
    of an even number of mosaics every second one would get whole tiles alone.)
    """
    by_kind = [[tile for tile in tiles if tile.kind == kind] for kind in get_args(TileKind)]
    numbers = apportion([len(members) for members in by_kind], min(count, len(tiles)))
    return [
        tile for members, number in zip(by_kind, numbers, strict=True) for tile in within(members, number)
    ]


def rank_by_clusters(tiles: Sequence[Tile], count: int, *, features: FeaturesOf, seed: int) -> list[Tile]:
    """Take the lowest loss of each of `count` clusters of the tiles' features, ascending.

    Where some clusters are empty, the others' second best follow, and so on. The order of the tiles plays no
    part; where there are no more tiles than wanted, nor do their features.
    """
    ordered = rank_by_loss(tiles, len(tiles))
    if count >= len(tiles) or count < 1:
        return ordered[:count]
    taken = [0] * count
    turns = []  # how many tiles of the same cluster have a lower loss
    for place in cluster(features(ordered), count, seed):
        turns.append(taken[place])
        taken[place] += 1
    return [ordered[place] for place in np.argsort(turns, kind="stable")[:count]]


def apportion(sizes: Sequence[int], total: int) -> list[int]:
    """Divide `total` places among groups by their sizes, by largest remainder (Hare's quota).

    Args:
        sizes: of the groups.
        total: at most the sum of the sizes.

    Returns:
        Places of each group, which are no more than its size; of equal remainders the first group's counts.
    """
    whole = max(sum(sizes), 1)
    places = [size * total // whole for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda group: -(sizes[group] * total % whole))
    for group in by_remainder[: total - sum(places)]:
        places[group] += 1
    return places


def _loss_and_source(tile: Tile) -> tuple[float, str]:
    return tile.loss, tile.source


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


class _Entry(NamedTuple):
    """A ranking: how it is made of features and a seed, and what `--help` says of it."""

    make: Callable[[FeaturesOf, int], Ranking]
    help: str
    needs_features: bool = False


def _by_clusters(features: FeaturesOf, seed: int) -> Ranking:
    return partial(rank_by_clusters, features=features, seed=seed)


# A new ranking is a function above and a line here.
_REGISTRY: dict[RankingName, _Entry] = {
    "loss": _Entry(lambda _, __: rank_by_loss, "the lowest (as RDED does)"),
    "stratified": _Entry(
        lambda _, __: partial(rank_by_kind, within=rank_by_loss),
        "so among whole tiles and among crops, as many of each as their share of the class's images",
    ),
    "kmeans": _Entry(_by_clusters, "the lowest loss of each cluster of the teacher's features", True),
    "stratified-kmeans": _Entry(
        lambda features, seed: partial(rank_by_kind, within=_by_clusters(features, seed)),
        "so among whole tiles and among crops",
        True,
    ),
}
RANKINGS = tuple(_REGISTRY)
WITH_FEATURES = frozenset(name for name, entry in _REGISTRY.items() if entry.needs_features)
RANKINGS_HELP = "; ".join(f"{name}: {entry.help}" for name, entry in _REGISTRY.items())
