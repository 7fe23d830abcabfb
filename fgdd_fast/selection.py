"""Which tiles represent a class: one for each image, ranked by the teacher's loss, the best kept.

Everything here is a pure function of records, so another rule or another number of images per class is
decided without measuring anything again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fgdd_fast.errors import DataError
from fgdd_fast.records import Box, ImageRecord, Path, Tile, View
from fgdd_fast.thresholds import Rule, decide

Ranking = Callable[[Sequence[Tile], int], list[Tile]]
"""Chooses from a class's tiles, no two from the same image: the best `count` (all if fewer), best first."""


@dataclass(frozen=True)
class Selection:
    """The tiles of one class.

    Attributes:
        threshold: the class's occupancy threshold, in [0, 1].
        tiles: the tiles chosen, best first; no two show the same box of the same image.
        further: how many of them, at the end, are further crops of an image that had given a tile before,
            because the class has fewer images than tiles.
        duplicates: for each image left out because an earlier one has the same bytes, by source: the reason.
    """

    threshold: float
    tiles: tuple[Tile, ...]
    further: int
    duplicates: Mapping[str, str]


def rank_by_loss(tiles: Sequence[Tile], count: int) -> list[Tile]:
    """RDED's ranking: ascending loss; equal losses in the order of their sources."""
    return sorted(tiles, key=lambda tile: (tile.loss, tile.source))[:count]


def select(
    records: Sequence[ImageRecord], rule: Rule, count: int, seed: int, ranking: Ranking = rank_by_loss
) -> Selection:
    """Choose the tiles of one class; the order of the records plays no part.

    Each image gives one tile: its full view or its crop of lowest loss (the first drawn of equal ones), as
    the rule says. Where these are fewer than `count`, every image gives its next best crop, again and again;
    each such round is ranked on its own and follows the one before. Images of identical bytes count once.
    A view whose loss is not finite is never chosen: the teacher failed on it, and it has no rank.

    Args:
        records: the measured images of one class, each source once.
        rule: the threshold rule.
        count: how many tiles to choose, at least 1.
        seed: for the control `shuffled`.
        ranking: which tiles of a round are the best.

    Raises:
        DataError: the class has no image or too few distinct tiles, or an occupancy is not within [0, 1].
    """
    if not records:
        raise DataError("A class has no image that can be used", "Remove its folder, or add images to it.")
    originals, duplicates = _without_duplicates(records)
    decision = decide(rule, originals, seed)
    queues = [
        _candidates(record, path, decision.threshold)
        for record, path in zip(originals, decision.paths, strict=True)
    ]
    chosen: list[Tile] = []
    firsts = 0
    while len(chosen) < count:
        tiles = [tile for queue in queues if (tile := next(queue, None)) is not None]
        if not tiles:
            raise _too_few(originals, len(chosen), count)
        chosen += ranking(tiles, count - len(chosen))
        firsts = firsts or len(chosen)
    return Selection(decision.threshold, tuple(chosen), len(chosen) - firsts, duplicates)


def _without_duplicates(records: Sequence[ImageRecord]) -> tuple[list[ImageRecord], dict[str, str]]:
    """The records in the order of their sources, equal bytes once, and the reasons for the others."""
    first: dict[str, ImageRecord] = {}
    duplicates: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record.source):
        original = first.setdefault(record.sha256, record)
        if original is not record:
            duplicates[record.source] = f"same bytes as {original.source}"
    return list(first.values()), duplicates


def _candidates(record: ImageRecord, path: Path, threshold: float) -> Iterator[Tile]:
    """The tiles that an image can give, in the order in which it gives them; each box once."""
    crops = sorted((crop for crop in record.crops if math.isfinite(crop.loss)), key=lambda crop: crop.loss)
    views: list[tuple[Path, View]] = [("crop", crop) for crop in crops]
    if path == "full" and math.isfinite(record.full.loss):
        views.insert(0, ("full", record.full))
    used: set[Box] = set()
    for kind, view in views:
        if view.box not in used:
            used.add(view.box)
            yield Tile(
                source=record.source,
                sha256=record.sha256,
                box=view.box,
                path=kind,
                occupancy=record.occupancy,
                threshold=threshold,
                loss=view.loss,
            )


def _too_few(records: Sequence[ImageRecord], available: int, count: int) -> DataError:
    images = "1 image gives" if len(records) == 1 else f"{len(records)} images give"
    losses = [view.loss for record in records for view in (record.full, *record.crops)]
    failed = sum(not math.isfinite(loss) for loss in losses)
    return DataError(
        f"The class '{records[0].class_name}' is too small: {count} distinct tiles are needed, "
        f"and its {images} {available}"
        + (f"; the teacher's loss on {failed} of {len(losses)} views is not finite" if failed else ""),
        "Check the teacher."
        if failed
        else "Lower --ipc or --factor, raise --crops or --pool, or add images to the class.",
    )
