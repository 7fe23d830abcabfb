"""Whether the foreground itself pays: what the differences from RDED and from the shuffled control say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.comparisons import Comparison
from benchmarks.accuracy.intervals import CONFIDENCE, Difference, Interval
from benchmarks.accuracy.rows import Row, parse_row, rded_for

FEWEST_SEEDS = 3  # of the selection, below which a grid is a trial


@dataclass(frozen=True)
class Verdict:
    """Whether the foreground itself pays in a row.

    Attributes:
        row: of the method.
        architecture: of the students.
        ipc: see `Comparison`.
        over_rded, over_shuffled: the differences that decide; None where that row is missing.
    """

    row: str
    architecture: str
    ipc: int | None
    over_rded: Difference | None
    over_shuffled: Difference | None

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


def judge(names: Sequence[str], architecture: str, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """What the comparisons say of each row of the method, at each number of images and over all."""
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
                verdicts.append(Verdict(name, architecture, ipc, over_rded, over_shuffled))
    return verdicts


def statement(verdicts: Sequence[Verdict]) -> str:
    """The plain answer: which rows beat both RDED and their own shuffled control."""
    judged = [verdict for verdict in verdicts if verdict.pays is not None]
    if not judged:
        return "No row of the method has RDED and its shuffled control beside it: nothing can be said."
    sure = [verdict for verdict in judged if verdict.pays_with_few_seeds]
    bootstrap = [verdict for verdict in judged if verdict.pays and not verdict.pays_with_few_seeds]
    chance = len(judged) * (1 - CONFIDENCE) / 2
    sentences = [
        f"Of {len(judged)} judgements, {len(sure)} find RDED and the row's own shuffled control both beaten "
        f"by more than either interval{_named(sure)}.",
        f"By more than the bootstrap interval alone: {len(bootstrap)} more{_named(bootstrap)}.",
        f"Chance alone would let about {chance:.1f} of them beat their shuffled control.",
    ]
    if not sure:
        sentences.insert(1, "So there is no sound evidence here that the foreground itself pays.")
    if min(verdict.selection_seeds for verdict in judged) < FEWEST_SEEDS:
        sentences.append(f"Some have fewer than {FEWEST_SEEDS} selection seeds: take those for a trial.")
    return " ".join(sentences)


def _named(verdicts: Sequence[Verdict]) -> str:
    names = (
        f"{verdict.row} ({verdict.architecture}, {images_in_words(verdict.ipc)})" for verdict in verdicts
    )
    return f": {', '.join(names)}" if verdicts else ""


def images_in_words(ipc: int | None) -> str:
    """A number of images per class; None for all numbers together."""
    return "all IPC together" if ipc is None else f"IPC {ipc}"
