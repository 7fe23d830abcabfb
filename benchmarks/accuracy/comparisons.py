"""Two rows compared: the differences of their students, seed by seed and image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.intervals import Difference, paired_difference
from benchmarks.accuracy.rows import Pairing

Differences = Mapping[int, Mapping[int, NDArray[np.float64]]]
"""By selection seed and training seed: an array [images]."""


@dataclass(frozen=True)
class Comparison:
    """Two rows, compared on the same images with the same seeds.

    Attributes:
        pairing: which.
        architecture: of the students.
        ipc: images per class; None for the mean over all numbers that both rows have.
        difference: top-1 of the first less that of the second.
    """

    pairing: Pairing
    architecture: str
    ipc: int | None
    difference: Difference


def compare(
    pairing: Pairing,
    architecture: str,
    correct: Mapping[tuple[str, int], Differences],
    ipcs: Sequence[int],
) -> list[Comparison]:
    """Two rows at each number of images that both have, and over all of these together."""
    differences = {ipc: _subtract(correct[pairing.first, ipc], correct[pairing.second, ipc]) for ipc in ipcs}
    shared = {ipc: found for ipc, found in differences.items() if found}
    comparisons = [
        Comparison(pairing, architecture, ipc, paired_difference(_stacked(found)))
        for ipc, found in shared.items()
    ]
    if len(shared) > 1 and (together := _mean(list(shared.values()))):
        comparisons.append(Comparison(pairing, architecture, None, paired_difference(_stacked(together))))
    return comparisons


def _subtract(first: Differences, second: Differences) -> Differences:
    """The differences of all pairs of seeds that both have."""
    found = {
        seed: {
            training: first[seed][training] - second[seed][training]
            for training in first[seed]
            if training in second[seed]
        }
        for seed in first
        if seed in second
    }
    return {seed: parts for seed, parts in found.items() if parts}


def _mean(cells: Sequence[Differences]) -> Differences:
    """The mean over several cells, of all pairs of seeds that every one of them has."""
    first, *others = cells
    found = {
        seed: {
            training: np.mean([cell[seed][training] for cell in cells], axis=0)
            for training in first[seed]
            if all(training in cell.get(seed, {}) for cell in others)
        }
        for seed in first
    }
    return {seed: parts for seed, parts in found.items() if parts}


def _stacked(differences: Differences) -> list[NDArray[np.float64]]:
    return [np.stack(list(parts.values())) for parts in differences.values()]
