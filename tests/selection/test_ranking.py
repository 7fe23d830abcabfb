"""Rankings: known answers, and what every ranking keeps whatever the tiles."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from record_strategies import quick

from fgdd_fast.images.crops import Box
from fgdd_fast.output.mosaic import arrange
from fgdd_fast.selection.ranking import (
    RANKINGS,
    Ranking,
    RankingName,
    apportion,
    make_ranking,
)
from fgdd_fast.selection.records import Tile, TileKind


def make_tile(source: str, loss: float, kind: TileKind = "crop") -> Tile:
    return Tile(source, "0" * 64, Box(0, 0, 1, 1), kind, 0.5, 0.5, loss)


def no_features(_: Sequence[Tile]) -> NDArray[np.float32]:
    raise AssertionError("these features must not be asked for")


def features_of(tiles: Sequence[Tile]) -> NDArray[np.float32]:
    """Features that follow the source alone: few different ones, so that some tiles have equal ones."""
    return np.array([[len(tile.source), ord(tile.source[0]) % 3] for tile in tiles], np.float32)


def ranking(name: RankingName, seed: int = 0) -> Ranking:
    return make_ranking(name, features_of if RANKINGS[name].needs_features else no_features, seed)


def sources(tiles: Sequence[Tile]) -> list[str]:
    return [tile.source for tile in tiles]


def test_lowest_losses_then_sources() -> None:
    tiles = [make_tile("b", 2.0), make_tile("c", 1.0), make_tile("a", 2.0), make_tile("d", 3.0)]
    assert sources(ranking("loss")(tiles, 3)) == ["c", "a", "b"]


def test_each_path_fills_its_share_with_its_lowest_losses() -> None:
    """Three of four images are kept whole, and the crops all have lower losses."""
    whole = [make_tile(f"w{index}", 10.0 - index, "full") for index in range(6)]
    crops = [make_tile(f"c{index}", 1.0 + index) for index in range(2)]
    assert sources(ranking("loss")([*crops, *whole], 4)) == ["c0", "c1", "w5", "w4"]
    assert sources(ranking("stratified")([*crops, *whole], 4)) == ["w5", "w4", "w3", "c0"]


def test_whole_tiles_come_first_and_crops_fill_up() -> None:
    whole = [make_tile(f"w{index}", 10.0 - index, "full") for index in range(3)]
    crops = [make_tile(f"c{index}", 1.0 - index / 10) for index in range(3)]
    assert sources(ranking("whole-first")([*crops, *whole], 2)) == ["w2", "w1"]
    assert sources(ranking("whole-first")([*crops, *whole], 5)) == ["w2", "w1", "w0", "c2", "c1"]
    assert sources(ranking("whole-first")(crops, 1)) == ["c2"]


def test_a_cluster_gives_its_lowest_loss() -> None:
    features = {"a": 0, "b": 1, "c": 0.5, "d": 100, "e": 101, "f": 200}
    losses = {"a": 0.3, "b": 0.1, "c": 0.2, "d": 5.0, "e": 4.0, "f": 3.0}
    tiles = [make_tile(source, loss) for source, loss in losses.items()]

    def feature(tiles: Sequence[Tile]) -> NDArray[np.float32]:
        return np.array([[features[tile.source]] for tile in tiles], np.float32)

    diverse = make_ranking("kmeans", feature, 0)
    assert sources(diverse(tiles, 3)) == ["b", "f", "e"]


def test_clusters_within_each_path() -> None:
    features = {"a": 0, "b": 1, "c": 100, "d": 0, "e": 1, "f": 100}
    tiles = [
        make_tile(source, index, "full" if index < 3 else "crop") for index, source in enumerate(features)
    ]

    def feature(tiles: Sequence[Tile]) -> NDArray[np.float32]:
        return np.array([[features[tile.source]] for tile in tiles], np.float32)

    assert sources(make_ranking("stratified-kmeans", feature, 0)(tiles, 4)) == ["a", "c", "d", "f"]


def test_empty_clusters_are_made_up_for_by_the_second_best_of_others() -> None:
    def feature(tiles: Sequence[Tile]) -> NDArray[np.float32]:
        return np.array([[tile.source < "d"] for tile in tiles], np.float32)

    losses = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}
    tiles = [make_tile(source, loss) for source, loss in losses.items()]
    assert sources(make_ranking("kmeans", feature, 0)(tiles, 3)) == ["a", "d", "b"]
    assert sources(make_ranking("kmeans", feature, 0)(tiles, 4)) == ["a", "d", "b", "e"]


def test_no_features_are_asked_for_where_all_tiles_are_wanted() -> None:
    tiles = [make_tile("b", 1.0), make_tile("a", 2.0, "full")]
    assert sources(make_ranking("kmeans", no_features, 0)(tiles, 2)) == ["b", "a"]
    assert sources(make_ranking("stratified-kmeans", no_features, 0)(tiles, 5)) == ["a", "b"]


names = st.text("abcdef", min_size=1, max_size=4)


@st.composite
def any_tiles(draw: st.DrawFn, kinds: tuple[TileKind, ...] = ("full", "crop")) -> list[Tile]:
    losses = st.sampled_from([0.0, 0.5, 0.5, 1.0, 7.0])
    tile = st.builds(make_tile, names, losses, st.sampled_from(kinds))
    return draw(st.lists(tile, min_size=1, max_size=14, unique_by=lambda tile: tile.source))


@quick
@given(
    st.sampled_from([*RANKINGS]),
    any_tiles(),
    st.integers(0, 16),
    st.integers(),
    st.randoms(use_true_random=False),
)
def test_the_right_number_each_once_in_an_order_of_their_own(
    name: RankingName, tiles: list[Tile], count: int, seed: int, order: random.Random
) -> None:
    chosen = ranking(name, seed)(tiles, count)
    assert len(chosen) == min(count, len(tiles))
    assert len(set(sources(chosen))) == len(chosen)
    assert set(chosen) <= set(tiles)
    assert ranking(name, seed)(order.sample(tiles, len(tiles)), count) == chosen


@quick
@given(any_tiles(), st.integers(1, 14), st.integers())
def test_the_tile_of_lowest_loss_is_always_taken(tiles: list[Tile], count: int, seed: int) -> None:
    best = min(tiles, key=lambda tile: (tile.loss, tile.source))
    assert best in ranking("kmeans", seed)(tiles, count)


@quick
@given(st.sampled_from(["stratified", "stratified-kmeans"]), any_tiles(), st.integers(1, 14))
def test_each_path_has_its_share_but_for_rounding(name: RankingName, tiles: list[Tile], count: int) -> None:
    count = min(count, len(tiles))
    chosen = ranking(name)(tiles, count)
    for kind in ("full", "crop"):
        share = sum(tile.kind == kind for tile in tiles) / len(tiles)
        assert abs(sum(tile.kind == kind for tile in chosen) - share * count) <= 0.5 + 1e-9


@quick
@given(any_tiles(), st.integers(1, 5), st.integers(1, 3))
def test_every_mosaic_gets_the_same_number_of_whole_tiles_but_one(
    tiles: list[Tile], ipc: int, factor: int
) -> None:
    count = ipc * factor**2
    more = [replace(tile, source=f"{tile.source}{copy}") for copy in range(count) for tile in tiles]
    mosaics = arrange(ranking("stratified")(more, count), ipc, factor)
    whole = [sum(tile.kind == "full" for tile in mosaic.tiles) for mosaic in mosaics]
    assert max(whole) - min(whole) <= 1


@pytest.mark.parametrize(
    ("sizes", "total", "expected"),
    [
        ([70, 30], 10, [7, 3]),
        ([1, 1], 1, [1, 0]),
        ([2, 1], 2, [1, 1]),
        ([0, 5], 3, [0, 3]),
        ([5, 2, 3], 5, [3, 1, 1]),
        ([0, 0], 0, [0, 0]),
    ],
)
def test_largest_remainder(sizes: list[int], total: int, expected: list[int]) -> None:
    assert apportion(sizes, total) == expected
