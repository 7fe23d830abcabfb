"""Find the nodes of a graph that low precision harms, with few evaluations.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE Transactions
on Software Engineering 28(2), 2002), driven by an error figure instead of a verdict, so that it also ends
well where no node is sensitive alone and errors add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from fgdd_fast.errors import BundleError

EVALUATIONS = 64  # enough for 3 single nodes among 1,000


class Sensitive(NamedTuple):
    """What has to stay in fp32."""

    nodes: tuple[str, ...]  # names, in the order of the candidates; empty where nothing has to
    error: float  # what is left with these in fp32
    evaluations: int  # how many errors were measured


def find_sensitive(
    candidates: Sequence[str],
    error: Callable[[Collection[str]], float],
    bar: float,
    evaluations: int = EVALUATIONS,
) -> Sensitive:
    """Find a small set of nodes that has to stay in fp32 for the error to be at most `bar`.

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
    measured = 0

    def names(groups: Sequence[range]) -> tuple[str, ...]:
        return tuple(candidates[index] for group in groups for index in group)

    def measure(groups: Sequence[range]) -> float:
        nonlocal measured
        measured += 1
        found = error(names(groups))
        return math.inf if math.isnan(found) else found

    if (least := measure([])) <= bar:
        return Sensitive((), least, measured)
    groups = [range(len(candidates))]  # neighbours that stay in fp32
    if (least := measure(groups)) > bar:
        raise BundleError(
            f"With every node in fp32 that may be kept there the error is {least:.3g}, and at most "
            f"{bar:.3g} will do"
        )
    # Give up the half of the largest group that adds less error; where neither can be given up, split it.
    while measured < evaluations and len(largest := max(groups, key=len, default=range(0))) > 1:
        middle, place = len(largest) // 2, groups.index(largest)
        halves = [largest[:middle], largest[middle:]]
        tried: list[tuple[float, list[range]]] = []
        for kept in reversed(halves):
            fewer = [*groups[:place], kept, *groups[place + 1 :]]
            tried.append((measure(fewer), fewer))
            if tried[-1][0] - least <= (bar - least) / 2 or measured >= evaluations:
                break  # cheap enough: the other half need not be tried
        best, fewer = min(tried, key=lambda one: one[0])
        if best <= bar:
            least, groups = best, fewer
        elif len(tried) == len(halves):
            groups[place : place + 1] = halves
    return Sensitive(names(groups), least, measured)
