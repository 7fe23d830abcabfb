"""Which images need a closer look before the tiles of a class are certain: pure functions of records.

An image that had none may be kept whole or not, and may give any of its crops. It needs one if the ranking
would take a tile that it may give, and it may give another. The teacher's losses, which are known of all
images, so spare most images of a large class; what a quick look says of them serves the threshold.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import get_args

from fgdd_fast.selection.ranking import Ranking
from fgdd_fast.selection.records import ImageRecord, Tile, TileKind
from fgdd_fast.selection.select import SelectionSettings, find_candidates, tiles_of, without_duplicates
from fgdd_fast.selection.thresholds import Rule, decide

_KINDS: tuple[TileKind, ...] = get_args(TileKind)
_Tiles = tuple[Tile, ...]


def undecided(
    records: Sequence[ImageRecord],
    rule: Rule,
    count: int,
    seed: int,
    ranking: Ranking | None,
    settings: SelectionSettings,
) -> set[str]:
    """Return the sources of the images that need a closer look, of those that had none.

    Args:
        records: of one class, each source once.
        rule, count, seed, settings: see `fgdd_fast.selection.select.find_candidates`.
        ranking: one that is `by_loss`; None for any other, by which any tile may be taken.

    Raises:
        DataError: see `fgdd_fast.selection.select.find_candidates`.
    """
    passes = find_candidates(records, rule, count, seed, settings).passes
    originals, _ = without_duplicates(records, settings.near_duplicates)
    decision = decide(rule, originals, seed)
    once = len(passes) == 1  # an image gives one tile at most
    found: set[str] = set()
    rivals: list[tuple[Tile, set[str]]] = []
    for record, kind, seen in zip(originals, decision.kinds, decision.seen, strict=True):
        sources = {each.source for each in (record, seen) if not each.looked}
        certain = seen.looked or not rule.needs_foreground
        outcomes = {
            _first(tiles_of(variant, each, decision.threshold, settings), once)
            for variant in _variants(record, settings)
            for each in ((kind,) if certain else _KINDS)
        }
        if not sources or len(outcomes) == 1:
            continue
        if once and ranking is not None:
            rivals += [(tile, sources) for counting, _ in outcomes for tile in counting]
        else:
            found |= sources
    return found if ranking is None else found | _taken(passes[0], rivals, count, ranking)


def _variants(record: ImageRecord, settings: SelectionSettings) -> Iterator[ImageRecord]:
    """The record; or of an image without a closer look, one for each crop, which keeps the foreground."""
    if record.looked or not settings.needs_shares or not record.crops:
        yield record
        return
    for place in range(len(record.crops)):
        crops = [replace(crop, foreground=float(other == place)) for other, crop in enumerate(record.crops)]
        yield replace(record, crops=tuple(crops))


def _first(tiles: tuple[Iterator[Tile], Iterator[Tile]], once: bool) -> tuple[_Tiles, _Tiles]:
    """The first of the tiles that count; or all tiles, where an image may give several."""
    counting, others = tiles
    return (tuple(islice(counting, 1)), ()) if once else (tuple(counting), tuple(others))


def _taken(
    tiles: Sequence[Tile], rivals: Sequence[tuple[Tile, set[str]]], count: int, ranking: Ranking
) -> set[str]:
    """What is to be looked at of rivals that would be taken, were one of them among the tiles.

    Of the rivals of a kind those of the lowest losses are, so that few need to be tried.
    """
    found: set[str] = set()
    for kind in _KINDS:
        ordered = sorted(
            (rival for rival in rivals if rival[0].kind == kind),
            key=lambda rival: (rival[0].loss, rival[0].source),
        )
        taken = bisect_left(
            ordered, True, key=lambda rival: rival[0] not in ranking([*tiles, rival[0]], count)
        )
        for _, sources in ordered[:taken]:
            found |= sources
    return found
