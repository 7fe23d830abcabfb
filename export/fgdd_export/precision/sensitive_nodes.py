"""Find the nodes of a graph that low precision harms, with few evaluations.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE Transactions
on Software Engineering 28(2), 2002), driven by an error figure instead of a verdict, so that it also ends
well where no node is sensitive alone and errors add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fgdd_fast.errors import BundleError

EVALUATIONS = 64  # enough for 3 single nodes among 1,000


@dataclass(frozen=True)
class Sensitive:
    """What has to stay in fp32.

    Attributes:
        nodes: names, in the order of the candidates; empty where nothing has to.
        error: what is left with these in fp32.
        evaluations: how many errors were measured.
    """

    nodes: tuple[str, ...]
    error: float
    evaluations: int


def find_sensitive(
    candidates: Sequence[str],
    error: Callable[[Collection[str]], float],
    bar: float,
    evaluations: int = EVALUATIONS,
) -> Sensitive:
    """Find a small set of nodes that has to stay in fp32 for the error to be at most `bar`.

    Starts with all candidates in fp32 and gives up the half of the largest group that adds less error, as
    long as the rest stays below the bar; a group of which neither half can be given up becomes two.
    If keeping a node never makes the error larger and the evaluations suffice, then none of the nodes found
    can be given up. Otherwise some of them may be there for their neighbours' sake.

    Args:
        candidates: names of nodes in the graph's order, so that neighbours in the list are neighbours there.
        error: what is wrong when exactly the candidates given stay in fp32; NaN counts as infinite.
        bar: the largest error that will do.
        evaluations: how often `error` may be called, at least 2.

    Raises:
        BundleError: the error is above the bar even with all candidates in fp32.
    """
    return _Search(candidates, error, bar, evaluations).run()


_Group = range  # neighbours among the candidates, which stay in fp32


class _Search:
    def __init__(
        self,
        candidates: Sequence[str],
        error: Callable[[Collection[str]], float],
        bar: float,
        evaluations: int,
    ) -> None:
        self._candidates = candidates
        self._error = error
        self._bar = bar
        self._limit = evaluations
        self._evaluations = 0
        self._groups: list[_Group] = []
        self._least = math.inf  # error with the present groups in fp32

    def run(self) -> Sensitive:
        nothing = self._measure([])
        if nothing <= self._bar:
            return Sensitive((), nothing, self._evaluations)
        self._groups = [range(len(self._candidates))]
        self._least = self._measure(self._groups)
        if self._least > self._bar:
            raise BundleError(
                f"With every node in fp32 that may be kept there the error is {self._least:.3g}, and at most "
                f"{self._bar:.3g} will do"
            )
        while self._evaluations < self._limit:
            largest = max(self._groups, key=len, default=range(0))
            if len(largest) < 2:
                break
            self._shrink(largest)
        return Sensitive(tuple(self._names(self._groups)), self._least, self._evaluations)

    def _shrink(self, group: _Group) -> None:
        """Give up the half of a group that adds less error; where neither can be, split it."""
        middle, place = len(group) // 2, self._groups.index(group)
        halves = [group[:middle], group[middle:]]
        tried: list[tuple[float, list[_Group]]] = []
        for kept in reversed(halves):
            groups = [*self._groups[:place], kept, *self._groups[place + 1 :]]
            error = self._measure(groups)
            tried.append((error, groups))
            if error - self._least <= (self._bar - self._least) / 2 or self._evaluations >= self._limit:
                break  # cheap enough: the other half need not be tried
        error, groups = min(tried, key=lambda one: one[0])
        if error <= self._bar:
            self._least, self._groups = error, groups
        elif len(tried) == len(halves):
            self._groups[place : place + 1] = halves

    def _measure(self, kept: Sequence[_Group]) -> float:
        self._evaluations += 1
        error = self._error(self._names(kept))
        return math.inf if math.isnan(error) else error

    def _names(self, groups: Sequence[_Group]) -> list[str]:
        return [self._candidates[index] for group in groups for index in group]
