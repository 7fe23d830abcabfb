"""Which images of a stream may still give a tile in the end: pure functions.

The threshold of a class still moves while its images come, so whether an image near it will be kept whole or
give a crop is not known yet. Each image therefore has two ranks, the best and the worst that it may end with.
If as many images as there are tiles have a worst rank that is better than its best one, it never gives a
tile, whatever the threshold becomes, and can be dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from fgdd_fast.errors import SettingsError
from fgdd_fast.selection.ranking import (
    Ranking,
    RankingName,
    find_ranking,
    rank_by_loss,
    rank_whole_first,
)
from fgdd_fast.selection.records import TileKind
from fgdd_fast.selection.thresholds import RULE_KINDS, Rule, threshold_of

RANKINGS: Mapping[RankingName, Ranking] = {
    "loss": rank_by_loss,
    "whole-first": partial(rank_whole_first, within=rank_by_loss),
}
"""The rankings that need nothing of images that are gone."""

CONFIDENCE = 0.99  # with which a sample's threshold is said to lie within its band
K = TypeVar("K")
Rank = tuple[bool, bool, float]


class Views(NamedTuple):
    """What of an image is weighed: lower losses are better.

    Attributes:
        occupancy: share of the image that is foreground, in [0, 1].
        full: the loss on the whole image; infinite where that cannot be taken.
        crop: the loss on the crop that it would give; likewise.
    """

    occupancy: float
    full: float
    crop: float


@dataclass(frozen=True)
class Band:
    """Where the threshold of a class may lie in the end.

    Attributes:
        low: images of a lower occupancy surely give a crop.
        high: images of at least this occupancy are surely kept whole.
    """

    low: float = 0.0
    high: float = math.inf


def check_streamable(rule: Rule, ranking: RankingName) -> None:
    """Refuse what cannot be decided of a stream.

    Raises:
        SettingsError: the ranking or the rule needs images that are gone.
    """
    find_ranking(ranking)
    if ranking not in RANKINGS:
        raise SettingsError(
            f"The ranking '{ranking}' cannot be done on a stream: it looks at all images of a class "
            "together, and most of them are gone",
            f"Choose one of: {', '.join(RANKINGS)}.",
        )
    if rule.control is not None:
        raise SettingsError(
            f"The rule {rule} cannot be done on a stream: it exchanges occupancies among all images of a "
            "class, and most of them are gone",
            "Choose a rule without a control.",
        )


def uncertainty(sample: int) -> float:
    """Return by how much a quantile of a sample may be off, as a share of the class, with `CONFIDENCE`.

    Source: the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (Annals of Probability,
    1990); Hoeffding's gives the same for a mean of values in [0, 1].

    Args:
        sample: its size, at least 1.
    """
    return math.sqrt(math.log(2 / (1 - CONFIDENCE)) / (2 * sample))


def band_of(rule: Rule, occupancies: Sequence[float], *, complete: bool) -> Band:
    """Return where the threshold of a class may lie.

    Args:
        rule: without a control.
        occupancies: of a sample of the class's images.
        complete: whether the sample is all of the class. Images to come may then take the threshold
            anywhere, and nothing is ruled out, so that what is chosen in the end is exact.
    """
    if rule.kind == "fixed":
        threshold = threshold_of(rule, occupancies)
        return Band(threshold, threshold)
    found = [each for each in occupancies if each > 0]
    if complete or not found or rule.kind not in ("quantile", "median", "mean"):
        return Band()
    error = uncertainty(len(found))
    if rule.kind == "mean":
        mean = threshold_of(rule, found)
        return Band(mean - error, mean + error)
    share = 0.5 if rule.kind == "median" else rule.value or 0.0
    low, high = share - error, share + error
    return Band(
        0.0 if low < 0 else threshold_of(Rule("quantile", low), found),
        math.inf if high > 1 else threshold_of(Rule("quantile", high), found),
    )


def possible_kinds(rule: Rule, band: Band, occupancy: float) -> tuple[TileKind, ...]:
    """Return what an image may give: the whole of it, a crop, or, near the threshold, either."""
    always = RULE_KINDS[rule.kind].always
    if always is not None:
        return (always,)
    if occupancy == 0 or occupancy < band.low:
        return ("crop",)
    return ("full",) if occupancy >= band.high else ("full", "crop")


def ranks_of(rule: Rule, ranking: RankingName, band: Band, views: Views) -> tuple[Rank, Rank]:
    """Return the best and the worst rank that an image may have in the end; lower ones come first."""
    nothing_found = rule.needs_foreground and views.occupancy == 0
    kinds = possible_kinds(rule, band, views.occupancy)
    ranks = [
        (
            nothing_found,
            ranking == "whole-first" and kind == "crop",
            views.full if kind == "full" else views.crop,
        )
        for kind in kinds
    ]
    return min(ranks), max(ranks)


def dominated(
    rule: Rule, ranking: RankingName, band: Band, images: Mapping[K, Views], count: int
) -> tuple[list[K], Rank | None]:
    """Return the images that never give a tile.

    Args:
        rule, ranking: how tiles are chosen.
        band: where the threshold may lie.
        images: of one class.
        count: tiles that the class needs.

    Returns:
        These images, and the worst rank that still counts; None where all count.
    """
    if len(images) <= count:
        return [], None
    ranks = {key: ranks_of(rule, ranking, band, views) for key, views in images.items()}
    bound = sorted(worst for _, worst in ranks.values())[count - 1]
    return [key for key, (best, _) in ranks.items() if best > bound], bound
