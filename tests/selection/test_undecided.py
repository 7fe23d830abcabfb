"""Closer looks: those that are asked for suffice, and images that play no part are spared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import classes_of_records, finite_losses, make_record, quick, rule_texts

from fgdd_fast.selection.ranking import RANKINGS, Ranking, make_ranking
from fgdd_fast.selection.records import ImageRecord
from fgdd_fast.selection.sampling import own_doubt, threshold_doubt
from fgdd_fast.selection.select import SelectionSettings, select
from fgdd_fast.selection.thresholds import parse_rule
from fgdd_fast.selection.undecided import undecided

BY_LOSS = [name for name, kind in RANKINGS.items() if kind.by_loss]
LOSS = make_ranking("loss", lambda _: pytest.fail("asks for no features"), 0)


def blurred(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The records as a quick look has them: occupancies right, but what crops keep is not."""
    return [
        replace(
            record,
            looked=False,
            crops=tuple(replace(crop, foreground=1.0 - (crop.foreground or 0.0)) for crop in record.crops),
        )
        for record in records
    ]


def looked_at(
    records: Sequence[ImageRecord],
    rule: str,
    count: int,
    ranking: Ranking | None,
    settings: SelectionSettings,
) -> list[ImageRecord]:
    """The records once all that is undecided was looked at, one step after the other."""
    seen = {record.source: record for record in records}
    known = blurred(records)
    while sources := undecided(known, parse_rule(rule), count, 0, ranking, settings):
        assert sources <= {record.source for record in known if not record.looked}
        known = [seen[record.source] if record.source in sources else record for record in known]
    return known


@quick
@given(
    classes_of_records(finite_losses),
    rule_texts,
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(1, 6),
    st.sampled_from([*BY_LOSS, None]),
)
def test_closer_looks_at_the_undecided_give_the_tiles_of_closer_looks_at_all(
    records: list[ImageRecord], rule: str, keep: float, count: int, name: str | None
) -> None:
    count = min(count, len({record.sha256 for record in records}))
    ranking = make_ranking(name or "loss", lambda _: pytest.fail("asks for no features"), 0)
    settings = SelectionSettings(name or "loss", keep)
    records = [
        replace(record, crops=(*record.crops, replace(record.full, foreground=1.0))) for record in records
    ]
    known = looked_at(records, rule, count, ranking if name else None, settings)
    found = select(known, parse_rule(rule), count, 0, ranking, settings)
    assert found == select(records, parse_rule(rule), count, 0, ranking, settings)


def test_images_whose_tiles_rank_too_low_are_spared() -> None:
    records = [
        *(make_record(f"a{index}", occupancy=0.5, full=index, crops=(index + 0.5,)) for index in range(4)),
        *(make_record(f"z{index}", occupancy=0.5, full=9.0, crops=(8.0,)) for index in range(9)),
    ]
    known = looked_at(records, "fixed:0.4", 2, LOSS, SelectionSettings())
    assert {record.source for record in known if record.looked} == {"a0", "a1"}
    assert all(record.looked for record in looked_at(records, "fixed:0.4", 2, None, SelectionSettings()))


@pytest.mark.parametrize(("rule", "keep", "looked"), [("always-full", 0.7, 0), ("always-patch", 0.0, 0)])
def test_a_rule_that_asks_for_no_foreground_needs_no_look(rule: str, keep: float, looked: int) -> None:
    records = [make_record(f"{index}", kept=(0.2, 0.9)) for index in range(5)]
    known = looked_at(records, rule, 3, LOSS, SelectionSettings("loss", keep))
    assert sum(record.looked for record in known) == looked


def test_under_a_control_the_image_that_decides_is_looked_at_as_well() -> None:
    records = [
        replace(make_record(source, occupancy), looked=False)
        for source, occupancy in zip("abcd", (0.1, 0.4, 0.6, 0.9), strict=True)
    ]
    sources = undecided(records, parse_rule("inverted:mean"), 4, 0, LOSS, SelectionSettings())
    assert sources == {"a", "b", "c", "d"}


def test_a_threshold_is_sure_where_quick_looks_are_right_or_far_off_it() -> None:
    rule = parse_rule("median")
    quick = [0.1, 0.2, 0.3, 0.7, 0.8]
    assert threshold_doubt(rule, [], quick, [0.0], 0) == 0
    assert threshold_doubt(parse_rule("fixed:0.5"), [], quick, [-0.3, 0.3], 0) == 0
    assert threshold_doubt(rule, quick, [], [0.5], 0) == 0
    unsure = threshold_doubt(rule, [], quick, [-0.3, 0.3], 0)
    assert 0 < unsure < 1
    assert unsure == threshold_doubt(rule, [], quick, [-0.3, 0.3], 0)
    assert threshold_doubt(rule, [0.1, 0.2, 0.3], [0.7, 0.8], [-0.3, 0.3], 0) < unsure


def test_looks_are_unsure_by_the_share_that_their_errors_carry_over_the_threshold() -> None:
    assert own_doubt([0.0, 0.1, -0.1, 0.5], [0.0]) == 0
    assert own_doubt([0.1, -0.1, 0.5], [-0.2, 0.2]) == pytest.approx(2 / 6)
    assert own_doubt([0.0], [-0.1, 0.0, 0.1]) == pytest.approx(1 / 3)
    assert own_doubt([-0.1], [0.1]) == 1, "the threshold itself is reached"
