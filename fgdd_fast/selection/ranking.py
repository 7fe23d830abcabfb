"""Rankings: which of a class's tiles stay, by name; pure functions of tiles and of their features.

Lowest loss alone undoes the dual path, because the best of several crops beats one whole view, and it repeats
itself, because photographs that the teacher finds easy look alike. `stratified` and `whole-first` mend the
one, `kmeans` the other, `stratified-kmeans` both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import SettingsError
from fgdd_fast.selection.coresets import best_of_clusters, farthest, herd
from fgdd_fast.selection.records import Tile, TileKind

Ranking = Callable[[Sequence[Tile], int], list[Tile]]
"""Chooses from a class's tiles, no two from the same image: the best `count` (all if fewer), best first."""

FeaturesOf = Callable[[Sequence[Tile]], NDArray[np.floating]]
"""Looks up what a teacher sees in tiles: finite values [n, channels]."""

Coreset = Callable[[NDArray[np.floating], int], Sequence[int]]
"""Gives the places of so many of more points [n, channels], which lie in the order of their tiles' losses."""

RankingName: TypeAlias = str
"""One of `RANKINGS`."""


@dataclass(frozen=True)
class RankingKind:
    """A ranking that can be asked for by name.

    Attributes:
        make: makes it, with what looks features up, and a seed.
        help: what `--help` says of it.
        needs_features: whether it looks at the teacher's features of tiles.
        by_loss: whether it looks at kinds, losses and sources alone, and of two tiles of a kind prefers the
            one with the lower loss.
    """

    make: Callable[[FeaturesOf, int], Ranking]
    help: str
    needs_features: bool = False
    by_loss: bool = False


def find_ranking(name: RankingName) -> RankingKind:
    """Return the ranking of a name; SettingsError, which lists them, where there is none."""
    if name not in RANKINGS:
        raise SettingsError(f"There is no ranking '{name}'", f"Choose one of: {', '.join(RANKINGS)}.")
    return RANKINGS[name]


def make_ranking(name: RankingName, features: FeaturesOf, seed: int) -> Ranking:
    """Return the ranking of a name.

    Args:
        name: one of `RANKINGS`.
        features: for rankings that need features; no other calls it.
        seed: of the clusters.

    Raises:
        SettingsError: there is no such ranking.
    """
    return find_ranking(name).make(features, seed)


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


def rank_whole_first(tiles: Sequence[Tile], count: int, *, within: Ranking) -> list[Tile]:
    """Take whole tiles, of images that their foreground dominates; crops only where these are too few."""
    whole, crops = ([tile for tile in tiles if tile.kind == kind] for kind in get_args(TileKind))
    chosen = within(whole, count)
    return chosen + within(crops, count - len(chosen))


def rank_by_features(
    tiles: Sequence[Tile], count: int, *, features: FeaturesOf, coreset: Coreset
) -> list[Tile]:
    """Take the tiles that a coreset of their features takes, in its order.

    The order of the tiles plays no part; where there are no more tiles than wanted, nor do their features,
    and the loss ranks.
    """
    ordered = rank_by_loss(tiles, len(tiles))
    if count >= len(tiles) or count < 1:
        return ordered[:count]
    return [ordered[place] for place in coreset(features(ordered), count)]


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


def _by_clusters(features: FeaturesOf, seed: int) -> Ranking:
    return partial(rank_by_features, features=features, coreset=partial(best_of_clusters, seed=seed))


# A new ranking is a function above and a line here.
RANKINGS: dict[RankingName, RankingKind] = {
    "loss": RankingKind(lambda _, __: rank_by_loss, "the lowest (as RDED does)", by_loss=True),
    "stratified": RankingKind(
        lambda _, __: partial(rank_by_kind, within=rank_by_loss),
        "so among whole tiles and among crops, as many of each as their share of the class's images",
        by_loss=True,
    ),
    "whole-first": RankingKind(
        lambda _, __: partial(rank_whole_first, within=rank_by_loss),
        "the lowest of the whole tiles, and then of the crops where these are too few",
        by_loss=True,
    ),
    "kmeans": RankingKind(_by_clusters, "the lowest loss of each cluster of the teacher's features", True),
    "stratified-kmeans": RankingKind(
        lambda features, seed: partial(rank_by_kind, within=_by_clusters(features, seed)),
        "so among whole tiles and among crops",
        True,
    ),
    "herding": RankingKind(
        lambda features, _: partial(rank_by_features, features=features, coreset=herd),
        "those whose mean is nearest to the class's, in the teacher's features",
        True,
    ),
    "k-centre": RankingKind(
        lambda features, _: partial(rank_by_features, features=features, coreset=farthest),
        "the lowest loss, then each time the tile farthest from all taken, in the teacher's features",
        True,
    ),
}
RANKINGS_HELP = "; ".join(f"{name}: {kind.help}" for name, kind in RANKINGS.items())
