"""How long a distillation would take that was not run: amounts of work times what each piece takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Work = Literal[
    "decode pixels", "decode bytes", "cut", "foreground", "teacher", "overhead", "decide", "compose"
]
Worker = Literal["processor", "main thread", "GPU"]
Phase = Literal["measure", "decide", "compose"]

NETWORKS: tuple[Work, ...] = ("foreground", "teacher")
# What is counted of each kind of work. A file is read, hashed and decoded: that takes time for its pixels,
# and time for its bytes. Cutting stands for everything that is made of the pixels: the foreground model's
# input, the whole image and its crops as tiles, and what the teacher is shown of them. Overhead is what the
# pipeline adds: images are looked up, handed from thread to thread, and stored.
UNITS: Mapping[Work, str] = {
    "decode pixels": "megapixel",
    "decode bytes": "megabyte",
    "cut": "megapixel",
    "foreground": "image",
    "teacher": "view",
    "overhead": "image",
    "decide": "image",
    "compose": "mosaic",
}
# Python runs one thread at a time: what is Python alone counts as the main thread's, whoever does it.
SERIAL: tuple[Work, ...] = ("overhead", "decide")

FORMULA = (
    "A line's total is its count times the seconds that one worker (a processor thread, the main thread or "
    "the GPU) takes for one. The lines of a phase overlap: it takes as long as its busiest workers do, which "
    "are all processor threads (the totals of processor and main thread, divided by the threads), the main "
    "thread (the sum of its totals), or the GPU (the sum of its totals). The phases follow one another, "
    "after the start."
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is distilled.

    Attributes:
        name: for reports.
        classes: how many.
        pool: images of each class that are measured.
        crops: candidate crops of each image.
        ipc: mosaics of each class.
        factor: tiles along each side of a mosaic.
        megapixels, megabytes: of an image file, on average.
    """

    name: str
    classes: int
    pool: int
    crops: int
    ipc: int
    factor: int
    megapixels: float
    megabytes: float

    def amounts(self) -> dict[Phase, dict[Work, float]]:
        """How much there is of each kind of work, in its units; the teacher also sees the whole image."""
        images = self.classes * self.pool
        mosaics = self.classes * self.ipc
        return {
            "measure": {
                **self._decoding(images),
                "cut": images * self.megapixels,
                "foreground": images,
                "teacher": images * (1 + self.crops),
                "overhead": images,
            },
            "decide": {"decide": images},
            "compose": {**self._decoding(mosaics * self.factor**2), "compose": mosaics},
        }

    def _decoding(self, files: int) -> dict[Work, float]:
        return {"decode pixels": files * self.megapixels, "decode bytes": files * self.megabytes}


# Pixels: 469 x 387 on average (https://image-net.org/challenges/LSVRC/2014/index). Bytes: the archive of the
# training images, ILSVRC2012_img_train.tar, has 147,897,477,120 for 1,281,167 images.
IMAGENET = Workload(
    name="ImageNet-1K",
    classes=1000,
    pool=300,
    crops=5,
    ipc=10,
    factor=2,
    megapixels=0.1815,
    megabytes=0.1154,
)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What each kind of work takes.

    Attributes:
        seconds: of one worker, for one unit.
        threads: processor threads that work at the same time.
        on_gpu: the networks that run on a GPU; every other work is the processor's.
        start: seconds until the first image is read: models are opened.
    """

    seconds: Mapping[Work, float]
    threads: int
    on_gpu: tuple[Work, ...] = ()
    start: float = 0.0

    def worker(self, work: Work) -> Worker:
        """Who does a kind of work."""
        return "GPU" if work in self.on_gpu else "main thread" if work in SERIAL else "processor"


@dataclass(frozen=True)
class Row:
    """One line of the arithmetic.

    Attributes:
        phase, work, unit, worker: what is done, counted in what, by whom.
        count: how many units.
        seconds_each: of one worker.
        total: seconds of workers of this kind.
    """

    phase: Phase
    work: Work
    unit: str
    worker: Worker
    count: float
    seconds_each: float
    total: float


@dataclass(frozen=True)
class PhaseTime:
    """One phase.

    Attributes:
        phase: which.
        busy: seconds that each kind of worker needs at least; processor threads together.
        seconds: the longest of them, that of `bound_by`.
    """

    phase: Phase
    busy: Mapping[Worker, float]
    seconds: float
    bound_by: Worker


@dataclass(frozen=True)
class Projection:
    """A workload's time, with the arithmetic.

    Attributes:
        workload, rates: what it follows from.
        rows: the arithmetic.
        phases: what each phase takes.
        seconds: start and phases.
        left_out: work for which there is no rate.
        formula: how `seconds` follows from `rows`, in words.
    """

    workload: Workload
    rates: Rates
    rows: tuple[Row, ...]
    phases: tuple[PhaseTime, ...]
    seconds: float
    left_out: tuple[Work, ...]
    formula: str = field(default=FORMULA)


def project(workload: Workload, rates: Rates) -> Projection:
    """How long a workload takes at these rates; work without a rate counts nothing, and is named."""
    amounts = workload.amounts()
    rows = tuple(
        Row(phase, work, UNITS[work], rates.worker(work), count, each, count * each)
        for phase, works in amounts.items()
        for work, count in works.items()
        if (each := rates.seconds.get(work)) is not None
    )
    phases = tuple(_phase_time(phase, rows, rates.threads) for phase in amounts)
    left_out = tuple(work for work in UNITS if work not in rates.seconds)
    total = rates.start + sum(phase.seconds for phase in phases)
    return Projection(workload, rates, rows, phases, total, left_out)


def _phase_time(phase: Phase, rows: tuple[Row, ...], threads: int) -> PhaseTime:
    totals: dict[Worker, float] = {"processor": 0.0, "main thread": 0.0, "GPU": 0.0}
    for row in rows:
        if row.phase == phase:
            totals[row.worker] += row.total
    # The main thread is one of the processor's threads.
    busy = {**totals, "processor": (totals["processor"] + totals["main thread"]) / threads}
    bound_by = max(busy, key=lambda worker: busy[worker])
    return PhaseTime(phase, busy, busy[bound_by], bound_by)
