"""Figures of decisions: known answers, and what is accepted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fgdd_fast.runtime.tolerances import (
    TOLERANCES,
    Floats,
    ParityReport,
    Tolerance,
    feature_figures,
    loss_figures,
    occupancy_figures,
    rank_correlation,
    same_path,
)


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def test_occupancies_of_ten_images() -> None:
    expected = np.linspace(0.05, 0.95, 10, dtype=np.float32)
    found = expected.copy()
    found[[0, 9]] = found[[9, 0]]  # the emptiest and the fullest image change places
    figures = occupancy_figures(expected, found)
    assert figures["mean_occupancy_error"] == pytest.approx(0.18)
    assert figures["largest_occupancy_error"] == pytest.approx(0.9)
    assert figures["same_path"] == pytest.approx(0.8)


def test_images_without_any_foreground_prove_nothing() -> None:
    nothing = np.zeros(5, np.float32)
    parity = ParityReport(occupancy_figures(nothing, nothing), "lower precision", 5)
    assert not parity.accepted
    assert "with foreground is 0" in parity.shortfalls[0]


def test_an_image_at_the_threshold_may_take_either_path() -> None:
    expected = floats(0.1, 0.3, 0.301, 0.8, 0.9)
    found = floats(0.1, 0.301, 0.3, 0.8, 0.9)
    assert same_path(expected, found).all()


@given(
    arrays.arrays(np.float32, st.integers(2, 30), elements=st.floats(0, 1, width=32, allow_subnormal=False)),
    st.floats(0.125, 1, width=32),
)
def test_a_scale_of_all_occupancies_changes_no_path(occupancies: Floats, scale: float) -> None:
    assert same_path(occupancies, occupancies * np.float32(scale)).all()


def test_losses_of_two_images() -> None:
    expected = np.array([[5, 1.0, 2.0, 3.0], [5, 2.0, 1.0, 1.01]], np.float32)
    found = np.array([[5, 2.5, 2.0, 3.0], [5, 2.0, 1.0, 0.9]], np.float32)
    figures = loss_figures(expected, found)
    assert figures["same_crop"] == 0.0  # the second image's choice is another one, but as good
    assert figures["same_or_near_crop"] == 0.5
    assert figures["mean_regret"] == pytest.approx((1.0 + 0.01) / 2, abs=1e-6)
    assert figures["largest_loss_error"] == pytest.approx(1.5)
    assert figures["mean_loss_error"] == pytest.approx((1.5 + 0.11) / 8, abs=1e-6)


def test_rank_correlation_of_known_rows() -> None:
    row = floats(3, 1, 4, 1.5, 9)
    assert rank_correlation(row, row * 2 + 1) == 1.0
    assert rank_correlation(row, -row) == pytest.approx(-1.0)
    # Spearman's 1 - 6 * sum(d^2) / (n (n^2 - 1)) with ranks 1 2 3 4 and 2 1 4 3
    assert rank_correlation(floats(1, 2, 3, 4), floats(2, 1, 4, 3)) == pytest.approx(0.6)
    assert rank_correlation(floats(1, 1, 1), floats(1, 2, 3)) == 0.0
    assert np.isnan(rank_correlation(floats(1, 2), floats(1, np.nan)))


def test_features_at_right_angles_and_along_one_another() -> None:
    one, other = np.array([[[1, 0], [2, 2]], [[0, 3], [1, 1]]], np.float32)
    assert feature_figures(one, other)["mean_cosine_distance"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("figures", "excess", "shortfalls"),
    [
        (
            {"mean_occupancy_error": 0.02, "same_path": 1.0, "same_crop": 0.0},
            2.0,
            ("mean occupancy error is 0.02 (at most 0.01 is accepted)",),
        ),
        ({"mean_occupancy_error": 0.005, "same_path": 1.0}, 0.5, ()),
        ({"same_path": 0.95}, 1.0, ()),
        ({"mean_regret": 0.02}, 1.0, ()),
        ({"same_crop": 0.0}, 0.0, ()),
        (
            {"mean_regret": float("nan")},
            float("inf"),
            ("mean regret is nan (at most 0.02 is accepted)",),
        ),
    ],
)
def test_what_falls_short_is_named_with_its_bar(
    figures: dict[str, float], excess: float, shortfalls: tuple[str, ...]
) -> None:
    parity = ParityReport(figures, "lower precision", 9)
    assert parity.excess == pytest.approx(excess)
    assert (parity.accepted, parity.shortfalls) == (not shortfalls, shortfalls)


def test_the_same_arithmetic_is_held_to_stricter_bars() -> None:
    figures = {"mean_occupancy_error": 0.005, "same_path": 1.0}
    assert not ParityReport(figures, "same arithmetic", 9).accepted
    assert TOLERANCES["same arithmetic"].keys() == TOLERANCES["lower precision"].keys()
    assert not Tolerance(0.5, at_least=True).met_by(float("nan"))
