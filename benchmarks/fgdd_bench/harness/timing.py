"""The statistics of a benchmark: spreads, ratios within turns, latencies, and what bounds a pipeline."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from fgdd_bench.harness.ways import Stage, StageName
from fgdd_bench.machine.resources import Sample

# A stage is run over all its calls, and again while it is so quick that its percentiles would say little.
FEWEST_CALLS = 100
LONGEST_REPETITION = 5.0  # seconds


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some figures."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values))


def ratios(baseline: Sequence[Sample], own: Sequence[Sample]) -> tuple[float, ...]:
    """How many times as fast as the baseline a way was, in each turn."""
    return tuple(base.seconds / sample.seconds for base, sample in zip(baseline, own, strict=True))


def processor_ratios(baseline: Sequence[Sample], own: Sequence[Sample]) -> tuple[float, ...]:
    """The same for each core: by processor time, which other programs disturb less than the clock."""
    return tuple(
        base.processor_seconds / sample.processor_seconds for base, sample in zip(baseline, own, strict=True)
    )


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
        """Seconds until an image is done: those of the call that it is in."""
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
