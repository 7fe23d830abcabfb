from __future__ import annotations

import math
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdd_export.precision.sensitive_nodes import find_sensitive
from fgdd_fast.errors import BundleError

quick = settings(max_examples=60, deadline=None)


def names(count: int) -> list[str]:
    return [f"node {index}" for index in range(count)]


@st.composite
def sensitive_sets(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    candidates = names(draw(st.integers(1, 300)))
    sensitive = draw(st.sets(st.sampled_from(candidates), min_size=1, max_size=4))
    return candidates, [name for name in candidates if name in sensitive]


@quick
@given(sensitive_sets(), st.sampled_from([math.inf, math.nan, 10.0]))
def test_sensitive_nodes_are_found_exactly(sets: tuple[list[str], list[str]], harm: float) -> None:
    candidates, sensitive = sets
    found = find_sensitive(candidates, lambda kept: 0.0 if set(sensitive) <= set(kept) else harm, bar=1.0)
    assert list(found.nodes) == sensitive
    assert found.error == 0
    halvings = math.ceil(math.log2(len(candidates))) if len(candidates) > 1 else 0
    assert found.evaluations <= 2 + 2 * halvings * len(sensitive)


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.9))
def test_where_errors_add_up_no_node_is_kept_in_vain(harms: list[float], share: float) -> None:
    harm_of = dict(zip(names(len(harms)), harms, strict=True))

    def error(kept: Collection[str]) -> float:
        return math.fsum(harm for name, harm in harm_of.items() if name not in kept)

    bar = share * sum(harms)
    found = find_sensitive(list(harm_of), error, bar, evaluations=10_000)
    assert found.error == error(found.nodes) <= bar
    for name in found.nodes:
        assert error([other for other in found.nodes if other != name]) > bar


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(2, 20))
def test_evaluations_are_bounded_and_the_bar_is_held(harms: list[float], limit: int) -> None:
    candidates, calls = names(len(harms)), 0
    harm_of = dict(zip(candidates, harms, strict=True))

    def error(kept: Collection[str]) -> float:
        nonlocal calls
        calls += 1
        return sum(harm for name, harm in harm_of.items() if name not in kept)

    found = find_sensitive(candidates, error, bar=sum(harms) / 3, evaluations=limit)
    assert calls == found.evaluations <= limit
    assert found.error <= sum(harms) / 3
    again = find_sensitive(candidates, error, bar=sum(harms) / 3, evaluations=limit)
    assert again == found


def test_nothing_is_kept_where_the_bar_is_passed() -> None:
    found = find_sensitive(names(5), lambda kept: 0.5, bar=0.5)
    assert (found.nodes, found.error, found.evaluations) == ((), 0.5, 1)


@pytest.mark.parametrize("candidates", [names(5), []])
def test_a_bar_out_of_reach_is_told(candidates: list[str]) -> None:
    with pytest.raises(BundleError, match=r"the error is 2, and at most 0\.5 will do"):
        find_sensitive(candidates, lambda kept: 2.0, bar=0.5)
