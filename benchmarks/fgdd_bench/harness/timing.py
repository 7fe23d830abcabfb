"""Time implementations in turns, and stages alone; ratios within turns, what bounds a pipeline."""

from __future__ import annotations

import gc
import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from fgdd_bench.harness.implementation import Stage, StageName
from fgdd_bench.machine.resources import Memory, Sample, forget_peak, metered, peak_memory

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

    warm_ups: Sequence[Sample]
    samples: Sequence[Sample]
    answer: T
    repeatable: bool
    memory: Memory


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
    warm_ups: dict[str, list[Sample]] = {}
    answers: dict[str, T] = {}
    for name, run in runs.items():
        _log.info("Warming up %s", name)
        warm_ups[name], answers[name] = _warm_up(run)
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    peaks: defaultdict[str, list[Memory]] = defaultdict(list)
    digests: defaultdict[str, set[str]] = defaultdict(set)
    names = list(runs)
    for name in (names[place] for order in turn_orders(len(names), turns) for place in order):
        forget_peak()
        sample, answers[name] = time_run(runs[name])
        samples[name].append(sample)
        peaks[name].append(peak_memory())
        digests[name].add(digest(answers[name]))
        advance()
    return {
        name: Timed(warm_ups[name], samples[name], answers[name], len(digests[name]) == 1, _most(peaks[name]))
        for name in names
    }


def _most(peaks: Sequence[Memory]) -> Memory:
    devices = [peak.device for peak in peaks if peak.device is not None]
    process, children = max(peak.process for peak in peaks), max(peak.children for peak in peaks)
    return Memory(process, children, max(devices, default=None))


def _warm_up(run: Callable[[], T]) -> tuple[list[Sample], T]:
    """Run until two runs take about as long, at most three times."""
    samples: list[Sample] = []
    while True:
        sample, answer = time_run(run)
        samples.append(sample)
        last = [each.seconds for each in samples[-2:]]
        alike = len(last) > 1 and max(last) - min(last) < STEADY * max(last)
        if alike or len(samples) == MOST_WARM_UPS:
            return samples, answer


def time_run(run: Callable[[], T]) -> tuple[Sample, T]:
    """Run once, without Python's garbage collector."""
    with no_collection():
        return metered(run)


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


def ratios(baseline: Sequence[Sample], own: Sequence[Sample], figure: str = "seconds") -> list[float]:
    """Return how many times as fast as the baseline something was, in each turn.

    Args:
        baseline, own: samples of the same turns.
        figure: `seconds`, or `processor_seconds`, which other programs disturb less: the same for each core.
    """
    pairs = zip(baseline, own, strict=True)
    return [getattr(base, figure) / getattr(sample, figure) for base, sample in pairs]


@dataclass(frozen=True)
class StageTimes:
    """One stage, run alone, call by call.

    Attributes:
        name, images, threads: see `Stage`.
        seconds: of each call; every pass covers all images of the benchmark.
        passes: how often all images were covered.
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


def overlap(
    stages: Sequence[StageTimes], wall: float, threads: int, on_device: Collection[StageName] = ()
) -> dict[str, Any]:
    """Compare a whole run with its stages.

    Args:
        stages: each run alone.
        wall: seconds of the whole run.
        threads: processor threads that it had.
        on_device: stages that keep a GPU busy instead of the processor.

    Returns:
        `bound_by`: the stage that would take longest if everything else were free; None without stages.
        `bound_seconds`: what that stage needs of the clock, with all threads or the GPU for itself.
        `busy`: what the stages need of the processor's threads, as a share of what the whole run had of them.
        `device_busy`: the same of the GPU; None where there is none.
    """
    needs: defaultdict[StageName, float] = defaultdict(float)
    for stage in stages:
        share = 1 if stage.name in on_device else stage.threads / threads
        needs[stage.name] += stage.seconds_a_pass * share
    bound_by = max(needs, key=lambda name: needs[name], default=None)
    device = [seconds for name, seconds in needs.items() if name in on_device]
    return {
        "bound_by": bound_by,
        "bound_seconds": 0.0 if bound_by is None else needs[bound_by],
        "busy": (sum(needs.values()) - sum(device)) / wall,
        "device_busy": sum(device) / wall if device else None,
    }
