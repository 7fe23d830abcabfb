"""Steps of the benchmarks' ways: in one go and stage by stage they make the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fgdd_bench.harness.steps import Step, as_stages, groups, run_steps

STEPS = (
    Step("read", lambda item, _: [item]),
    Step("decode", lambda item, value: [*value, 2 * item], threads=3),
    Step("write", lambda item, value: (item, sum(value))),
)


def test_stages_make_what_the_whole_makes() -> None:
    stages, last = as_stages(STEPS, [1, 5, 7], images=4)
    assert last == [run_steps(STEPS, item) for item in (1, 5, 7)] == [(1, 3), (5, 15), (7, 21)]
    assert [(stage.name, stage.calls, stage.images, stage.threads) for stage in stages] == [
        ("read", 3, 4, 1),
        ("decode", 3, 4, 3),
        ("write", 3, 4, 1),
    ]
    assert [[stage.run(index) for index in range(stage.calls)] for stage in stages] == [
        [[1], [5], [7]],
        [[1, 2], [5, 10], [7, 14]],
        [(1, 3), (5, 15), (7, 21)],
    ]


def test_stages_go_on_from_what_was_made_before() -> None:
    stages, last = as_stages(STEPS[1:], [2], inputs=[[40]])
    assert last == [(2, 44)]
    assert stages[0].run(0) == [40, 4]


@given(st.integers(1, 40), st.integers(1, 70))
def test_groups_are_whole_and_cover_everything_in_order(count: int, size: int) -> None:
    found = groups(count, size)
    indices = [index for group in found for index in group]
    assert all(len(group) == size for group in found)
    assert indices[:count] == list(range(count))
    assert set(indices) == set(range(count))
    assert len(indices) < count + size
