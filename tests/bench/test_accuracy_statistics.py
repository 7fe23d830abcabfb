"""Statistics with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.accuracy.intervals import (
    Interval,
    class_accuracies,
    label_robust_score,
    pack_bits,
    paired_difference,
    resampled_means,
    spread,
    unpack_bits,
)


def constant(*values: float, students: int = 2, images: int = 10) -> list[np.ndarray]:
    """Differences that are the same for all students and images of a selection seed."""
    return [np.full((students, images), value) for value in values]


def test_spread_is_mean_and_sample_deviation() -> None:
    found = spread([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.count) == (2.5, 4)
    assert found.deviation == pytest.approx(math.sqrt(5 / 3))
    assert spread([0.25]).deviation is None


def test_balanced_accuracy_counts_every_class_alike() -> None:
    labels = np.array([0, 0, 0, 0, 2, 2])
    correct = np.array([True, True, True, False, False, True])
    shares = class_accuracies(correct, labels, 3)
    assert shares[[0, 2]] == pytest.approx([0.75, 0.5])
    assert np.isnan(shares[1])


def test_rows_that_never_differ_have_no_interval() -> None:
    found = paired_difference(constant(0.0, 0.0, 0.0))
    assert (found.mean, found.bootstrap, found.small_sample) == (0, Interval(0, 0), Interval(0, 0))
    assert found.bootstrap.side == 0


def test_a_difference_that_is_always_the_same_is_sure() -> None:
    found = paired_difference(constant(0.25, 0.25))
    assert (found.mean, found.ahead, found.selection_seeds) == (0.25, 2, 2)
    assert (found.bootstrap.low, found.bootstrap.high) == pytest.approx((0.25, 0.25))
    assert found.bootstrap.side == 1


def test_three_seeds_alone_give_the_range_and_students_interval() -> None:
    found = paired_difference(constant(0.1, 0.2, 0.3))
    # Two seeds of three are drawn: both the lowest with probability 1/9, more than the tail of 2.5 %.
    assert (found.bootstrap.low, found.bootstrap.high) == pytest.approx((0.1, 0.3))
    reach = 4.3027 * 0.1 / math.sqrt(3)  # t of 0.975 with 2 degrees of freedom
    assert found.small_sample is not None
    assert (found.small_sample.low, found.small_sample.high) == pytest.approx(
        (0.2 - reach, 0.2 + reach), abs=1e-5
    )
    assert (found.bootstrap.side, found.small_sample.side) == (1, 0)


def test_images_alone_give_the_binomial_interval() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 2, 400).astype(float)
    found = paired_difference([np.tile(images, (3, 1))] * 4, resamples=4000)
    reach = 1.966 * images.std(ddof=1) / 20
    assert found.bootstrap.high - found.bootstrap.low == pytest.approx(2 * reach, rel=0.05)
    assert found.small_sample is not None
    assert found.small_sample.high - found.small_sample.low == pytest.approx(2 * reach, rel=0.01)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_resampling_few_seeds_has_the_variance_of_the_mean(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=seeds)
    means = resampled_means(constant(*values), resamples=20_000, seed=0)
    assert means.mean() == pytest.approx(values.mean(), abs=0.02)
    assert means.std() == pytest.approx(values.std(ddof=1) / math.sqrt(seeds), rel=0.03)


def test_training_seeds_are_resampled_within_a_selection_seed() -> None:
    parts = [np.repeat(np.array([[0.0], [1.0]]), 5, axis=1), np.full((3, 5), 0.5)]
    means = resampled_means(parts, resamples=8_000, seed=0)
    # One selection seed is drawn; of the first, one of its two students.
    shares = {value: float((means == value).mean()) for value in (0.0, 0.5, 1.0)}
    assert shares == pytest.approx({0.0: 0.25, 0.5: 0.5, 1.0: 0.25}, abs=0.02)


def test_measures_of_dd_ranking() -> None:
    assert label_robust_score(1.0, -1.0) == pytest.approx(1)
    assert label_robust_score(-1.0, 1.0) == pytest.approx(0)
    assert label_robust_score(0.0, 0.0) == pytest.approx((1 - math.exp(-1)) / (math.e - math.exp(-1)))
    assert (
        label_robust_score(0.2, 0.6, weight=1)
        > label_robust_score(0.2, 0.6)
        > label_robust_score(0.2, 0.6, 0)
    )


@given(st.lists(st.booleans(), max_size=40))
def test_bits_come_back(bits: list[bool]) -> None:
    assert unpack_bits(pack_bits(np.array(bits, np.bool_)), len(bits)).tolist() == bits


@pytest.mark.parametrize("text", ["AAAA", "", "?", "A"])
def test_bits_of_another_length_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unpack_bits(text, 12)
