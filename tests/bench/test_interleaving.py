"""Ways take turns in a balanced order, warm-ups do not count, and nothing collects garbage meanwhile."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_bench.harness import interleaving
from fgdd_bench.harness.interleaving import MOST_WARM_UPS, interleave, time_run, turn_orders
from fgdd_bench.machine.resources import Sample


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[float]]], list[str]]:
    """Replace the clock: the n-th run of a way takes what is listed, and the last of it from then on."""

    def install(seconds: dict[str, list[float]]) -> list[str]:
        ran: list[str] = []

        def fake(run: Callable[[], str]) -> tuple[Sample, str]:
            name = run()
            times = seconds[name.split()[0]]
            ran.append(name.split()[0])
            return Sample(times[min(ran.count(ran[-1]), len(times)) - 1], 0.5), name

        monkeypatch.setattr(interleaving, "time_run", fake)
        return ran

    return install


def ignore(name: str, counts: bool) -> None:
    """Progress that nobody follows."""


@given(st.integers(1, 7), st.integers(1, 40))
def test_every_turn_has_every_way_once(ways: int, turns: int) -> None:
    orders = list(turn_orders(ways, turns))
    assert len(orders) == turns
    assert all(sorted(order) == list(range(ways)) for order in orders)


@pytest.mark.parametrize("ways", [2, 3, 4, 5, 6])
def test_every_way_comes_at_every_place_and_follows_every_other_equally_often(ways: int) -> None:
    rows = ways if ways % 2 == 0 else 2 * ways
    orders = list(turn_orders(ways, rows))
    places = Counter((way, place) for order in orders for place, way in enumerate(order))
    followers = Counter(pair for order in orders for pair in pairwise(order))
    assert set(places.values()) == {rows // ways}
    assert len(followers) == ways * (ways - 1)
    assert len(set(followers.values())) == 1


def test_two_ways_alternate() -> None:
    assert list(turn_orders(2, 4)) == [(0, 1), (1, 0), (0, 1), (1, 0)]


def test_warm_ups_come_first_and_do_not_count(timed: Callable[[dict[str, list[float]]], list[str]]) -> None:
    # a is steady from its second run on, b only from its third, c never
    ran = timed({"a": [9, 1, 1.05], "b": [9, 2, 2.1, 2], "c": [9, 3, 6, 3, 6, 3, 6]})
    told: list[tuple[str, bool]] = []
    found = interleave(
        {name: lambda name=name: name for name in "abc"},  # type: ignore[misc]
        3,
        digest=str,
        advance=lambda name, counts: told.append((name, counts)),
    )
    assert ran[:9] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert [len(found[name].warm_ups) for name in "abc"] == [3, 3, MOST_WARM_UPS]
    assert [[sample.seconds for sample in found[name].samples] for name in "abc"] == [
        [1.05] * 3,
        [2] * 3,
        [3, 6, 3],
    ]
    assert [(name, counts) for name, counts in told if counts] == [(name, True) for name in ran[9:]]
    assert len(told) == len(ran)


def test_a_steady_way_warms_up_twice(timed: Callable[[dict[str, list[float]]], list[str]]) -> None:
    ran = timed({"a": [1, 1.09]})
    assert len(interleave({"a": lambda: "a"}, 1, digest=str, advance=ignore)["a"].warm_ups) == 2
    assert len(ran) == 3


def test_the_answer_is_that_of_the_last_turn_and_others_are_noticed() -> None:
    answers = iter(range(100))
    found = interleave({"same": lambda: 0, "other": lambda: next(answers)}, 4, digest=str, advance=ignore)
    assert found["same"].repeatable
    assert not found["other"].repeatable
    assert found["other"].answer == len(found["other"].warm_ups) + 4 - 1
    assert found["same"].memory.process > 1e6


def test_no_garbage_is_collected_while_a_way_runs() -> None:
    sample, enabled = time_run(gc.isenabled)
    assert enabled is False
    assert gc.isenabled()
    assert sample.seconds >= 0
    with pytest.raises(ZeroDivisionError):
        time_run(lambda: 1 / 0)
    assert gc.isenabled()
