"""Time several ways in turns, so that slow spells of the machine meet all of them alike."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from fgdd_bench.machine.resources import Memory, Meter, Sample, forget_peak, peak_memory

T = TypeVar("T")

MOST_WARM_UPS = 3
STEADY = 0.1  # two runs whose times differ by less are warm


@dataclass(frozen=True)
class Timed(Generic[T]):
    """The runs of one way.

    Attributes:
        warm_ups: runs that do not count.
        samples: one for each turn.
        answer: of the last turn.
        repeatable: whether the answers of all turns were the same, bit by bit.
        memory: in use at the most during the samples.
    """

    warm_ups: tuple[Sample, ...]
    samples: tuple[Sample, ...]
    answer: T
    repeatable: bool
    memory: Memory


@dataclass
class _Lane(Generic[T]):
    """What is known of one way so far."""

    run: Callable[[], T]
    warm_ups: list[Sample]
    samples: list[Sample]
    digests: set[str]
    peaks: list[Memory]
    answer: T

    def timed(self) -> Timed[T]:
        devices = [peak.device for peak in self.peaks if peak.device is not None]
        memory = Memory(
            max(peak.process for peak in self.peaks),
            max(peak.children for peak in self.peaks),
            max(devices, default=None),
        )
        return Timed(tuple(self.warm_ups), tuple(self.samples), self.answer, len(self.digests) == 1, memory)


def interleave(
    runs: Mapping[str, Callable[[], T]],
    turns: int,
    *,
    digest: Callable[[T], str],
    advance: Callable[[str, bool], None],
) -> dict[str, Timed[T]]:
    """Warm each way up, then run all of them in every turn.

    Args:
        runs: a whole run of each way, by name.
        turns: at least 1.
        digest: of an answer; equal for equal ones.
        advance: told, after each run, whose it was, and whether it counts.
    """
    lanes: dict[str, _Lane[T]] = {}
    for name, run in runs.items():
        warm_ups, answer = _warm_up(run, partial(advance, name, False))
        lanes[name] = _Lane(run, warm_ups, [], set(), [], answer)
    names = list(runs)
    for order in turn_orders(len(names), turns):
        for place in order:
            lane = lanes[names[place]]
            forget_peak()
            sample, lane.answer = time_run(lane.run)
            lane.samples.append(sample)
            lane.peaks.append(peak_memory())
            lane.digests.add(digest(lane.answer))
            advance(names[place], True)
    return {name: lane.timed() for name, lane in lanes.items()}


def _warm_up(run: Callable[[], T], advance: Callable[[], None]) -> tuple[list[Sample], T]:
    """Run until two runs take about as long, at most three times."""
    samples: list[Sample] = []
    while True:
        sample, answer = time_run(run)
        samples.append(sample)
        advance()
        if len(samples) == MOST_WARM_UPS or (len(samples) > 1 and _alike(samples[-2], samples[-1])):
            return samples, answer


def _alike(one: Sample, other: Sample) -> bool:
    return abs(one.seconds - other.seconds) < STEADY * max(one.seconds, other.seconds)


def time_run(run: Callable[[], T]) -> tuple[Sample, T]:
    """Run once, without Python's garbage collector."""
    with no_collection(), Meter() as meter:
        answer = run()
    return meter.sample, answer


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage now, and not within the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def turn_orders(ways: int, turns: int) -> Iterator[tuple[int, ...]]:
    """The order of the ways in each turn.

    Rows of Williams' design, again and again: every way comes at every place, and follows every other equally
    often (E. J. Williams, "Experimental designs balanced for the estimation of residual effects of
    treatments", 1949).
    """
    # 0, last, 1, last but one, …
    first = [place // 2 if place % 2 == 0 else ways - (place + 1) // 2 for place in range(ways)]
    rows = [tuple((way + shift) % ways for way in first) for shift in range(ways)]
    if ways % 2:
        rows += [row[::-1] for row in rows]
    return itertools.islice(itertools.cycle(rows), turns)
