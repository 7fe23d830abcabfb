"""k-means: known answers, and what holds for any points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from record_strategies import quick

from fgdd_fast.selection.ranking import cluster


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


def test_as_many_clusters_as_points() -> None:
    points = np.arange(6, dtype=np.float32)[:, None] ** 2
    assert len(groups(cluster(points, 6, 0))) == 6


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
