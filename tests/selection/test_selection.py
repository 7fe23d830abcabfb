"""Selection: which tiles stay and in which order; known answers, and properties for any records."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from record_strategies import (
    any_losses,
    any_rule_texts,
    any_selections,
    classes_of_records,
    make_record,
    quick,
)

from fgdd_fast.errors import DataError
from fgdd_fast.selection.ranking import make_ranking
from fgdd_fast.selection.records import ImageRecord, Tile
from fgdd_fast.selection.select import Candidates, SelectionSettings, find_candidates, select
from fgdd_fast.selection.thresholds import Rule, decide, parse_rule

PATCH, FULL = parse_rule("always-patch"), parse_rule("always-full")


def losses_as_features(tiles: Sequence[Tile]) -> NDArray[np.float64]:
    return np.array([[tile.loss] for tile in tiles])


def summary(tiles: tuple[Tile, ...]) -> list[tuple[str, str, int, float]]:
    """Source, path, left edge of the box (the crop's number, in hand-made records) and loss."""
    return [(tile.source, tile.kind, tile.box.x, tile.loss) for tile in tiles]


def test_each_image_gives_its_best_tile_and_the_lowest_losses_stay() -> None:
    records = [
        make_record("b", occupancy=0.9, full=3.0, crops=(0.1, 0.2)),  # whole, though its crops are better
        make_record("a", occupancy=0.1, full=0.0, crops=(2.0, 1.0, 1.0)),  # the first of equal crops
        make_record("c", occupancy=0.2, full=0.0, crops=(0.5, 4.0)),
        make_record("d", occupancy=0.3, full=0.0, crops=(9.0, 8.0)),
    ]
    selection = select(records, parse_rule("fixed:0.5"), 3, seed=0)
    assert summary(selection.tiles) == [("c", "crop", 0, 0.5), ("a", "crop", 1, 1.0), ("b", "full", 0, 3.0)]
    assert selection.threshold == 0.5
    assert selection.further == 0
    assert selection.duplicates == {}
    tile = selection.tiles[2]
    assert (tile.box, tile.occupancy, tile.threshold) == (records[0].full.box, 0.9, 0.5)
    assert tile.sha256 == records[0].sha256


def test_a_small_class_takes_further_crops_in_rounds() -> None:
    records = [
        make_record("a", full=5.0, crops=(1.0, 2.0, 3.0)),
        make_record("b", full=0.0, crops=(9.0, 0.5)),
    ]
    cropped = select(records, PATCH, 5, 0)
    assert summary(cropped.tiles) == [
        *[("b", "crop", 1, 0.5), ("a", "crop", 0, 1.0)],
        *[("a", "crop", 1, 2.0), ("b", "crop", 0, 9.0)],
        ("a", "crop", 2, 3.0),
    ]
    assert cropped.further == 3
    whole = select(records, FULL, 3, 0)
    assert summary(whole.tiles) == [("b", "full", 0, 0.0), ("a", "full", 0, 5.0), ("b", "crop", 1, 0.5)]
    assert whole.further == 1


def test_images_in_which_nothing_is_found_come_after_all_others_and_are_counted() -> None:
    records = [
        make_record("a", occupancy=0.0, full=0.0, crops=(0.1, 0.2)),
        make_record("b", occupancy=0.6, full=3.0, crops=(5.0, 6.0)),
        make_record("c", occupancy=0.0, full=0.0, crops=(0.3, 0.05)),
        make_record("d", occupancy=0.5, full=2.0, crops=(1.0, 7.0)),
    ]
    rule = parse_rule("fixed:0.6")
    selection = select(records, rule, 5, 0)
    assert summary(selection.tiles) == [
        *[("d", "crop", 0, 1.0), ("b", "full", 0, 3.0)],
        *[("c", "crop", 1, 0.05), ("a", "crop", 0, 0.1)],
        ("b", "crop", 0, 5.0),
    ]
    assert (selection.nothing_found, selection.further) == (2, 1)
    assert len(find_candidates(records, rule, 2, 0).passes) == 1, "they play no part where others suffice"
    assert summary(select(records, FULL, 2, 0).tiles) == [("a", "full", 0, 0.0), ("c", "full", 0, 0.0)]
    assert summary(select(records, PATCH, 2, 0).tiles) == [("c", "crop", 1, 0.05), ("a", "crop", 0, 0.1)]


def test_a_box_is_never_used_twice() -> None:
    square = make_record("a", full=1.0, crops=(0.5,))
    twice = ImageRecord(
        **{**vars(square), "crops": (square.full, square.crops[0], square.crops[0], square.full)}
    )
    assert [tile.kind for tile in select([twice], FULL, 2, 0).tiles] == ["full", "crop"]
    with pytest.raises(DataError, match="its 1 image gives 2"):
        select([twice], FULL, 3, 0)


def test_images_of_equal_bytes_count_once() -> None:
    records = [
        make_record("c", occupancy=1.0, crops=(0.1,), content="same"),
        make_record("a", occupancy=0.25, crops=(5.0,)),
        make_record("b", occupancy=1.0, crops=(0.1,), content="same"),
        make_record("d", occupancy=0.25, crops=(0.2,)),
    ]
    selection = select(records, parse_rule("mean"), 3, 0)
    assert selection.duplicates == {"c": "same bytes as b"}
    assert selection.threshold == 0.5, "the duplicate must not weigh on the threshold either"
    assert sorted(tile.source for tile in selection.tiles) == ["a", "b", "d"]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_view_on_which_the_teacher_failed_is_never_chosen(loss: float) -> None:
    records = [
        make_record("a", full=loss, crops=(loss, 3.0)),
        make_record("b", full=1.0, crops=(loss, loss)),
        make_record("c", full=2.0, crops=(2.0, loss)),
    ]
    assert summary(select(records, PATCH, 2, 0).tiles) == [("c", "crop", 0, 2.0), ("a", "crop", 1, 3.0)]
    assert [tile.source for tile in select(records, FULL, 3, 0).tiles] == ["b", "c", "a"]
    with pytest.raises(DataError, match=r"give 2; .* 5 of 9 views is not finite\. Check the teacher"):
        select(records, PATCH, 3, 0)


def test_too_few_tiles_say_what_to_change() -> None:
    with pytest.raises(DataError) as caught:
        select([make_record("a"), make_record("b")], PATCH, 5, 0)
    assert "'cat'" in caught.value.problem
    assert "5 distinct tiles are needed, and its 2 images give 4" in caught.value.problem
    for option in ("--ipc", "--factor", "--crops", "--pool"):
        assert option in caught.value.advice


def test_no_image_and_no_crops() -> None:
    with pytest.raises(DataError, match="no image"):
        select([], PATCH, 1, 0)
    with pytest.raises(DataError, match="gives 0"):
        select([make_record("a", crops=())], PATCH, 1, 0)


def crops_taken(records: list[ImageRecord], count: int, **limits: float) -> list[tuple[str, int]]:
    """Source and number of the crops that are taken."""
    tiles = select(records, PATCH, count, 0, settings=SelectionSettings(**limits)).tiles  # type: ignore[arg-type]
    return [(tile.source, tile.box.x) for tile in tiles]


def test_a_class_that_is_too_small_takes_what_keeps_most_of_the_rest() -> None:
    records = [
        make_record("a", crops=(1.0, 2.0, 3.0), kept=(0.5, 0.79, 0.9)),
        make_record("b", crops=(4.0, 5.0, 6.0), kept=(0.8, 1.0, 0.0)),
        make_record("c", crops=(9.0, 8.0), kept=(0.1, 0.2)),
    ]
    counting = [("a", 2), ("b", 0), ("c", 1), ("b", 1)]
    assert crops_taken(records, 4, keep_foreground=0.8) == counting
    assert crops_taken(records, 7, keep_foreground=0.8) == [*counting, ("a", 1), ("b", 2), ("c", 0)]
    assert crops_taken(records, 8, keep_foreground=0.8)[-1] == ("a", 0)
    with pytest.raises(DataError, match="its 3 images give 8"):
        crops_taken(records, 9, keep_foreground=0.8)


def test_of_an_image_whose_crops_all_lose_too_much_the_one_that_keeps_most_counts() -> None:
    records = [make_record("a", crops=(1.0, 2.0, 3.0, 0.5), kept=(0.1, 0.4, 0.4, math.nan))]
    records[0] = replace(
        records[0], crops=(*records[0].crops[:3], replace(records[0].crops[3], loss=math.nan, foreground=1.0))
    )
    assert crops_taken(records, 1, keep_foreground=0.5) == [("a", 1)]


def test_crops_that_cover_too_little_do_not_count() -> None:
    records = [make_record("a", crops=(1.0, 2.0, 3.0), sides=(40, 50, 70))]
    assert crops_taken(records, 1, least_area=0.25) == [("a", 1)]
    assert crops_taken(records, 1, least_area=0.26) == [("a", 2)]
    assert crops_taken(records, 1, least_area=0.9) == [("a", 2)]  # the largest there is


def test_a_crop_has_to_keep_both_and_the_foreground_comes_first() -> None:
    records = [make_record("a", crops=(1.0, 2.0, 3.0), kept=(0.9, 0.4, 0.7), sides=(40, 80, 60))]
    assert crops_taken(records, 1, keep_foreground=0.6, least_area=0.3) == [("a", 2)]
    assert crops_taken(records, 1, keep_foreground=0.8, least_area=0.3) == [("a", 0)]


def test_near_duplicates_count_once_and_do_not_weigh_on_the_threshold() -> None:
    records = [
        make_record("c", occupancy=1.0, crops=(0.1,), perceptual_hash=0b0111),
        make_record("a", occupancy=0.25, crops=(5.0,), perceptual_hash=0xFFFF << 40),
        make_record("b", occupancy=1.0, crops=(0.1,), perceptual_hash=0b0001),
        make_record("d", occupancy=0.25, crops=(0.2,), perceptual_hash=0b1111),
        make_record("e", occupancy=1.0, crops=(0.2,), perceptual_hash=0b0001, content="b"),
    ]
    selection = select(records, parse_rule("mean"), 3, 0, settings=SelectionSettings(near_duplicates=2))
    assert selection.duplicates == {"c": "near-duplicate of b", "e": "same bytes as b"}
    assert selection.threshold == 0.5
    assert sorted(tile.source for tile in selection.tiles) == ["a", "b", "d"]
    assert select(records, PATCH, 4, 0).duplicates == {"e": "same bytes as b"}


def test_what_was_not_measured_is_named() -> None:
    records = [make_record("a"), make_record("b")]
    with pytest.raises(DataError, match="foreground within each crop of 'a' was not measured"):
        crops_taken(records, 1, keep_foreground=0.1)
    with pytest.raises(DataError, match="perceptual hash of 'a' was not measured"):
        select(records, PATCH, 1, 0, settings=SelectionSettings(near_duplicates=0))


def test_only_the_last_round_is_contested() -> None:
    records = [make_record("a", crops=(1.0, 2.0)), make_record("b", crops=(3.0, 4.0))]

    def tie_candidates(count: int) -> list[float]:
        candidates = find_candidates(records, PATCH, count, 0)
        assert isinstance(candidates, Candidates)
        return [tile.loss for tile in candidates.tie_candidates(count)]

    assert tie_candidates(1) == [1.0, 3.0]
    assert tie_candidates(2) == []
    assert tie_candidates(3) == [2.0, 4.0]
    assert tie_candidates(4) == []


def count_distinct_tiles(records: list[ImageRecord], rule: Rule, seed: int) -> int:
    originals = {record.sha256: record for record in sorted(records, key=lambda record: record.source)[::-1]}
    total = 0
    for record, path in zip(
        originals.values(), decide(rule, list(originals.values()), seed).kinds, strict=True
    ):
        views = [record.full, *record.crops] if path == "full" else record.crops
        total += len({view.box for view in views if math.isfinite(view.loss)})
    return total


@quick
@given(classes_of_records(any_losses), any_rule_texts, st.integers(1, 12), st.integers())
def test_whatever_the_records_tiles_are_theirs_unique_and_of_the_number_asked(
    records: list[ImageRecord], text: str, count: int, seed: int
) -> None:
    rule = parse_rule(text)
    available = count_distinct_tiles(records, rule, seed)
    if available < count:
        with pytest.raises(DataError, match=rf"gives? {available}\b"):
            select(records, rule, count, seed)
        return
    selection = select(records, rule, count, seed)
    assert len(selection.tiles) == count
    assert len({(tile.sha256, tile.box) for tile in selection.tiles}) == count
    assert 0 <= selection.threshold <= 1
    by_source = {record.source: record for record in records}
    for tile in selection.tiles:
        record = by_source[tile.source]
        views = [record.full] if tile.kind == "full" else record.crops
        assert (tile.box, tile.loss) in [(view.box, view.loss) for view in views]
        assert math.isfinite(tile.loss)
        assert (tile.sha256, tile.occupancy) == (record.sha256, record.occupancy)
        assert tile.threshold == selection.threshold
    firsts = selection.tiles[: count - selection.further]
    assert len({tile.source for tile in firsts}) == len(firsts)
    assert {tile.source for tile in selection.tiles} == {tile.source for tile in firsts}
    originals = [record for record in records if record.source not in selection.duplicates]
    seen = zip(originals, decide(rule, originals, seed).found, strict=True)
    last = {record.source for record, found in seen if not found}
    order = [(tile.source in last, tile.loss, tile.source) for tile in firsts]
    assert order == sorted(order)
    assert len({record.sha256 for record in records}) + len(selection.duplicates) == len(records)


@quick
@given(
    classes_of_records(any_losses),
    any_rule_texts,
    any_selections,
    st.integers(1, 8),
    st.integers(),
    st.randoms(use_true_random=False),
)
def test_the_order_of_records_plays_no_part(
    records: list[ImageRecord],
    text: str,
    settings: SelectionSettings,
    count: int,
    seed: int,
    order: random.Random,
) -> None:
    ranking = make_ranking(settings.ranking, losses_as_features, seed)

    def outcome(members: list[ImageRecord]) -> object:
        try:
            return select(members, parse_rule(text), count, seed, ranking, settings)
        except DataError as error:
            return str(error)

    assert outcome(records) == outcome(order.sample(records, len(records)))


@quick
@given(classes_of_records(any_losses), any_rule_texts, any_selections, st.integers(1, 8), st.integers())
def test_crops_that_keep_too_little_are_taken_once_all_others_are(
    records: list[ImageRecord], text: str, settings: SelectionSettings, count: int, seed: int
) -> None:
    try:
        candidates = find_candidates(records, parse_rule(text), count, seed, settings)
    except DataError:
        return
    tiles = [tile for members in candidates.passes for tile in members]
    assert len(tiles) >= count
    assert len({(tile.source, tile.box) for tile in tiles}) == len(tiles)
    assert not {tile.source for tile in tiles} & candidates.duplicates.keys()
    used_up = True  # all crops that keep enough are taken
    beyond = False  # and others as well, besides the one of an image that has no better
    for record in records:
        if record.source in candidates.duplicates:
            continue
        taken = {tile.box for tile in tiles if tile.source == record.source}
        crops = {tile.box for tile in tiles if tile.source == record.source and tile.kind == "crop"}
        keeping = {
            crop.box
            for crop in record.crops
            if math.isfinite(crop.loss)
            and (crop.foreground or 0) >= settings.keep_foreground
            and crop.box.width * crop.box.height
            >= settings.least_area * (record.full.box.width * record.full.box.height)
        }
        used_up &= keeping <= taken
        beyond |= len(crops - keeping) > (0 if keeping else 1)
    assert used_up or not beyond
