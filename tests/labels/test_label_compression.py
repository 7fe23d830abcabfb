"""Logits as they are kept: how far they are from what the teacher gave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fgdd_fast.errors import SettingsError, TeacherError
from fgdd_fast.labels.compression import Compression, cost, parse_compression

LOGITS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(4, 12)), elements=st.floats(-60, 60, width=32)
)


def kept(logits: np.ndarray, how: str) -> np.ndarray:
    compression = parse_compression(how)
    return compression.unpack(compression.pack(logits), logits.shape[1])


def probabilities(logits: np.ndarray, temperature: float = 20.0) -> np.ndarray:
    scores = np.exp(logits.astype(np.float64) / temperature)
    return scores / scores.sum(axis=1, keepdims=True)


@given(logits=LOGITS)
def test_float16_rounds(logits: np.ndarray) -> None:
    assert np.array_equal(kept(logits, "float16"), logits.astype(np.float16).astype(np.float32))


@given(logits=LOGITS)
def test_int8_is_off_by_half_a_step(logits: np.ndarray) -> None:
    ranges = np.ptp(logits, axis=1, keepdims=True)
    rounding = np.abs(logits).max() * 2.0**-11 + 2.0**-24  # of the lowest logit, and of the step
    assert (np.abs(kept(logits, "int8") - logits) <= ranges / 255 * 0.63 + rounding + 255 * 2.0**-25).all()


@given(logits=LOGITS, count=st.integers(1, 3))
def test_the_greatest_keep_their_probabilities(logits: np.ndarray, count: int) -> None:
    found = kept(logits, f"top:{count}")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    wanted, got = probabilities(logits), probabilities(found)
    np.testing.assert_allclose(
        np.take_along_axis(got, best, axis=1), np.take_along_axis(wanted, best, axis=1), rtol=3e-3
    )
    for row, order in zip(found, best, strict=True):
        assert len(set(np.delete(row, order).tolist())) == 1, "the others are alike"


def test_a_known_cost() -> None:
    teacher = np.array([[0.0, 0.0], [20.0 * np.log(3), 0.0]], np.float32)
    same, uniform = cost(teacher, teacher), cost(teacher, np.zeros_like(teacher))
    assert same.divergence == 0
    assert same.agreement == 1
    # The second row's probabilities at T = 20 are 3/4 and 1/4; the first row's are uniform.
    expected = (0.75 * np.log(1.5) + 0.25 * np.log(0.5)) / 2
    assert uniform.divergence == pytest.approx(expected, rel=1e-6)
    assert uniform.information == pytest.approx(expected, rel=1e-6)
    assert cost(teacher, teacher[:, ::-1].copy()).agreement == 0.5


def test_each_way_costs_what_its_bytes_say() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (200, 100)).astype(np.float32)
    sizes, costs = {}, {}
    for how in ("float16", "int8", "top:20", "top:5"):
        compression = parse_compression(how)
        sizes[how] = sum(array.nbytes for array in compression.pack(logits).values()) / len(logits)
        costs[how] = cost(logits, kept(logits, how))
    assert sizes == {"float16": 200, "int8": 104, "top:20": 62, "top:5": 17}
    assert costs["float16"].divergence < costs["int8"].divergence < costs["top:20"].divergence
    assert costs["top:20"].divergence < costs["top:5"].divergence < costs["top:5"].information
    assert costs["float16"].divergence < 1e-8
    assert costs["int8"].divergence < 1e-6
    assert costs["top:5"].agreement > 0.98


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 70000.0])
@pytest.mark.parametrize("how", ["float16", "int8", "top:1"])
def test_logits_that_cannot_be_kept_are_refused(value: float, how: str) -> None:
    with pytest.raises(TeacherError, match="not finite"):
        parse_compression(how).pack(np.array([[0, 1, value]], np.float32))


@pytest.mark.parametrize("how", ["float16", "int8", "top:7"])
def test_names_read_back(how: str) -> None:
    assert str(parse_compression(how)) == how


@pytest.mark.parametrize("how", ["", "fp16", "top", "top:", "top:0", "top:-1", "top:x", "int8:3", "TOP:3"])
def test_other_names_are_refused(how: str) -> None:
    with pytest.raises(SettingsError, match="no compression"):
        parse_compression(how)


def test_a_compression_that_leaves_nothing_out_is_refused() -> None:
    Compression("top", 9).check(10)
    with pytest.raises(SettingsError, match="keeps all logits of 10"):
        Compression("top", 10).check(10)


@pytest.mark.parametrize("how", ["float16", "int8", "top:2"])
def test_arrays_for_other_classes_are_refused(how: str) -> None:
    compression = parse_compression(how)
    arrays = compression.pack(np.array([[0, 1, 2, 3, 9]], np.float32))
    with pytest.raises((ValueError, IndexError)):
        compression.unpack(arrays, 3)
    with pytest.raises(KeyError):
        compression.unpack({}, 5)
