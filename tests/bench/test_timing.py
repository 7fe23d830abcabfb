"""Statistics with known answers: spreads, ratios within turns, latencies, and what bounds a pipeline."""

from __future__ import annotations

import time
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_bench.harness import timing
from fgdd_bench.harness.timing import (
    Spread,
    StageTimes,
    overlap,
    processor_ratios,
    ratios,
    spread,
    time_stage,
)
from fgdd_bench.harness.ways import Stage
from fgdd_bench.machine.resources import Sample

POSITIVE = st.floats(1e-6, 1e6)


def samples(*seconds: float) -> list[Sample]:
    return [Sample(value, value) for value in seconds]


def test_a_ratio_is_taken_within_its_turn() -> None:
    # a slow spell in the second turn meets both
    found = ratios(samples(4, 40, 6), samples(2, 20, 2))
    assert found == (2, 2, 3)
    assert spread(found) == Spread(2, 2, 3)
    of_processor = processor_ratios([Sample(1, 3), Sample(1, 8)], [Sample(9, 1), Sample(9, 2)])
    assert of_processor == (3, 4)


@given(st.lists(POSITIVE, min_size=1, max_size=9))
def test_the_spread_holds_the_median(values: list[float]) -> None:
    found = spread(values)
    assert found.lowest == min(values) <= found.median <= found.highest == max(values)
    assert found.median == pytest.approx(np.median(values))


@given(st.lists(POSITIVE, min_size=1, max_size=200), st.integers(1, 8))
def test_latencies_are_percentiles_of_the_calls(seconds: list[float], images: int) -> None:
    stage = StageTimes("teacher", tuple(seconds), 1, images, 1)
    for percentile in (50, 90, 99):
        assert stage.latency(percentile) == pytest.approx(np.percentile(seconds, percentile))
    assert stage.images_per_second_per_core == pytest.approx(images * len(seconds) / sum(seconds))


def test_a_rate_a_core_is_shared_by_the_threads_that_a_call_keeps_busy() -> None:
    one, two = (StageTimes("teacher", (0.5, 0.5), 1, 4, threads) for threads in (1, 2))
    assert one.images_per_second_per_core == 8
    assert two.images_per_second_per_core == 4


def test_a_stage_is_run_call_by_call_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "FEWEST_CALLS", 7)
    calls: list[int] = []
    found = time_stage(Stage("decode", calls.append, 3, 2, 1))
    assert calls == [0, *[0, 1, 2] * 3]  # passes are whole, and go on until there are calls enough
    assert len(found.seconds) == 9
    assert found.passes == 3
    assert found.seconds_a_pass == pytest.approx(sum(found.seconds) / 3)


def test_a_slow_stage_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    found = time_stage(Stage("decode", lambda _: None, 8, 1, 1))  # every call takes a second
    assert found.seconds == (1,) * 8
    assert found.passes == 1


def test_the_stage_that_needs_most_bounds_the_whole() -> None:
    stages = [
        StageTimes("decode", (0.1,) * 10, 1, 1, 1),
        StageTimes("teacher", (1.5,) * 4, 2, 5, 2),  # two passes of two calls on two threads: 3 s
        StageTimes("write", (0.2,), 1, 10, 1),
    ]
    found = overlap(stages, wall=4.0, threads=2)
    assert (found.bound_by, found.bound_seconds) == ("teacher", 3)
    assert found.busy == pytest.approx((1 + 2 * 3 + 0.2) / (2 * 4))
    assert found.device_busy is None


def test_a_gpu_is_one_that_works_beside_the_threads() -> None:
    stages = [StageTimes("decode", (0.5,) * 10, 1, 1, 1), StageTimes("teacher", (0.2,) * 10, 1, 1, 1)]
    on_processor = overlap(stages, wall=5.0, threads=4)
    assert on_processor.bound_by == "decode"
    found = overlap(stages, wall=2.5, threads=4, on_device={"teacher"})
    assert (found.bound_by, found.bound_seconds) == ("teacher", pytest.approx(2))
    assert found.busy == pytest.approx(5 / (4 * 2.5))
    assert found.device_busy == pytest.approx(2 / 2.5)


def test_stages_of_one_name_count_together() -> None:
    stages = [
        StageTimes("preprocess", (0.3,), 1, 1, 1),
        StageTimes("teacher", (0.5,), 1, 1, 1),
        StageTimes("preprocess", (0.3,), 1, 1, 1),
    ]
    assert overlap(stages, wall=1.1, threads=1).bound_by == "preprocess"


def test_without_stages_nothing_bounds() -> None:
    assert overlap([], wall=1.0, threads=1).bound_by is None
