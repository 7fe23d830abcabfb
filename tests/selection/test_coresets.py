"""Coresets: known answers, and what every one keeps whatever the points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from record_strategies import quick

from fgdd_fast.selection.coresets import cluster, farthest, herd


def groups(labels: NDArray[np.int64]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


@pytest.mark.parametrize("seed", range(5))
def test_groups_that_lie_apart_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    middles = np.array([[0, 0, 0], [100, 0, 0], [0, 100, 0], [0, 0, 100]])
    points = np.repeat(middles, [1, 5, 9, 20], axis=0) + rng.normal(size=(35, 3))
    expected = np.repeat(np.arange(4), [1, 5, 9, 20])
    order = rng.permutation(35)
    assert groups(cluster(points[order], 4, seed)) == groups(expected[order])


def test_equal_points_share_a_cluster() -> None:
    points = np.array([[1.0], [2.0], [1.0], [2.0], [2.0]])
    assert groups(cluster(points, 4, 0)) == {frozenset({0, 2}), frozenset({1, 3, 4})}
    assert set(cluster(np.zeros((3, 2)), 2, 0)) == {0}


@st.composite
def any_points(draw: st.DrawFn) -> NDArray[np.float32]:
    count, channels = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    values = st.floats(-1000, 1000, width=16)
    rows = draw(
        st.lists(st.lists(values, min_size=channels, max_size=channels), min_size=count, max_size=count)
    )
    return np.array(rows, np.float32)


@quick
@given(any_points(), st.integers(1, 12), st.integers())
def test_every_point_is_nearest_to_the_mean_of_its_cluster(
    points: NDArray[np.float32], clusters: int, seed: int
) -> None:
    labels = cluster(points, clusters, seed)
    assert labels.shape == (len(points),)
    assert 0 <= labels.min() <= labels.max() < clusters
    assert np.array_equal(labels, cluster(points, clusters, seed))
    present = np.unique(labels)
    means = np.stack([points[labels == label].mean(axis=0, dtype=np.float64) for label in present])
    distances = np.linalg.norm(points[:, None] - means, axis=2)
    own = distances[np.arange(len(points)), np.searchsorted(present, labels)]
    assert (own <= distances.min(axis=1) + 1e-2).all()


def test_herding_keeps_the_mean_of_all() -> None:
    angles = np.radians([0, 10, 20, 40, 80])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    (one,) = herd(points, 1)
    assert one == 2, "20 degrees is nearest to the mean direction, 29"
    two = herd(points, 2)
    others = [place for place in range(5) if place != one]
    mean = points.mean(axis=0)
    best = min(others, key=lambda place: float(np.linalg.norm(points[[one, place]].mean(axis=0) - mean)))
    assert two == [one, best]
    assert herd(points * 7, 3) == herd(points, 3), "length plays no part"


def test_the_farthest_point_is_next_after_the_first() -> None:
    points = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0.1], [0.7, 0.7]], np.float32)
    assert farthest(points, 3) == [0, 3, 2]


@quick
@given(any_points(), st.data())
def test_points_are_chosen_once_each_also_where_they_are_equal(
    points: NDArray[np.float32], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(points)))
    for coreset in (herd, farthest):
        chosen = coreset(points, count)
        assert len(set(chosen)) == len(chosen) == count
        assert coreset(points, count) == chosen
