"""Threshold rules: known answers, ties, controls, and properties for any records."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import any_rule_texts, classes_of_records, make_record, quick, rule_texts

from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.selection.records import ImageRecord
from fgdd_fast.selection.thresholds import RULE_KINDS, decide, parse_rule, threshold_rule


def class_of(*shares: float) -> list[ImageRecord]:
    return [make_record(f"cat/{place:03}.jpg", share) for place, share in enumerate(shares)]


@quick
@given(any_rule_texts)
def test_a_rule_s_text_parses_to_the_same_rule(text: str) -> None:
    rule = parse_rule(text)
    assert parse_rule(str(rule)) == rule


BAD_RULES = [
    *("", "quantile", "quantile:", "quantile:1.5", "quantile:-0.1", "quantile:nan", "quantile:x", "mean:"),
    *("quantile:0.3:0.4", "fixed", "fixed:inf", "mean:0.5", "Mean", " mean", "always", "always-patch:1"),
    *("shuffled", "shuffled:", "shuffled:shuffled:mean", "inverted:shuffled:mean"),
]


@pytest.mark.parametrize("text", BAD_RULES)
def test_a_bad_rule_is_refused_with_the_list_of_rules(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_rule(text)
    assert f"'{text}'" in caught.value.problem
    for name in ("quantile:Q", "mean", "median", "fixed:T", "always-patch", "always-full", "shuffled:RULE"):
        assert name in caught.value.advice


@pytest.mark.parametrize(
    ("rule", "threshold", "paths"),
    [
        ("quantile:0.5", 0.375, "ccff"),
        ("quantile:0.25", 0.21875, "cfff"),
        ("quantile:0", 0.125, "ffff"),
        ("quantile:1", 1.0, "cccf"),
        ("mean", 0.46875, "ccff"),
        ("median", 0.375, "ccff"),
        ("otsu", 1.0, "cccf"),
        ("fixed:0.25", 0.25, "cfff"),
        ("fixed:0.6", 0.6, "cccf"),
        ("always-patch", 1.0, "cccc"),
        ("always-full", 0.0, "ffff"),
        ("inverted:mean", 0.46875, "ffcc"),
        ("inverted:quantile:0.5", 0.375, "ffcc"),
        ("inverted:always-patch", 1.0, "cccc"),
    ],
)
def test_known_answers(rule: str, threshold: float, paths: str) -> None:
    decision = decide(parse_rule(rule), class_of(0.125, 0.25, 0.5, 1.0), seed=0)
    assert decision.threshold == threshold
    assert "".join(path[0] for path in decision.kinds) == paths


@quick
@given(st.floats(0, 1, exclude_min=True), st.integers(1, 30), rule_texts)
def test_equal_occupancies_stay_whole_unless_the_rule_is_absolute(
    share: float, count: int, text: str
) -> None:
    rule = parse_rule(text)
    decision = decide(rule, class_of(*[share] * count), seed=0)
    if rule.kind in ("mean", "median", "otsu", "quantile"):
        assert decision.threshold == share
        assert set(decision.kinds) == {"full"}
    else:
        assert len(set(decision.kinds)) == 1


@quick
@given(classes_of_records(), rule_texts)
def test_threshold_in_range_and_paths_follow_from_it(records: list[ImageRecord], text: str) -> None:
    rule = parse_rule(text)
    decision = decide(rule, records, seed=0)
    assert 0 <= decision.threshold <= 1
    if rule.kind == "always-patch":
        assert set(decision.kinds) == {"crop"}
    else:
        whole = rule.kind == "always-full"
        assert list(decision.kinds) == [
            "full" if whole or record.occupancy >= max(decision.threshold, 5e-324) else "crop"
            for record in records
        ]


@quick
@given(classes_of_records(), any_rule_texts, st.integers(), st.randoms(use_true_random=False))
def test_the_order_of_records_plays_no_part(
    records: list[ImageRecord], text: str, seed: int, order: random.Random
) -> None:
    rule = parse_rule(text)
    shuffled = order.sample(records, len(records))
    first, second = decide(rule, records, seed), decide(rule, shuffled, seed)
    assert first.threshold == second.threshold
    by_source = dict(zip((record.source for record in records), first.kinds, strict=True))
    assert list(second.kinds) == [by_source[record.source] for record in shuffled]


@quick
@given(classes_of_records(), rule_texts, st.sampled_from(["shuffled", "inverted"]), st.integers())
def test_a_control_keeps_the_threshold_and_the_share_of_paths(
    records: list[ImageRecord], text: str, control: str, seed: int
) -> None:
    plain = decide(parse_rule(text), records, seed)
    controlled = decide(parse_rule(f"{control}:{text}"), records, seed)
    assert controlled.threshold == plain.threshold
    assert sorted(controlled.kinds) == sorted(plain.kinds)


@pytest.mark.parametrize(
    ("rule", "threshold", "paths"),
    [
        ("quantile:0.3", 0.35, "cccff"),  # the quantile of 0.2, 0.45, 0.7
        ("quantile:0", 0.2, "ccfff"),
        ("fixed:0", 0.0, "ccfff"),
        ("mean", 0.45, "cccff"),
        ("inverted:quantile:0", 0.2, "fffcc"),  # the control gives the zeros to others
        ("always-full", 0.0, "fffff"),
        ("always-patch", 1.0, "ccccc"),
    ],
)
def test_an_image_in_which_nothing_is_found_is_never_kept_whole_nor_has_a_say(
    rule: str, threshold: float, paths: str
) -> None:
    decision = decide(parse_rule(rule), class_of(0.0, 0.0, 0.2, 0.45, 0.7), seed=0)
    assert decision.threshold == pytest.approx(threshold)
    assert "".join(path[0] for path in decision.kinds) == paths
    if "always" in rule:
        assert all(decision.found)
    else:
        assert decision.found == ((False, False, True, True, True)[:: -1 if "inverted" in rule else 1])


@pytest.mark.parametrize("rule", ["quantile:0.3", "mean", "median", "fixed:0.5", "shuffled:mean"])
def test_a_class_in_which_nothing_is_found_gives_crops_alone(rule: str) -> None:
    decision = decide(parse_rule(rule), class_of(0.0, 0.0, 0.0), seed=0)
    assert decision.kinds == ("crop",) * 3
    assert decision.threshold == (0.5 if "fixed" in rule else 1.0)


def test_otsu_finds_the_two_groups_of_a_class() -> None:
    small, large = (0.05, 0.1, 0.12, 0.15), (0.6, 0.62, 0.7)
    decision = decide(parse_rule("otsu"), class_of(*large, *small), seed=0)
    assert (decision.threshold, decision.kinds) == (0.6, ("full",) * 3 + ("crop",) * 4)


def test_shuffling_is_a_matter_of_the_seed_and_unrelated_to_occupancy() -> None:
    records = class_of(*np.linspace(0, 1, 400))
    rule = parse_rule("shuffled:median")
    runs = [decide(rule, records, seed).kinds for seed in range(5)]
    assert runs[0] == decide(rule, records, 0).kinds
    assert len(set(runs)) == 5
    for paths in runs:  # of 200 of each path, about 100 lie in either half; the standard deviation is 5
        assert 70 < paths[:200].count("full") < 130


def test_inverting_exchanges_ranks_within_ties_by_source() -> None:
    records = class_of(0.5, 0.5, 0.1, 0.9)
    assert decide(parse_rule("inverted:fixed:0.6"), records, 0).kinds == ("crop", "crop", "full", "crop")


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -0.01, 1.01])
@pytest.mark.parametrize("rule", ["mean", "always-patch"])
def test_an_impossible_occupancy_is_refused_with_its_image(rule: str, share: float) -> None:
    records = class_of(0.2, 0.4)
    records[1] = replace(records[1], occupancy=share)
    with pytest.raises(DataError, match=r"cat/001\.jpg"):
        decide(parse_rule(rule), records, 0)


def test_a_rule_is_added_by_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdd_fast.selection.thresholds.RULE_KINDS", dict(RULE_KINDS))

    @threshold_rule("between", value="S")
    def between(occupancies: Sequence[float], value: float) -> float:
        return min(occupancies) + value * (max(occupancies) - min(occupancies))

    rule = parse_rule("inverted:between:0.5")
    assert str(rule) == "inverted:between:0.5"
    decision = decide(parse_rule("between:0.5"), class_of(0.125, 0.25, 0.5, 1.0), seed=0)
    assert (decision.threshold, decision.kinds) == (0.5625, ("crop", "crop", "crop", "full"))
    with pytest.raises(SettingsError):
        parse_rule("between")
