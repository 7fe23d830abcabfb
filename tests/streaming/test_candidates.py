"""Which images of a stream are kept: all that give a tile in the end, whatever comes in between."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import finite_losses, make_record, quick

from fgdd_fast.errors import DataError, SettingsError, StoreError
from fgdd_fast.planning import MosaicSettings
from fgdd_fast.selection.records import ImageRecord
from fgdd_fast.selection.select import Selection, SelectionSettings, select
from fgdd_fast.selection.thresholds import parse_rule
from fgdd_fast.streaming.bounds import RANKINGS, check_streamable, uncertainty
from fgdd_fast.streaming.candidate_format import boxes_of
from fgdd_fast.streaming.candidates import Candidates
from fgdd_fast.streaming.checkpoint import decide_class

MEMORY = Path(":memory:")  # a file that SQLite does not write
BLACK = np.zeros((8, 8, 3), np.uint8)


def settings(
    rule: str = "quantile:0.3", ranking: str = "loss", ipc: int = 3, **limits: float
) -> MosaicSettings:
    selection = SelectionSettings(ranking, **limits)  # type: ignore[arg-type]
    return MosaicSettings(ipc, 1, 8, parse_rule(rule), 0, "area", "png", selection)


def add(candidates: Candidates, record: ImageRecord, pixels: np.ndarray = BLACK) -> None:
    candidates.add(record, dict.fromkeys(boxes_of(record), pixels))


@contextmanager
def candidates_of(
    records: Sequence[ImageRecord], wanted: MosaicSettings, reservoir: int = 1000, path: Path = MEMORY
) -> Iterator[Candidates]:
    candidates = Candidates(path, wanted, reservoir=reservoir)
    for record in records:
        add(candidates, record)
    candidates.commit()
    yield candidates
    candidates.close()


def chosen(records: Sequence[ImageRecord], wanted: MosaicSettings, reservoir: int = 1000) -> Selection | str:
    """What is chosen of a stream."""
    with candidates_of(records, wanted, reservoir) as candidates:
        try:
            return decide_class(candidates, "cat", wanted).selection
        except DataError as error:
            return error.problem


def of_all(records: Sequence[ImageRecord], wanted: MosaicSettings) -> Selection | str:
    """What is chosen where all images are there at once."""
    try:
        ranking = RANKINGS[wanted.selection.ranking]
        return select(records, wanted.rule, wanted.tiles_per_class, 0, ranking, wanted.selection)
    except DataError as error:
        return error.problem


@st.composite
def streams(draw: st.DrawFn) -> list[ImageRecord]:
    few = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    crops = st.tuples(finite_losses, finite_losses, finite_losses)
    images = st.tuples(few | st.floats(0, 1), finite_losses, crops, st.tuples(few, few, few))
    return [
        make_record(f"{number:03d}", occupancy, full, losses, kept=kept)
        for number, (occupancy, full, losses, kept) in enumerate(
            draw(st.lists(images, min_size=1, max_size=20))
        )
    ]


@quick
@given(
    streams(),
    st.sampled_from(["quantile:0.3", "mean", "otsu", "fixed:0.4", "always-full", "always-patch"]),
    st.sampled_from([*RANKINGS]),
    st.sampled_from([0.0, 0.7]),
    st.randoms(use_true_random=False),
)
def test_a_stream_in_any_order_gives_the_tiles_of_a_folder(
    records: list[ImageRecord], rule: str, ranking: str, keep: float, order: random.Random
) -> None:
    wanted = settings(rule, ranking, keep_foreground=keep)
    shuffled = [*records, *(replace(each, source=f"copy-{each.source}") for each in records[:3])]
    order.shuffle(shuffled)
    expected = of_all(records, wanted)
    found = chosen(shuffled, wanted)
    if isinstance(found, Selection) and isinstance(expected, Selection):
        assert replace(found, duplicates={}) == expected
    else:
        assert type(found) is type(expected)


def many(count: int = 600) -> list[ImageRecord]:
    draw = random.Random(0)
    return [
        make_record(str(number), draw.random(), draw.gauss(2, 1), (draw.gauss(2, 1), draw.gauss(2, 1)))
        for number in range(count)
    ]


@pytest.mark.parametrize("rule", ["quantile:0.3", "mean", "median"])
def test_a_class_that_outgrows_its_sample_loses_few_tiles(rule: str) -> None:
    records, wanted = many(), settings(rule, ipc=40)
    found, expected = chosen(records, wanted, reservoir=150), of_all(records, wanted)
    assert isinstance(found, Selection)
    assert isinstance(expected, Selection)
    assert abs(found.threshold - expected.threshold) < uncertainty(150)
    same = {(tile.source, tile.box) for tile in found.tiles} & {
        (tile.source, tile.box) for tile in expected.tiles
    }
    assert len(same) >= 36


def test_of_whole_images_the_best_alone_are_kept() -> None:
    records, wanted = many(), settings("always-full")
    with candidates_of(records, wanted, reservoir=10) as candidates:
        assert len(candidates.records("cat")) == wanted.tiles_per_class
        assert len(candidates.sample("cat")) == 10
    assert chosen(records, wanted, reservoir=10) == of_all(records, wanted)


def test_near_the_threshold_both_kinds_are_kept_and_far_from_it_one() -> None:
    wanted = settings("quantile:0.5", ipc=2)
    with candidates_of(many(1500), wanted, reservoir=1000) as candidates:
        kinds = {
            record.occupancy: (np.isfinite(record.full.loss), len(record.crops))
            for record in candidates.records("cat")
        }
    assert all(kept == (True, 0) for occupancy, kept in kinds.items() if occupancy > 0.65)
    assert all(kept == (False, 1) for occupancy, kept in kinds.items() if occupancy < 0.35)


def test_what_was_not_committed_is_gone_and_what_was_stays(tmp_path: Path) -> None:
    wanted, records = settings(), many(20)
    with candidates_of(records, wanted, path=tmp_path / "kept") as candidates:
        before = decide_class(candidates, "cat", wanted)
        add(candidates, make_record("better", 0.9, -100.0))
    with candidates_of([], wanted, path=tmp_path / "kept") as candidates:
        assert decide_class(candidates, "cat", wanted) == before
        with pytest.raises(StoreError, match="locked"):
            Candidates(tmp_path / "kept", wanted, reservoir=10)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE samples SET occupancy = 'much'",
        "UPDATE OR IGNORE samples SET draw = 7",
        "UPDATE classes SET name = 'cat'",
        "UPDATE images SET record = '[0.5, [[0, 0, 8, 8], \"x\", null], 3]'",
        "UPDATE images SET record = printf('%.*c', 9999, '[')",
        "UPDATE tiles SET png = x'00'",
        "DELETE FROM tiles",
        "INSERT INTO facts VALUES ('how', '{\"settings\": {}}')",
    ],
)
def test_candidates_that_are_damaged_are_refused_whole(tmp_path: Path, damage: str) -> None:
    wanted, path = settings("always-full"), tmp_path / "kept"
    with candidates_of(many(20), wanted, path=path):
        pass
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(damage)
    with (  # noqa: PT012
        pytest.raises(StoreError, match="kept are damaged"),
        candidates_of([], wanted, path=path) as candidates,
    ):
        candidates.fact("how")
        (best, *_) = candidates.records("cat")
        candidates.tile("cat", best.sha256, best.full.box)


def test_a_budget_of_disk_is_held_and_one_that_is_too_small_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for disk in (1_500_000, 400_000):
        wanted = settings("fixed:0.5", ipc=20)
        candidates = Candidates(tmp_path / str(disk), wanted, reservoir=1000, disk=disk)
        with (
            closing(candidates),
            nullcontext() if disk > 10**6 else pytest.raises(StoreError, match="fit"),
        ):
            for number in range(200):  # each better than the one before
                add(candidates, make_record(str(number), 0.9, 1 - number / 1000), pixels)
            candidates.commit()
            assert (tmp_path / str(disk)).stat().st_size < 1.1 * disk
            assert len(candidates.records("cat")) >= 20


@pytest.mark.parametrize(
    ("rule", "ranking", "named"),
    [
        *(("mean", name, f"'{name}'") for name in ("stratified", "kmeans", "stratified-kmeans", "k-centre")),
        *((rule, "loss", rule) for rule in ("shuffled:mean", "inverted:quantile:0.3")),
    ],
)
def test_what_needs_all_images_is_refused_by_its_name(rule: str, ranking: str, named: str) -> None:
    with pytest.raises(SettingsError, match=f"{named} cannot be done on a stream"):
        check_streamable(parse_rule(rule), ranking)
