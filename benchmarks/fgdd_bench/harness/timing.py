"""Time implementations in turns, and stages alone; spreads, ratios within turns, what bounds a pipeline."""

from __future__ import annotations

import gc
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Generic, TypeVar

import numpy as np

from fgdd_bench.harness.implementation import Stage, StageName
from fgdd_bench.machine.resources import Memory, Meter, Sample, forget_peak, peak_memory

T = TypeVar("T")

MOST_WARM_UPS = 3
STEADY = 0.1  # two runs whose times differ by less are warm
# A stage is run over all its calls, and again while it is so quick that its percentiles would say little.
FEWEST_CALLS = 100
LONGEST_REPETITION = 5.0  # seconds

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timed(Generic[T]):
    """The runs of one implementation.

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
    """What is known of one implementation so far."""

    run: Callable[[], T]
    warm_ups: list[Sample]
    answer: T
    samples: list[Sample] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    peaks: list[Memory] = field(default_factory=list)

    def take_turn(self, digest: Callable[[T], str]) -> None:
        forget_peak()
        sample, self.answer = time_run(self.run)
        self.samples.append(sample)
        self.peaks.append(peak_memory())
        self.digests.add(digest(self.answer))

    def timed(self) -> Timed[T]:
        devices = [peak.device for peak in self.peaks if peak.device is not None]
        process, children = (max(getattr(peak, of) for peak in self.peaks) for of in ("process", "children"))
        memory = Memory(process, children, max(devices, default=None))
        return Timed(tuple(self.warm_ups), tuple(self.samples), self.answer, len(self.digests) == 1, memory)


def interleave(
    runs: Mapping[str, Callable[[], T]],
    turns: int,
    *,
    digest: Callable[[T], str],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Timed[T]]:
    """Warm each up, then run all of them in every turn, so that slow spells of the machine meet all alike.

    Args:
        runs: a whole run of each, by name.
        turns: at least 1.
        digest: of an answer; equal for equal ones.
        advance: called after each run that counts.
    """
    lanes: dict[str, _Lane[T]] = {}
    for name, run in runs.items():
        _log.info("Warming up %s", name)
        lanes[name] = _Lane(run, *_warm_up(run))
    names = list(runs)
    for order in turn_orders(len(names), turns):
        for place in order:
            lanes[names[place]].take_turn(digest)
            advance()
    return {name: lane.timed() for name, lane in lanes.items()}


def _warm_up(run: Callable[[], T]) -> tuple[list[Sample], T]:
    """Run until two runs take about as long, at most three times."""
    samples: list[Sample] = []
    while True:
        sample, answer = time_run(run)
        samples.append(sample)
        alike = len(samples) > 1 and _alike(samples[-2].seconds, samples[-1].seconds)
        if alike or len(samples) == MOST_WARM_UPS:
            return samples, answer


def _alike(one: float, other: float) -> bool:
    return abs(one - other) < STEADY * max(one, other)


def time_run(run: Callable[[], T]) -> tuple[Sample, T]:
    """Run once, without Python's garbage collector."""
    with no_collection(), Meter() as meter:
        answer = run()
    return meter.sample, answer


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage now, and not within the block; then as it was before."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def turn_orders(count: int, turns: int) -> Iterator[tuple[int, ...]]:
    """Yield the order in each turn.

    Rows of Williams' design, again and again: everyone comes at every place, and follows every other equally
    often (E. J. Williams, "Experimental designs balanced for the estimation of residual effects of
    treatments", 1949).
    """
    # 0, last, 1, last but one, …
    first = [place // 2 if place % 2 == 0 else count - (place + 1) // 2 for place in range(count)]
    rows = [tuple((one + shift) % count for one in first) for shift in range(count)]
    if count % 2:
        rows += [row[::-1] for row in rows]
    return itertools.islice(itertools.cycle(rows), turns)


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some figures."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(median(values), min(values), max(values))


def ratios(baseline: Sequence[Sample], own: Sequence[Sample], figure: str = "seconds") -> tuple[float, ...]:
    """Return how many times as fast as the baseline something was, in each turn.

    Args:
        baseline, own: samples of the same turns.
        figure: `seconds`, or `processor_seconds`, which other programs disturb less: the same for each core.
    """
    pairs = zip(baseline, own, strict=True)
    return tuple(getattr(base, figure) / getattr(sample, figure) for base, sample in pairs)


@dataclass(frozen=True)
class StageTimes:
    """One stage, run alone, call by call.

    Attributes:
        name: which.
        seconds: of each call; every pass covers all images of the benchmark.
        passes: how often all images were covered.
        images: that one call covers.
        threads: processor threads that one call keeps busy.
    """

    name: StageName
    seconds: tuple[float, ...]
    passes: int
    images: int
    threads: int

    @property
    def seconds_a_pass(self) -> float:
        """For all images of the benchmark, one call after the other."""
        return sum(self.seconds) / self.passes

    @property
    def images_per_second_per_core(self) -> float:
        """Of one processor thread."""
        return len(self.seconds) * self.images / (sum(self.seconds) * max(self.threads, 1))

    def latency(self, percentile: float) -> float:
        """Return the seconds until an image is done: those of the call that it is in."""
        return float(np.percentile(self.seconds, percentile))


def time_stage(stage: Stage) -> StageTimes:
    """Run a stage's first call to warm up, then all its calls, at least once."""
    stage.run(0)
    seconds: list[float] = []
    passes = 0
    while not passes or (len(seconds) < FEWEST_CALLS and sum(seconds) < LONGEST_REPETITION):
        for index in range(stage.calls):
            begin = time.perf_counter()
            stage.run(index)
            seconds.append(time.perf_counter() - begin)
        passes += 1
    return StageTimes(stage.name, tuple(seconds), passes, stage.images, stage.threads)


@dataclass(frozen=True)
class Overlap:
    """How a whole run compares with its stages.

    Attributes:
        bound_by: the stage that would take longest if everything else were free; None without stages.
        bound_seconds: what that stage needs of the clock, with all threads or the GPU for itself.
        busy: what the stages need of the processor's threads, as a share of what the whole run had of them.
        device_busy: the same of the GPU; None where there is none.
    """

    bound_by: StageName | None
    bound_seconds: float
    busy: float
    device_busy: float | None


def overlap(
    stages: Sequence[StageTimes], wall: float, threads: int, on_device: Collection[StageName] = ()
) -> Overlap:
    """Compare a whole run with its stages.

    Args:
        stages: each run alone.
        wall: seconds of the whole run.
        threads: processor threads that it had.
        on_device: stages that keep a GPU busy instead of the processor.
    """
    needs: defaultdict[StageName, float] = defaultdict(float)
    for stage in stages:
        share = 1 if stage.name in on_device else stage.threads / threads
        needs[stage.name] += stage.seconds_a_pass * share
    bound_by = max(needs, key=lambda name: needs[name], default=None)
    device = [seconds for name, seconds in needs.items() if name in on_device]
    return Overlap(
        bound_by,
        0.0 if bound_by is None else needs[bound_by],
        (sum(needs.values()) - sum(device)) / wall,
        sum(device) / wall if device else None,
    )
