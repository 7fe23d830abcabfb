"""Turns, statistics with known answers, the references' batch, and a path that is measured whole."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from fake_implementations import TASK, Fake, FakeOpener, answer
from hypothesis import given
from hypothesis import strategies as st

from fgdd_bench.harness import opening, timing
from fgdd_bench.harness.bench import LIMIT, PathMeasurement, answer_digest, measure_path
from fgdd_bench.harness.implementation import (
    Answer,
    Implementation,
    PathName,
    ReferenceName,
    Stage,
    Step,
    as_stages,
    groups,
    run_steps,
)
from fgdd_bench.harness.opening import fastest_batch
from fgdd_bench.harness.subject import choose_originals, draw_plan
from fgdd_bench.harness.timing import (
    MOST_WARM_UPS,
    StageTimes,
    interleave,
    overlap,
    ratios,
    time_run,
    time_stage,
    turn_orders,
)
from fgdd_bench.machine.processes import variable
from fgdd_bench.machine.resources import Sample
from fgdd_fast.errors import DataError, EngineError
from fgdd_fast.images.dataset import SourceImage, scan

SECONDS = {"ours": 0.01, "fair": 0.03, "published": 0.06}
REFERENCES: tuple[ReferenceName, ...] = ("published", "fair")
IMAGES = tuple(SourceImage(f"a/{index}.png", "a", Path(f"{index}.png")) for index in range(8))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_everyone_comes_at_every_place_and_follows_every_other_equally_often(count: int) -> None:
    rows = count if count % 2 == 0 else 2 * count
    orders = list(turn_orders(count, rows))
    assert all(sorted(order) == list(range(count)) for order in orders)
    places = Counter((one, place) for order in orders for place, one in enumerate(order))
    followers = Counter(pair for order in orders for pair in pairwise(order))
    assert set(places.values()) == {rows // count}
    assert len(followers) == count * (count - 1)
    assert len(set(followers.values())) <= 1


def test_warm_ups_come_first_and_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    # a is steady from its second run on, b only from its third, c never
    seconds = {"a": [9.0, 1, 1.05], "b": [9.0, 2, 2.1, 2], "c": [9.0, 3, 6, 3, 6, 3, 6]}
    ran: list[str] = []

    def fake(run: Callable[[], str]) -> tuple[Sample, str]:
        ran.append(run())
        times = seconds[ran[-1]]
        return Sample(times[min(ran.count(ran[-1]), len(times)) - 1], 0.5), ran[-1]

    monkeypatch.setattr(timing, "time_run", fake)
    counted: list[int] = []
    found = interleave(
        {name: lambda name=name: name for name in "abc"},  # type: ignore[misc]
        3,
        digest=str,
        advance=lambda: counted.append(1),
    )
    assert ran[:9] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert [len(found[name].warm_ups) for name in "abc"] == [3, 3, MOST_WARM_UPS]
    assert [sample.seconds for sample in found["c"].samples] == [3, 6, 3]
    assert len(counted) == 9


def test_no_garbage_is_collected_while_something_runs_and_then_all_is_as_before() -> None:
    answers = iter(range(100))
    found = interleave({"same": lambda: 0, "other": lambda: next(answers)}, 2, digest=str)
    assert (found["same"].repeatable, found["other"].repeatable) == (True, False)
    assert time_run(gc.isenabled)[1] is False
    with pytest.raises(ZeroDivisionError):
        time_run(lambda: 1 / 0)
    assert gc.isenabled()
    gc.disable()
    try:
        time_run(lambda: None)
        assert not gc.isenabled()  # as it was found
    finally:
        gc.enable()


def test_an_environment_variable_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FGDD_TRIED", raising=False)
    with variable("FGDD_TRIED", "new"):
        with variable("FGDD_TRIED", "newer"):
            assert os.environ["FGDD_TRIED"] == "newer"
        assert os.environ["FGDD_TRIED"] == "new"
    assert "FGDD_TRIED" not in os.environ


def test_ratios_are_taken_within_a_turn() -> None:
    baseline, own = ([Sample(value, 2 * value) for value in values] for values in ((4, 40, 6), (2, 20, 2)))
    assert ratios(baseline, own) == ratios(baseline, own, "processor_seconds") == [2, 2, 3]


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200), st.integers(1, 8))
def test_latencies_are_percentiles_of_the_calls(seconds: list[float], images: int) -> None:
    stage = StageTimes("teacher", tuple(seconds), 1, images, 2)
    assert stage.latency(90) == pytest.approx(np.percentile(seconds, 90))
    assert stage.images_per_second_per_core == pytest.approx(images * len(seconds) / sum(seconds) / 2)


def test_a_stage_is_run_call_by_call_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "FEWEST_CALLS", 7)
    calls: list[int] = []
    found = time_stage(Stage("decode", calls.append, 3, 2, 1))
    assert calls == [0, *[0, 1, 2] * 3]  # passes are whole, and go on until there are calls enough
    assert (len(found.seconds), found.passes) == (9, 3)


def test_the_stage_that_needs_most_bounds_the_whole() -> None:
    stages = [
        StageTimes("decode", (0.1,) * 10, 1, 1, 1),
        StageTimes("teacher", (1.5,) * 4, 2, 5, 2),  # two passes of two calls on two threads: 3 s
        StageTimes("write", (0.2,), 1, 10, 1),
    ]
    found = overlap(stages, wall=4.0, threads=2)
    assert (found["bound_by"], found["bound_seconds"], found["device_busy"]) == ("teacher", 3, None)
    assert found["busy"] == pytest.approx((1 + 2 * 3 + 0.2) / (2 * 4))
    on_gpu = overlap(stages, wall=4.0, threads=2, on_device={"teacher"})
    assert (on_gpu["device_busy"], on_gpu["busy"]) == (pytest.approx(0.75), pytest.approx(1.2 / 8))
    assert overlap([], wall=1.0, threads=1)["bound_by"] is None


def test_stages_make_what_the_whole_makes() -> None:
    steps = (
        Step("read", lambda item, _: [item]),
        Step("decode", lambda item, value: [*value, 2 * item], threads=3),
        Step("write", lambda item, value: (item, sum(value))),
    )
    stages, last = as_stages(steps, [1, 5], images=4)
    assert last == [run_steps(steps, item) for item in (1, 5)] == [(1, 3), (5, 15)]
    assert [[stage.run(index) for index in (0, 1)] for stage in stages][1] == [[1, 2], [5, 10]]
    assert groups(5, 2) == [[0, 1], [2, 3], [4, 0]]


@pytest.mark.parametrize(
    ("seconds", "best", "tried"),
    [
        ({1: 0.04, 2: 0.02, 4: 0.021}, 2, [1, 2, 4]),
        ({1: 0.04, 2: 0.03}, 2, [1, 2]),
        ({1: 0.02, 2: 0.03, 4: 0.01}, 1, [1, 2]),
        ({1: 2.0, 2: 2.0, 4: 2.0}, 1, [1, 2, 4]),
    ],
    ids=["the middle", "what fits", "no larger one once they are worse", "a slow one on few images"],
)
def test_the_fastest_batch_that_fits(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], best: int, tried: list[int]
) -> None:
    now, runs = [0.0], list[tuple[int, int]]()
    monkeypatch.setattr(opening.time, "perf_counter", lambda: now[0])

    def open_batch(batch: int) -> Implementation:
        if batch not in seconds:
            raise EngineError("out of memory")

        class Timed(Fake):
            def run(self, images: Sequence[SourceImage]) -> Answer:
                now[0] += seconds[batch] * len(images)
                runs.append((batch, len(images)))
                return {}

        return Timed("fair", {})

    assert fastest_batch(open_batch, (1, 2, 4), IMAGES) == best
    assert list(dict.fromkeys(batch for batch, _ in runs)) == tried
    assert (max(count for _, count in runs) == 4) == (seconds[1] == 2.0)
    with pytest.raises(EngineError, match="out of memory"):
        fastest_batch(open_batch, (8, 16), IMAGES)


def test_images_come_from_all_classes_alike_and_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    data = tiny.write_squares(tmp_path / "data", 6)
    (data / "red" / "03.png").write_bytes(b"\x89PNG and no more")
    found, skipped = choose_originals(scan(data), 17, seed=0)
    assert (len(found), [item.source for item in skipped]) == (17, ["red/03.png"])
    counts = Counter(original.image.class_name for original in choose_originals(scan(data), 8, seed=1)[0])
    assert sorted(counts.values()) == [2, 3, 3]
    plan = draw_plan(found, TASK)
    tiles = [tile for _, mosaic in plan.mosaics for tile in mosaic.tiles]
    assert len(tiles) == len(set(tiles)) == 12  # of each class one mosaic of four tiles
    (tmp_path / "none" / "red").mkdir(parents=True)
    with pytest.raises(DataError):
        choose_originals(scan(tmp_path / "none"), 3, seed=0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "FEWEST_CALLS", 1)
    monkeypatch.setattr(gc, "collect", lambda: None)  # long where other tests have loaded much


def measure(opener: FakeOpener, path: PathName = "teacher") -> PathMeasurement:
    return measure_path(path, opener, REFERENCES, repeats=2)  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick")
def test_everyone_runs_in_every_turn_and_is_closed() -> None:
    opener, threads = FakeOpener(SECONDS), cv2.getNumThreads()
    found = measure(opener)
    assert list(found.implementations) == ["ours", "published", "fair"]
    ours = found.implementations["ours"]
    for name in REFERENCES:
        for one, other in zip(ours.timed.samples, found.implementations[name].timed.samples, strict=True):
            assert other.seconds > 1.5 * one.seconds
    fp32, *others = opener.opened
    assert fp32.runs == 1  # for its answer alone
    for one in others:
        assert one.runs == 2 + len(found.implementations[one.name].timed.warm_ups)
    assert all(one.closed for one in opener.opened)
    assert (found.images, found.failures, cv2.getNumThreads()) == (16, (), threads)
    assert [comparison.against for comparison in found.comparisons] == ["fp32", "published", "fair"]
    assert measure(FakeOpener(SECONDS), "compose").images == 2 * TASK.factor**2


@pytest.mark.usefixtures("quick")
def test_decoding_takes_turns_with_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdd_bench.harness.bench.opencv_decoding", lambda files, threads: lambda: {})
    found = measure(FakeOpener(SECONDS), "decode")
    assert found.limit is not None
    assert len(found.limit.samples) == 2
    assert LIMIT not in found.implementations


@pytest.mark.usefixtures("quick")
def test_an_answer_that_differs_is_found() -> None:
    for name in ("ours", "fp32", "fair"):
        found = measure(FakeOpener(SECONDS, {name: answer("teacher", seed=1)}))
        against = {failure.split(" against ")[1].split(" ")[0] for failure in found.failures}
        assert against == ({"fp32", "published", "fair"} if name == "ours" else {name})
    one, other = answer("all"), answer("all")
    assert answer_digest(one) == answer_digest(dict(reversed(other.items())))
    other["losses"][3, 1] = np.nextafter(other["losses"][3, 1], np.float32(9))
    assert answer_digest(one) != answer_digest(other)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_nothing_open(error: type[BaseException]) -> None:
    class Failing(Fake):
        def run(self, images: Sequence[SourceImage]) -> Answer:
            raise error

    class Opener(FakeOpener):
        def open(self, path: PathName, name: object) -> Implementation:
            if name == "fair":
                self.opened.append(Failing("fair", answer(path)))
                return self.opened[-1]
            return super().open(path, name)  # type: ignore[arg-type]

    opener = Opener(SECONDS)
    with pytest.raises(error):
        measure(opener)
    assert len(opener.opened) == 4
    assert all(one.closed for one in opener.opened)
