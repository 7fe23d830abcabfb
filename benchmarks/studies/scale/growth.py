"""How cost grows with the number of images: lines through what was measured, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

import numpy as np

from fgdd_bench.machine.child import Usage

# What is run for each number of images, in this order and on the same store: everything is measured; nothing
# is missing any more; nothing is missing, and mosaics are decided and written.
Command = Literal["measure", "measure again", "distill"]
COMMANDS: tuple[Command, ...] = get_args(Command)
FIGURES = ("seconds", "processor_seconds", "peak_memory")  # of `Usage`

LINEAR = 0.10  # share by which the time of an image may differ between the numbers of images compared
COMPARED_WITH = 1000  # images, or the number nearest to it: the time of an image there is the standard
FLAT = 5e6  # bytes by which the peak of memory may grow with each 1,000 images


@dataclass(frozen=True)
class Run:
    """One command on a number of images."""

    images: int
    command: Command
    usage: Usage


@dataclass(frozen=True)
class Line:
    """The line start + slope * images.

    Attributes:
        start: for no image.
        slope: for each image.
        residuals: measured / line - 1, for each measurement.
    """

    start: float
    slope: float
    residuals: tuple[float, ...]


def fit_line(images: Sequence[int], values: Sequence[float]) -> Line:
    """The line with the least squares of relative errors, for errors of times grow with the times.

    Args:
        images: numbers of images, at least two different ones.
        values: what was measured for each, above 0.
    """
    measured = np.asarray(values, np.float64)
    design = np.stack([np.ones(len(measured)), np.asarray(images, np.float64)], axis=1)
    (start, slope), *_ = np.linalg.lstsq(design / measured[:, None], np.ones(len(measured)), rcond=None)
    residuals = measured / (design @ (start, slope)) - 1
    return Line(float(start), float(slope), tuple(map(float, residuals)))


@dataclass(frozen=True)
class PerImage:
    """What measuring takes an image: the first run less the second one, which measures nothing.

    Attributes:
        seconds, processor_seconds: by number of images.
        compared: the two numbers of images whose times are compared.
        ratio, processor_ratio: of the largest number's time to the standard's.
    """

    seconds: Mapping[int, float]
    processor_seconds: Mapping[int, float]
    compared: tuple[int, int]
    ratio: float
    processor_ratio: float

    @property
    def linear(self) -> bool:
        """Whether an image takes the same, by the clock and by the processor's time."""
        return all(abs(ratio - 1) <= LINEAR for ratio in (self.ratio, self.processor_ratio))


def per_image(runs: Sequence[Run]) -> PerImage:
    """What measuring takes an image, from runs on at least two numbers of images."""
    counts = sorted({run.images for run in runs})
    standard, largest = min(counts[:-1], key=lambda count: abs(count - COMPARED_WITH)), counts[-1]
    seconds, processor_seconds = (
        {
            count: (_median(runs, count, "measure", name) - _median(runs, count, "measure again", name))
            / count
            for count in counts
        }
        for name in ("seconds", "processor_seconds")
    )
    return PerImage(
        seconds,
        processor_seconds,
        (standard, largest),
        seconds[largest] / seconds[standard],
        processor_seconds[largest] / processor_seconds[standard],
    )


def _median(runs: Sequence[Run], images: int, command: Command, name: str) -> float:
    return median(
        float(getattr(run.usage, name)) for run in runs if (run.images, run.command) == (images, command)
    )


@dataclass(frozen=True)
class Growth:
    """How each cost grows.

    Attributes:
        per_image: what measuring takes an image.
        lines: for each command, lines of its seconds, processor seconds and peak memory (bytes).
        store: line of the store's bytes.
    """

    per_image: PerImage
    lines: Mapping[Command, Mapping[str, Line]]
    store: Line

    @property
    def flat(self) -> bool:
        """Whether the peak of memory stays, of each command; what is less than flat counts as flat."""
        return all(lines["peak_memory"].slope * 1000 <= FLAT for lines in self.lines.values())


def growth(runs: Sequence[Run], store_bytes: Sequence[tuple[int, int]]) -> Growth:
    """How cost grows.

    Args:
        runs: of every command, on at least two numbers of images, once or several times.
        store_bytes: pairs of a number of images and of the store's bytes.
    """
    lines: dict[Command, Mapping[str, Line]] = {}
    for command in COMMANDS:
        chosen = [run for run in runs if run.command == command]
        images = [run.images for run in chosen]
        lines[command] = {
            name: fit_line(images, [getattr(run.usage, name) for run in chosen]) for name in FIGURES
        }
    return Growth(per_image(runs), lines, fit_line(*zip(*store_bytes, strict=True)))
