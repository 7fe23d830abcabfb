"""What a file of results says: the figures of every row, and the differences between rows, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.intervals import (
    Difference,
    Interval,
    Spread,
    class_accuracies,
    label_robust_score,
    paired_difference,
    spread,
)
from benchmarks.accuracy.results import Labels, Line, Results, SetKey
from benchmarks.accuracy.rows import FULL_DATA, RANDOM, Pairing, Row, pairings, parse_row, rded_for

FEWEST_SEEDS = 3  # of the selection, below which a grid is a trial

# By selection seed and training seed: an array [images].
Differences = Mapping[int, Mapping[int, NDArray[np.float64]]]


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
        ior, hlr, lrs: DD-Ranking's; None where a row that they need is missing. IOR, in [-1, 1], is how much
            better than random whole images it is, more is better; HLR, in [-1, 1], how far from all real data
            with hard labels, less is better; LRS is both together: see `label_robust_score`.
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
class Comparison:
    """Two rows, compared on the same images with the same seeds.

    Attributes:
        pairing: which.
        architecture: of the students.
        labels: which labels the students learned.
        ipc: images per class; None for the mean over all numbers that both rows have.
        difference: top-1 of the first less that of the second.
    """

    pairing: Pairing
    architecture: str
    labels: Labels
    ipc: int | None
    difference: Difference


@dataclass(frozen=True)
class Verdict:
    """Whether the foreground itself pays in a row.

    Attributes:
        row: of the method.
        architecture, labels, ipc: see `Comparison`.
        over_rded, over_shuffled: the differences that decide; None where that row is missing.
        over_whole: the difference from keeping all images whole under the same choices; likewise.
    """

    row: str
    architecture: str
    labels: Labels
    ipc: int | None
    over_rded: Difference | None
    over_shuffled: Difference | None
    over_whole: Difference | None

    @property
    def selection_seeds(self) -> int:
        """How many there are of the fewer of the two differences."""
        both = (self.over_rded, self.over_shuffled)
        return min(difference.selection_seeds for difference in both if difference is not None)

    @property
    def pays(self) -> bool | None:
        """Whether it beats both by more than the bootstrap interval; None where one of them is missing."""
        return self._beats(lambda difference: difference.bootstrap)

    @property
    def pays_with_few_seeds(self) -> bool | None:
        """Whether it does so by more than the interval for few seeds, too."""
        return self.pays and self._beats(lambda difference: difference.small_sample)

    def _beats(self, interval: Callable[[Difference], Interval | None]) -> bool | None:
        if self.over_rded is None or self.over_shuffled is None:
            return None
        found = [interval(difference) for difference in (self.over_rded, self.over_shuffled)]
        return all(one is not None and one.side > 0 for one in found)


@dataclass(frozen=True)
class Analysis:
    """All that a file of results says."""

    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[Verdict, ...]


def analyse(results: Results) -> Analysis:
    """Return everything that a file of results says.

    Raises:
        DataError: a line is damaged.
    """
    rows = tuple(dict.fromkeys(key.row for key in results.sets))
    ipcs = tuple(sorted({key.ipc for key in results.sets}))
    names = [name for name in rows if name != FULL_DATA]
    cells: list[Cell] = []
    comparisons: list[Comparison] = []
    verdicts: list[Verdict] = []
    for architecture in dict.fromkeys(key.architecture for key in results.students):
        cells += _cells(results, architecture, rows, ipcs)
        for labels in get_args(Labels):
            correct = {
                (name, ipc): _correct(results, name, ipc, architecture, labels)
                for name in names
                for ipc in ipcs
                if ipc
            }
            found: list[Comparison] = []
            for pairing in pairings(names):
                found += _compare(pairing, architecture, labels, correct, [ipc for ipc in ipcs if ipc])
            comparisons += found
            verdicts += _judge(names, architecture, labels, found)
    return Analysis(tuple(cells), tuple(comparisons), tuple(verdicts))


def _lines(
    results: Results, row: str, ipc: int, architecture: str, labels: Labels
) -> dict[int, dict[int, Line]]:
    """Return the students of a row, by selection seed and training seed."""
    found: dict[int, dict[int, Line]] = {}
    training_seeds = sorted({key.seed for key in results.students})
    for seed in sorted({key.seed for key in results.sets}):
        key = SetKey(row, ipc, seed)
        lines = {
            training: line
            for training in training_seeds
            if (line := results.student(key, labels, architecture, training)) is not None
        }
        if lines:
            found[seed] = lines
    return found


def _correct(results: Results, row: str, ipc: int, architecture: str, labels: Labels) -> Differences:
    """Return what students answer right (1) and wrong (0)."""
    return {
        seed: {training: results.correct(line).astype(np.float64) for training, line in lines.items()}
        for seed, lines in _lines(results, row, ipc, architecture, labels).items()
    }


def _cells(results: Results, architecture: str, rows: Iterable[str], ipcs: Iterable[int]) -> list[Cell]:
    """Return the figures of every row of an architecture."""

    def students(row: str, ipc: int, labels: Labels) -> list[Line]:
        found = _lines(results, row, ipc, architecture, labels)
        return [line for by_training in found.values() for line in by_training.values()]

    full = _accuracies(students(FULL_DATA, 0, "hard"))
    cells = []
    for row in rows:
        for ipc in ipcs:
            lines = students(row, ipc, "hard" if row == FULL_DATA else "soft")
            if lines:
                hard = _accuracies(students(row, ipc, "hard")) if ipc else []
                random = _accuracies(students(RANDOM, ipc, "soft"))
                cells.append(_cell(results, (row, architecture, ipc), lines, hard, random, full))
    return cells


def _cell(
    results: Results,
    place: tuple[str, str, int],
    lines: Sequence[Line],
    hard: Sequence[float],
    random: Sequence[float],
    full: Sequence[float],
) -> Cell:
    """Return the figures of some students.

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
    ior = top1.mean - fmean(random) if random else None
    hlr = fmean(full) - fmean(hard) if full and hard else None
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


def _accuracies(lines: Iterable[Line]) -> list[float]:
    return [line["top1"] for line in lines]


def _compare(
    pairing: Pairing,
    architecture: str,
    labels: Labels,
    correct: Mapping[tuple[str, int], Differences],
    ipcs: Sequence[int],
) -> list[Comparison]:
    """Compare two rows at each number of images that both have, and over all of these together."""
    cells: dict[int | None, Differences] = {}
    for ipc in ipcs:
        if found := _paired(
            lambda one, other: one - other, correct[pairing.first, ipc], correct[pairing.second, ipc]
        ):
            cells[ipc] = found
    if len(cells) > 1 and (together := _paired(lambda *parts: np.mean(parts, axis=0), *cells.values())):
        cells[None] = together
    return [
        Comparison(
            pairing,
            architecture,
            labels,
            ipc,
            paired_difference([np.stack(list(parts.values())) for parts in found.values()]),
        )
        for ipc, found in cells.items()
    ]


def _paired(combine: Callable[..., NDArray[np.float64]], *cells: Differences) -> Differences:
    """Combine the arrays of all pairs of seeds that every one of some cells has."""
    first, *others = cells
    found = {
        seed: {
            training: combine(*(cell[seed][training] for cell in cells))
            for training in first[seed]
            if all(training in cell.get(seed, {}) for cell in others)
        }
        for seed in first
    }
    return {seed: parts for seed, parts in found.items() if parts}


def _judge(
    names: Sequence[str], architecture: str, labels: Labels, comparisons: Sequence[Comparison]
) -> list[Verdict]:
    """Say what the comparisons say of each row of the method, at each number of images and over all."""
    by_place = {
        (comparison.pairing.first, comparison.pairing.second, comparison.ipc): comparison.difference
        for comparison in comparisons
    }
    ipcs = list(dict.fromkeys(comparison.ipc for comparison in comparisons))
    verdicts = []
    for name in names:
        row = parse_row(name)
        if not isinstance(row, Row) or not row.method:
            continue
        for ipc in ipcs:
            over_rded = by_place.get((name, rded_for(row)[0], ipc))
            over_shuffled = by_place.get((name, row.control("shuffled").name, ipc))
            if over_rded is not None or over_shuffled is not None:
                over_whole = by_place.get((name, row.always("always-full").name, ipc))
                verdicts.append(
                    Verdict(name, architecture, labels, ipc, over_rded, over_shuffled, over_whole)
                )
    return verdicts


def images_in_words(ipc: int | None) -> str:
    """Return a number of images per class in words; None is all numbers together."""
    return "all IPC together" if ipc is None else f"IPC {ipc}"
