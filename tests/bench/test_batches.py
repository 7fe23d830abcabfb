"""The batch of a reference: the fastest that fits, found without waiting long for a slow network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_ways import FakeWay

from fgdd_bench.harness import batches
from fgdd_bench.harness.batches import CANDIDATES, fastest_batch
from fgdd_bench.harness.ways import Answer, Way
from fgdd_fast.errors import EngineError
from fgdd_fast.images.dataset import SourceImage

IMAGES = tuple(SourceImage(f"a/{index}.png", "a", Path(f"{index}.png")) for index in range(8))


class Clock:
    """Time that passes only where a way computes: so many seconds an image, by its batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.runs: list[tuple[int, int]] = []  # the batch and the number of images of each
        monkeypatch.setattr(batches.time, "perf_counter", lambda: self.now)

    def open(self, batch: int) -> Way:
        if batch not in self.seconds:
            raise EngineError("out of memory")
        clock = self

        class Timed(FakeWay):
            def run(self, images: Sequence[SourceImage]) -> Answer:
                clock.now += clock.seconds[batch] * len(images)
                clock.runs.append((batch, len(images)))
                return {}

        return Timed("fair", {})


@pytest.mark.parametrize(
    ("seconds", "best", "tried"),
    [
        ({1: 0.04, 2: 0.02, 4: 0.021}, 2, [1, 2, 4]),
        ({1: 0.04, 2: 0.03, 4: 0.02}, 4, [1, 2, 4]),
        ({1: 0.04, 2: 0.03}, 2, [1, 2]),
        ({1: 0.02, 2: 0.03, 4: 0.01}, 1, [1, 2]),
    ],
    ids=["the middle", "the largest", "what fits", "no larger one once they are worse"],
)
def test_the_fastest_that_fits(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], best: int, tried: list[int]
) -> None:
    clock = Clock(monkeypatch, seconds)
    assert fastest_batch(clock.open, (1, 2, 4), IMAGES) == best
    assert list(dict.fromkeys(batch for batch, _ in clock.runs)) == tried


def test_none_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {1: 1.0})
    with pytest.raises(EngineError, match="out of memory"):
        fastest_batch(clock.open, (4, 8), IMAGES)


def test_a_fast_way_is_tried_thrice_on_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {1: 0.01, 2: 0.01, 4: 0.01})
    fastest_batch(clock.open, (1, 2, 4), IMAGES)
    assert clock.runs == [(batch, count) for batch in (1, 2, 4) for count in (4, 8, 8, 8)]


def test_a_slow_way_is_tried_on_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, {1: 2.0, 2: 2.0, 4: 2.0})
    fastest_batch(clock.open, (1, 2, 4), IMAGES)
    assert clock.runs == [(batch, 4) for batch in (1, 2, 4) for _ in range(2)]


def test_what_is_tried_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    fastest_batch(Clock(monkeypatch, {1: 0.1, 2: 0.1}).open, (1, 2), IMAGES, told.append)
    assert told == ["trying batches of 1", "trying batches of 2"]


def test_candidates_ascend() -> None:
    for candidates in CANDIDATES.values():
        assert list(candidates) == sorted(set(candidates))
