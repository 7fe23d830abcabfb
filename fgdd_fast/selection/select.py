"""Which tiles represent a class: one for each image, ranked, the best kept.

Everything here is a pure function of records, so another rule, another limit or another number of images per
class is decided without measuring anything again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from fgdd_fast.errors import DataError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.near_duplicates import nearest_kept
from fgdd_fast.selection.ranking import Ranking, RankingName, find_ranking, rank_by_loss
from fgdd_fast.selection.records import ImageRecord, Tile, TileKind, View
from fgdd_fast.selection.thresholds import Rule, decide


@dataclass(frozen=True)
class SelectionSettings:
    """How tiles are selected, besides the threshold rule.

    Attributes:
        ranking: which tiles of a class are the best.
        keep_foreground: a crop counts if it keeps at least this share of its image's foreground, in [0, 1].
        least_area: a crop counts if it covers at least this share of its image, in [0, 1]. Crops that do not
            count are taken only where a class is too small without them.
        near_duplicates: bits, 0 to 64, in which the perceptual hashes of images may differ that count once;
            None where only equal bytes count once.
    """

    ranking: RankingName = "loss"
    keep_foreground: float = 0.0
    least_area: float = 0.0
    near_duplicates: int | None = None

    @property
    def needs_features(self) -> bool:
        """Whether the teacher's features of tiles are needed."""
        return find_ranking(self.ranking).needs_features

    @property
    def needs_shares(self) -> bool:
        """Whether the records have to say how much of the foreground each crop keeps."""
        return self.keep_foreground > 0

    @property
    def needs_hashes(self) -> bool:
        """Whether the records need their perceptual hashes."""
        return self.near_duplicates is not None


PLAIN = SelectionSettings()
KEEP_FOREGROUND = 0.7  # by default: crops that keep less teach students less, see the README


def default_keep_foreground(rule: Rule) -> float:
    """The share of the foreground that crops keep unless told otherwise, in [0, 1].

    Rules that ask for no foreground, such as RDED's, stay so.
    """
    return KEEP_FOREGROUND if rule.needs_foreground else 0.0


@dataclass(frozen=True)
class Candidates:
    """The tiles that a class may be represented by.

    Attributes:
        threshold: the class's occupancy threshold, in [0, 1].
        passes: the tiles in passes, in which each image gives one or none; enough for the number wanted.
        duplicates: for each image left out because an earlier one stands for it, by source: the reason.
        nothing_found: of the others, the images in which no foreground was found.
    """

    threshold: float
    passes: tuple[tuple[Tile, ...], ...]
    duplicates: Mapping[str, str]
    nothing_found: int

    def tie_candidates(self, count: int) -> tuple[Tile, ...]:
        """The tiles among which a ranking has to choose, so that `count` are taken: one pass's, or none."""
        return self.passes[-1] if sum(map(len, self.passes)) > count else ()


@dataclass(frozen=True)
class Selection:
    """The tiles of one class.

    Attributes:
        threshold: the class's occupancy threshold, in [0, 1].
        tiles: the tiles chosen, as ranked; no two show the same box of the same image.
        further: how many of them, at the end, are further crops of an image that had given a tile before,
            because the class has fewer images than tiles.
        duplicates: for each image left out because an earlier one stands for it, by source: the reason.
        nothing_found: of the others, the images in which no foreground was found.
    """

    threshold: float
    tiles: tuple[Tile, ...]
    further: int
    duplicates: Mapping[str, str]
    nothing_found: int


def select(
    records: Sequence[ImageRecord],
    rule: Rule,
    count: int,
    seed: int,
    ranking: Ranking = rank_by_loss,
    settings: SelectionSettings = PLAIN,
) -> Selection:
    """Choose the tiles of one class: see `find_candidates` and `choose`."""
    return choose(find_candidates(records, rule, count, seed, settings), count, ranking)


def find_candidates(
    records: Sequence[ImageRecord], rule: Rule, count: int, seed: int, settings: SelectionSettings = PLAIN
) -> Candidates:
    """The tiles that a class may be represented by; the order of the records plays no part.

    Each image gives one tile: its full view or its crop of lowest loss (the first drawn of equal ones), as
    the rule says; images in which the rule sees no foreground give theirs after all others. Where these are
    fewer than `count`, every image gives its next best crop, again and again.
    Images of identical bytes count once, and near-duplicates where the settings say so.
    A crop counts if it keeps what the settings ask for; of an image without such a crop the one that keeps
    most counts. Other crops come last, where all that count are too few: each image's in the order of what
    they keep. A view whose loss is not finite never counts: the teacher failed on it, and it has no rank.

    Args:
        records: the measured images of one class, each source once.
        rule: the threshold rule.
        count: how many tiles are needed, at least 1.
        seed: for the control `shuffled`.
        settings: limits of crops and of near-duplicates; the ranking plays no part here.

    Raises:
        DataError: the class has no image or too few distinct tiles, an occupancy is not within [0, 1], or a
            record lacks what the settings need.
    """
    if not records:
        raise DataError("A class has no image that can be used", "Remove its folder, or add images to it.")
    originals, duplicates = without_duplicates(records, settings.near_duplicates)
    decision = decide(rule, originals, seed)
    queues = [
        tiles_of(record, kind, decision.threshold, settings)
        for record, kind in zip(originals, decision.kinds, strict=True)
    ]
    passes: list[tuple[Tile, ...]] = []
    available = 0
    for members in zip(*queues, strict=True):  # what counts, then what does not
        pairs = list(zip(members, decision.found, strict=True))
        groups = [[queue for queue, found in pairs if found], [queue for queue, found in pairs if not found]]
        before = -1
        while before < available < count:
            before = available
            for group in groups:
                if available >= count:
                    break
                if tiles := tuple(tile for queue in group if (tile := next(queue, None)) is not None):
                    passes.append(tiles)
                    available += len(tiles)
    if available < count:
        raise _too_few(originals, available, count, settings)
    nothing_found = sum(record.occupancy == 0 for record in originals)
    return Candidates(decision.threshold, tuple(passes), duplicates, nothing_found)


def choose(candidates: Candidates, count: int, ranking: Ranking) -> Selection:
    """Choose so many tiles; each pass is ranked on its own and follows the one before."""
    chosen: list[Tile] = []
    for tiles in candidates.passes:
        chosen += ranking(tiles, count - len(chosen))
    further = count - len({tile.source for tile in chosen})
    return Selection(
        candidates.threshold, tuple(chosen), further, candidates.duplicates, candidates.nothing_found
    )


def without_duplicates(
    records: Sequence[ImageRecord], distance: int | None
) -> tuple[list[ImageRecord], dict[str, str]]:
    """Return the records in the order of their sources, equal ones once, and the reasons for the others.

    Args:
        records: of one class, each source once.
        distance: bits in which perceptual hashes may differ that count once; None where only equal bytes do.
    """
    first: dict[str, ImageRecord] = {}
    duplicates: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record.source):
        original = first.setdefault(record.sha256, record)
        if original is not record:
            duplicates[record.source] = f"same bytes as {original.source}"
    distinct = list(first.values())
    if distance is None:
        return distinct, duplicates
    originals = []
    for record, nearest in zip(distinct, nearest_kept([*map(_hash, distinct)], distance), strict=True):
        if nearest is None:
            originals.append(record)
        else:
            duplicates[record.source] = f"near-duplicate of {distinct[nearest].source}"
    return originals, duplicates


def _hash(record: ImageRecord) -> int:
    if record.perceptual_hash is None:
        raise _not_measured(record, "perceptual hash")
    return record.perceptual_hash


def tiles_of(
    record: ImageRecord, kind: TileKind, threshold: float, settings: SelectionSettings
) -> tuple[Iterator[Tile], Iterator[Tile]]:
    """The tiles that an image of this kind can give, in the order in which it gives them, each box once.

    Returns:
        Those that count, and those to be taken once these are used up.
    """
    crops: list[tuple[list[View], list[View]]] = []

    def views(place: int) -> Iterator[tuple[TileKind, View]]:
        if place == 0 and kind == "full" and math.isfinite(record.full.loss):
            yield "full", record.full
        if not crops:  # most whole images give nothing else
            crops.append(_crops(record, settings))
        for crop in crops[0][place]:
            yield "crop", crop

    used: set[Box] = set()
    return _tiles(record, threshold, views(0), used), _tiles(record, threshold, views(1), used)


def _tiles(
    record: ImageRecord, threshold: float, views: Iterable[tuple[TileKind, View]], used: set[Box]
) -> Iterator[Tile]:
    """The tiles of those views whose boxes are not used yet."""
    for kind, view in views:
        if view.box not in used:
            used.add(view.box)
            yield Tile(
                source=record.source,
                sha256=record.sha256,
                box=view.box,
                kind=kind,
                occupancy=record.occupancy,
                threshold=threshold,
                loss=view.loss,
            )


def _crops(record: ImageRecord, settings: SelectionSettings) -> tuple[list[View], list[View]]:
    """The crops that count, by their loss: those that keep enough, or else the one that keeps most.

    Returns:
        These, and the others, those that keep most first.
    """
    crops = sorted((crop for crop in record.crops if math.isfinite(crop.loss)), key=lambda crop: crop.loss)
    least = (settings.keep_foreground, settings.least_area)
    if not crops or least == (0, 0):
        return crops, []

    def kept(crop: View) -> tuple[float, float]:
        """Shares of the foreground, if that is of interest, and of the image."""
        if not settings.needs_shares:
            return 0.0, _area(crop) / _area(record.full)
        if crop.foreground is None:
            raise _not_measured(record, "foreground within each crop")
        return crop.foreground, _area(crop) / _area(record.full)

    enough: list[View] = []
    fewer: list[tuple[tuple[float, float], View]] = []
    for crop in crops:
        shares = kept(crop)
        if shares[0] >= least[0] and shares[1] >= least[1]:
            enough.append(crop)
        else:
            fewer.append((shares, crop))
    others = [crop for _, crop in sorted(fewer, key=itemgetter(0), reverse=True)]
    return (enough, others) if enough else (others[:1], others[1:])


def _area(view: View) -> int:
    return view.box.width * view.box.height


def _not_measured(record: ImageRecord, what: str) -> DataError:
    return DataError(f"The {what} of '{record.source}' was not measured", "Measure again.")


def _too_few(
    records: Sequence[ImageRecord], available: int, count: int, settings: SelectionSettings
) -> DataError:
    images = "1 image gives" if len(records) == 1 else f"{len(records)} images give"
    losses = [view.loss for record in records for view in (record.full, *record.crops)]
    failed = sum(not math.isfinite(loss) for loss in losses)
    advice = "Lower --ipc or --factor, raise --crops or --pool, or add images to the class."
    if settings.needs_hashes:
        advice += " Or ask for less: --near-duplicates leaves images out."
    return DataError(
        f"The class '{records[0].class_name}' is too small: {count} distinct tiles are needed, "
        f"and its {images} {available}"
        + (f"; the teacher's loss on {failed} of {len(losses)} views is not finite" if failed else ""),
        "Check the teacher." if failed else advice,
    )
