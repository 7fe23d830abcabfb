"""What a file of results says: the figures of every row, and the differences between rows, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from benchmarks.accuracy.comparisons import Comparison, Differences, compare
from benchmarks.accuracy.intervals import (
    Spread,
    class_accuracies,
    hard_label_recovery,
    improvement_over_random,
    label_robust_score,
    spread,
)
from benchmarks.accuracy.results import Labels, Line, Results, SetKey
from benchmarks.accuracy.rows import FULL_DATA, RANDOM, pairings
from benchmarks.accuracy.verdicts import Verdict, judge


@dataclass(frozen=True)
class Cell:
    """The students of a row, of one architecture and number of images.

    Attributes:
        row: its name.
        architecture: of the students.
        ipc: images per class; 0 for all of the real data.
        top1, balanced: after the last epoch, in [0, 1], of students of soft labels; of all real data of hard.
        hard: top-1 of students of hard labels.
        by_class: mean share of each class's validation images answered right.
        best: highest top-1 of the curves, the mean; chosen on the validation images.
        whole: share of the tiles that show a whole image.
        ior, hlr, lrs: see `statistics`; None where a row that they need is missing.
    """

    row: str
    architecture: str
    ipc: int
    top1: Spread
    balanced: Spread
    hard: Spread | None
    by_class: tuple[float, ...]
    best: float
    whole: float | None
    ior: float | None
    hlr: float | None
    lrs: float | None


@dataclass(frozen=True)
class Analysis:
    """All that a file of results says."""

    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[Verdict, ...]


class _Students:
    """Looks students up by row.

    Args:
        results: a file of results.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._seeds = sorted({key.seed for key in results.sets})
        self._training_seeds = sorted({key.seed for key in results.students})
        self.rows = tuple(dict.fromkeys(key.row for key in results.sets))
        self.ipcs = tuple(sorted({key.ipc for key in results.sets}))
        self.architectures = tuple(dict.fromkeys(key.architecture for key in results.students))

    def lines(self, row: str, ipc: int, architecture: str, labels: Labels) -> dict[int, dict[int, Line]]:
        """The students of a row, by selection seed and training seed."""
        found: dict[int, dict[int, Line]] = {}
        for seed in self._seeds:
            key = SetKey(row, ipc, seed)
            lines = {
                training: line
                for training in self._training_seeds
                if (line := self._results.student(key, labels, architecture, training)) is not None
            }
            if lines:
                found[seed] = lines
        return found

    def correct(self, row: str, ipc: int, architecture: str) -> Differences:
        """What students of soft labels answer right (1) and wrong (0)."""
        return {
            seed: {
                training: self._results.correct(line).astype(np.float64) for training, line in lines.items()
            }
            for seed, lines in self.lines(row, ipc, architecture, "soft").items()
        }


def analyse(results: Results) -> Analysis:
    """Everything that a file of results says.

    Raises:
        DataError: a line is damaged.
    """
    students = _Students(results)
    cells: list[Cell] = []
    comparisons: list[Comparison] = []
    verdicts: list[Verdict] = []
    for architecture in students.architectures:
        cells += _cells(results, students, architecture)
        names = [name for name in students.rows if name != FULL_DATA]
        correct = {
            (name, ipc): students.correct(name, ipc, architecture)
            for name in names
            for ipc in students.ipcs
            if ipc
        }
        found: list[Comparison] = []
        for pairing in pairings(names):
            found += compare(pairing, architecture, correct, [ipc for ipc in students.ipcs if ipc])
        comparisons += found
        verdicts += judge(names, architecture, found)
    return Analysis(tuple(cells), tuple(comparisons), tuple(verdicts))


def _cells(results: Results, students: _Students, architecture: str) -> list[Cell]:
    """The figures of every row of an architecture."""
    full = _accuracies(_flat(students.lines(FULL_DATA, 0, architecture, "hard")))
    cells = []
    for row in students.rows:
        for ipc in students.ipcs:
            lines = _flat(students.lines(row, ipc, architecture, "hard" if row == FULL_DATA else "soft"))
            if lines:
                hard = _flat(students.lines(row, ipc, architecture, "hard")) if ipc else []
                random = _accuracies(_flat(students.lines(RANDOM, ipc, architecture, "soft")))
                cells.append(_cell(results, (row, architecture, ipc), lines, _accuracies(hard), random, full))
    return cells


def _cell(
    results: Results,
    place: tuple[str, str, int],
    lines: Sequence[Line],
    hard: Sequence[float],
    random: Sequence[float],
    full: Sequence[float],
) -> Cell:
    """The figures of some students.

    Args:
        results: a file of results.
        place: row, architecture and images per class.
        lines: the students.
        hard: accuracies of students of the same sets and of hard labels.
        random: of students of random images and soft labels.
        full: of students of all real data.
    """
    row, architecture, ipc = place
    top1 = spread(_accuracies(lines))
    ior = improvement_over_random(top1.mean, fmean(random)) if random else None
    hlr = hard_label_recovery(fmean(full), fmean(hard)) if full and hard else None
    correct = np.stack([results.correct(line) for line in lines])
    shares = class_accuracies(correct, results.labels, len(results.conditions["classes"]))
    sets = (line for key, line in results.sets.items() if (key.row, key.ipc) == (row, ipc))
    whole = [line["whole"] for line in sets if "whole" in line]
    return Cell(
        row=row,
        architecture=architecture,
        ipc=ipc,
        top1=top1,
        balanced=spread([float(value) for value in np.nanmean(shares, axis=1)]),
        hard=spread(hard) if hard else None,
        by_class=tuple(float(value) for value in shares.mean(axis=0)),
        best=fmean(line["best_top1"] for line in lines),
        whole=fmean(whole) if whole else None,
        ior=ior,
        hlr=hlr,
        lrs=None if ior is None or hlr is None else label_robust_score(ior, hlr),
    )


def _flat(lines: Mapping[int, Mapping[int, Line]]) -> list[Line]:
    return [line for by_training in lines.values() for line in by_training.values()]


def _accuracies(lines: Iterable[Line]) -> list[float]:
    return [line["top1"] for line in lines]
