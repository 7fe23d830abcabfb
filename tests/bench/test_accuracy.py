"""The accuracy benchmark: rows, sets, results that are gone on with, and what the table says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("torch")

from benchmarks.accuracy.analysis import Analysis, Comparison, analyse
from benchmarks.accuracy.halves import divide
from benchmarks.accuracy.intervals import pack_bits
from benchmarks.accuracy.results import (
    Results,
    SetKey,
    StudentKey,
    open_results,
    parse_results,
    read_results,
    set_line,
    student_line,
)
from benchmarks.accuracy.rows import CONTROLS, GROUPS, RULES, Row, choose_rows, name_of, pairings, parse_row
from benchmarks.accuracy.sets import random_mosaics
from benchmarks.accuracy.table import statement
from benchmarks.accuracy.training import RepeatedLabels
from fgdd_fast.errors import DataError, OutputError, SettingsError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.tiles import SCORE_VIEWS
from fgdd_fast.labels.training_views import ViewRecipe, draw_epoch
from fgdd_fast.selection.ranking import RANKINGS, make_ranking
from fgdd_fast.selection.records import ImageRecord, Tile, View
from fgdd_fast.selection.select import SelectionSettings
from fgdd_fast.selection.thresholds import parse_rule

RULE = "quantile:0.5"
RULES_ASKED = (RULE, "median")  # which decide alike
CONDITIONS = {"classes": ["a", "b"], "validation": {"labels": [0, 0, 0, 1, 1, 1]}}

shares = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(
    st.sampled_from(RULES),
    st.sampled_from([None, *CONTROLS]),
    st.sampled_from([*RANKINGS]),
    st.sampled_from(SCORE_VIEWS),
    shares,
    shares,
    st.none() | st.integers(0, 64),
)
def test_every_row_is_told_by_its_name(
    rule: str, control: Any, ranking: Any, view: Any, keep: float, area: float, distinct: int | None
) -> None:
    settings = SelectionSettings(ranking, keep, area, distinct)
    row = Row(replace(parse_rule(rule), control=control), settings, view)
    assert parse_row(row.name) == row


@pytest.mark.parametrize(
    "name", ["nonsense", "mean+", "mean+keep:2", "mean+keep:x", "mean+distinct:65", "mean+far"]
)
def test_what_is_no_row_is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        choose_rows([name])


@pytest.mark.parametrize("group", GROUPS)
def test_every_method_of_a_group_has_its_controls_and_extremes(group: str) -> None:
    rows = choose_rows([group])
    names = {name_of(row) for row in rows}
    methods = [row for row in rows if isinstance(row, Row) and row.method]
    assert len({row.rule for row in methods}) == len(RULES)
    for row in methods:
        opponents = {row.control(control).name for control in CONTROLS}
        assert names >= opponents | {row.always("always-patch").name, row.always("always-full").name}
    assert ("random-whole" in names) == (group == "main")
    assert len(names) == len(rows)


def test_rules_of_groups_are_those_of_the_method() -> None:
    assert {name_of(row) for row in choose_rows(["main"], ["mean"], ["shuffled"])} == {
        *("random-whole", "random-crops", "always-patch", "always-full", "mean", "shuffled:mean")
    }
    with pytest.raises(SettingsError, match="always-patch"):
        choose_rows(["main"], ["always-patch"])


def test_groups_show_tiles_as_asked_and_views_in_every_way() -> None:
    methods = [row for row in choose_rows(["rankings"], ["mean"], view="resize") if isinstance(row, Row)]
    assert {row.view for row in methods} == {"resize"}
    names = {name_of(row) for row in choose_rows(["views"], ["mean"], view="resize")}
    assert names >= {"mean", "mean+resize", "mean+native", "always-patch", "always-patch+native"}


def test_pairings_are_between_rows_that_are_there() -> None:
    names = ["random-whole", "always-patch", "mean+kmeans", "shuffled:mean+kmeans", "always-patch+kmeans"]
    pairs = {(pairing.first, pairing.second) for pairing in pairings(names)}
    assert pairs == {
        ("always-patch", "random-whole"),
        ("always-patch+kmeans", "random-whole"),
        ("always-patch+kmeans", "always-patch"),
        *(("mean+kmeans", second) for second in names if second != "mean+kmeans"),
    }


def test_rded_shows_tiles_as_the_row_that_is_held_against_it() -> None:
    names = ["always-patch", "always-patch+resize", "mean+kmeans+resize", "mean", "random-crops"]
    found = {
        (pairing.first, pairing.second)
        for pairing in pairings(names)
        if pairing.question == "better than RDED?" and not pairing.first.startswith("always")
    }
    assert found == {
        ("mean+kmeans+resize", "always-patch+resize"),
        ("mean", "always-patch"),
        ("random-crops", "always-patch"),
        ("random-crops", "always-patch+resize"),
    }


def record(index: int, sha256: str | None = None) -> ImageRecord:
    crop = View(Box(index, 0, 5, 5), 0.1)
    content = sha256 or f"{index:064x}"
    return ImageRecord(f"a/{index}.png", content, "a", 0.5, View(Box(0, 0, 20, 20), index), (crop, crop))


def test_random_images_do_not_depend_on_the_teacher() -> None:
    records = [record(index) for index in range(12)]
    changed = [
        replace(item, full=replace(item.full, loss=-item.full.loss), occupancy=0.1) for item in records
    ]

    def sources(items: Sequence[ImageRecord], seed: int, ipc: int = 2) -> list[str]:
        mosaics = random_mosaics("random-whole", items, ipc=ipc, factor=2, seed=seed)
        return [tile.source for mosaic in mosaics for tile in mosaic.tiles]

    (whole,) = random_mosaics("random-whole", records[:4], ipc=1, factor=2, seed=0)
    (crops,) = random_mosaics("random-crops", records[:4], ipc=1, factor=2, seed=0)
    assert {tile.box for tile in whole.tiles} == {Box(0, 0, 20, 20)}
    assert {tile.box for tile in crops.tiles} == {item.crops[0].box for item in records[:4]}
    assert sources(records, 0) == sources(changed[::-1], 0)
    assert sources(records, 0) != sources(records, 1)
    assert len(set(sources(records, 0, ipc=3))) == 12


def test_random_images_are_distinct_or_too_few() -> None:
    twins = [record(0), record(1, sha256=f"{0:064x}")]
    with pytest.raises(DataError, match="2 random images are needed, and it has 1"):
        random_mosaics("random-whole", twins, ipc=2, factor=1, seed=0)


def test_labels_are_made_once_and_repeated() -> None:
    recipe = ViewRecipe(8, 1, 4, 0)
    asked: list[int] = []

    def label(epoch: int) -> Any:
        asked.append(epoch)
        return draw_epoch(recipe, 4, 8, epoch), np.full((4, 2), epoch, np.float32)

    repeated = RepeatedLabels(label, 3)
    assert [int(repeated(epoch)[1][0, 0]) for epoch in (0, 1, 2, 3, 4, 8, 0)] == [0, 1, 2, 0, 1, 2, 0]
    assert asked == [0, 1, 2]


def test_a_file_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    lines = [set_line(SetKey("mean", 1, seed), "abc", whole=0.5) for seed in range(2)]
    with open_results(path, CONDITIONS) as file:
        file.add(lines[0])
    with path.open("ab") as file_left:
        file_left.write(b'{"kind": "set", "row": "me')
    assert list(read_results(path).sets) == [SetKey("mean", 1, 0)]
    with open_results(path, CONDITIONS) as file:
        assert list(file.found.sets) == [SetKey("mean", 1, 0)]
        file.add(lines[1])
    assert list(read_results(path).sets.values()) == lines


def test_a_file_is_of_one_set_of_conditions_and_one_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with (
        open_results(path, CONDITIONS),
        pytest.raises(OutputError, match="Another run"),
        open_results(path, CONDITIONS),
    ):
        pass
    with (
        pytest.raises(SettingsError, match="other conditions: size"),
        open_results(path, {**CONDITIONS, "size": 3}),
    ):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"[]\n",
        b'{"kind": "conditions"}\n',
        b'{"kind": "conditions", "format": 1}\n{"kind": "set"}\n',
    ],
)
def test_what_holds_no_results_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        parse_results(content, tmp_path / "x.jsonl")


def results_of(
    rows: Mapping[str, Sequence[str]], seeds: int = 3, hard: Mapping[str, Sequence[str]] | None = None
) -> Results:
    """Results in which the students of a row answer alike: right where the text of their seed has a 1.

    Args:
        rows: of students of soft labels, by row.
        seeds: of the selection.
        hard: of students of hard labels, for the same rows, if there are any.
    """
    sets, students = {}, {}
    for labels, answers in {"soft": rows, "hard": hard or {}}.items():
        for row, by_seed in answers.items():
            for seed in range(seeds):
                key = SetKey(row, 1, seed)
                sets[key] = set_line(key, f"{row} {seed}", whole=0.5)
                for training in range(2):
                    student = StudentKey(f"{row} {seed}", seed, labels, "net", training)
                    correct = np.array([letter == "1" for letter in by_seed[seed]])
                    facts = {"top1": float(correct.mean()), "best_top1": 1.0, "correct": pack_bits(correct)}
                    students[student] = student_line(student, **facts)
    return Results(CONDITIONS, (), sets, students, ())


def comparison_of(analysis: Analysis, first: str, second: str) -> Comparison:
    (found,) = (
        found
        for found in analysis.comparisons
        if (found.pairing.first, found.pairing.second) == (first, second)
    )
    return found


def test_figures_of_a_row() -> None:
    analysis = analyse(results_of({"random-whole": ["110000"] * 3, "mean": ["111100", "111100", "110000"]}))
    random, mean = analysis.cells
    assert mean.top1.mean == pytest.approx(10 / 18)
    assert (mean.top1.count, mean.balanced.mean) == (6, pytest.approx(10 / 18))
    assert mean.by_class == pytest.approx((8 / 9, 2 / 9))
    assert (random.ior, mean.ior) == (pytest.approx(0), pytest.approx(4 / 18))
    assert mean.hlr is mean.lrs is None  # nobody learned hard labels
    assert comparison_of(analysis, "mean", "random-whole").difference.mean == pytest.approx(4 / 18)


@pytest.mark.parametrize(
    ("shuffled", "pays"), [(["000000"] * 3, True), (["111110", "111111", "011111"], False)]
)
def test_the_foreground_pays_if_both_rded_and_the_shuffled_control_are_beaten(
    shuffled: list[str], pays: bool
) -> None:
    rows = {"always-patch": ["000000"] * 3, "mean": ["111111"] * 3, "shuffled:mean": shuffled}
    (verdict,) = analyse(results_of(rows)).verdicts
    assert (verdict.row, verdict.pays, verdict.pays_with_few_seeds) == ("mean", pays, pays)


def test_hard_labels_are_judged_by_themselves_and_all_whole_stands_beside() -> None:
    rows = {
        "always-patch": ["000000"] * 3,
        "always-full": ["110000"] * 3,
        "mean": ["111111"] * 3,
        "shuffled:mean": ["000000"] * 3,
    }
    hard = {**rows, "shuffled:mean": ["111111"] * 3, "always-full": ["111100"] * 3}
    soft_verdict, hard_verdict = analyse(results_of(rows, hard=hard)).verdicts
    assert (soft_verdict.labels, soft_verdict.pays) == ("soft", True)
    assert (hard_verdict.labels, hard_verdict.pays) == ("hard", False)
    assert soft_verdict.over_whole is not None
    assert hard_verdict.over_whole is not None
    assert soft_verdict.over_whole.mean == pytest.approx(4 / 6)
    assert hard_verdict.over_whole.mean == pytest.approx(2 / 6)


def test_the_answer_names_what_pays_and_what_is_a_trial() -> None:
    rows = {"always-patch": ["000000"] * 3, "mean": ["111111"] * 3, "shuffled:mean": ["000000"] * 3}
    text = statement(analyse(results_of(rows)).verdicts)
    assert "1 find RDED and the row's own shuffled control both beaten" in text
    assert "mean (net, IPC 1, soft labels)" in text
    assert "trial" not in text
    assert "no sound evidence" not in text
    rows["shuffled:mean"] = rows["mean"]
    text = statement(analyse(results_of(rows, seeds=2)).verdicts)
    assert "no sound evidence" in text
    assert "fewer than 3 selection seeds" in text
    assert "nothing can be said" in statement(())


def test_only_seeds_that_both_rows_have_are_compared() -> None:
    results = results_of({"always-patch": ["000000"] * 3, "mean": ["111111", "000000", "000000"]})
    students = {key: line for key, line in results.students.items() if key.set != "mean 0"}
    compared = comparison_of(analyse(replace(results, students=students)), "mean", "always-patch")
    assert (compared.difference.mean, compared.difference.selection_seeds) == (0, 2)


def test_a_validation_folder_is_halved_by_content_alone(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    for place, pixels in enumerate(images):
        file = tmp_path / "validation" / "ab"[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), images[0] if place == 39 else pixels)
    counts = divide(tmp_path / "validation", tmp_path / "halves")
    assert sum(counts.values()) == 40
    assert min(counts.values()) > 8
    links = {link.name: link for link in (tmp_path / "halves").rglob("*.png")}
    assert links["0.png"].parts[-3] == links["39.png"].parts[-3]
    assert all(link.resolve().parent.name == link.parent.name for link in links.values())
    with pytest.raises(OSError, match="exist"):
        divide(tmp_path / "validation", tmp_path / "halves")


def test_what_was_tried_ranks_as_it_says() -> None:
    """Ten images of rising occupancy and loss, of two kinds of features."""
    tiles = [
        Tile(f"{place}", "0" * 64, Box(0, 0, 1, 1), "full", (place + 1) / 10, 0.0, float(place))
        for place in range(10)
    ]

    def features(tiles: Sequence[Tile]) -> NDArray[np.float32]:
        return np.array([[1, 0] if int(tile.source) < 8 else [0, 1] for tile in tiles], np.float32)

    def ranked(name: str, count: int) -> list[int]:
        return [int(tile.source) for tile in make_ranking(name, features, 0)(tiles, count)]

    assert ranked("occupied", 2) == [9, 8]
    assert ranked("typical", 2) == [2, 3]
    assert ranked("typical-narrow", 5) == [4, 5, 0, 1, 2], "the others follow"
    assert ranked("coverage", 2) == [0, 8]
    assert ranked("best4-kmeans", 2) == [0, 1], "among the eight best all are alike"
