"""Names: of classes, prompts, validation folders and recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from odd_data import numbered, only, put_pictures

import fgdd_fast
from fgdd_fast.checking import classes
from fgdd_fast.checking.seen import Seen
from fgdd_fast.class_names import match_by_answers, match_by_spelling, natural_order
from fgdd_fast.images.dataset import survey


def test_numbered_classes_are_said_to_be_in_the_order_of_strings(tmp_path: Path) -> None:
    put_pictures(tmp_path / "a", {str(place): numbered(2) for place in (1, 2, 10)})
    found = only(fgdd_fast.check_data(tmp_path / "a", needs="names"), "class-order")
    assert found.severity == "note"
    assert "'1', '10', '2'" in found.message
    put_pictures(tmp_path / "b", {f"{place:02}": numbered(2) for place in (1, 2, 10)})
    assert fgdd_fast.check_data(tmp_path / "b", needs="names") == ()


def test_names_that_differ_in_little_are_named(tmp_path: Path) -> None:
    put_pictures(
        tmp_path, {name: numbered(2) for name in ("T-shirt", "t shirt", "hat", "caf\u00e9", "cafe\u0301")}
    )
    found = [each for each in fgdd_fast.check_data(tmp_path, needs="names") if each.code == "names-alike"]
    assert sorted(each.files for each in found) == [("T-shirt", "t shirt"), ("cafe\u0301", "caf\u00e9")]


def test_what_a_model_is_asked_by_is_looked_at_where_names_are_asked(tmp_path: Path) -> None:
    names = (
        "shirt",
        "shirt_collar",
        "t-shirt",
        "long_sleeve_polo_shirt",
        "n02123045",
        "pickUp",
        "747",
        "dog",
    )
    data = survey(put_pictures(tmp_path, {name: numbered(2) for name in names}))
    prompted = {"747": ("jumbo jet",)}
    found = list(classes.prompts(Seen(data, data.images, asked_by_class=True, prompts=prompted)))
    named = {each.files: each for each in found}
    assert set(named) == {
        ("t-shirt",),
        ("long_sleeve_polo_shirt",),
        ("n02123045",),
        ("pickUp",),
        ("shirt", "shirt_collar"),
    }
    assert named["n02123045",].severity == "error"
    assert named["shirt", "shirt_collar"].severity == "note"
    assert all("--prompts" in each.advice for each in found)
    assert list(classes.prompts(Seen(data, data.images))) == []


def test_classes_that_one_of_two_folders_lacks_are_named(tmp_path: Path) -> None:
    data = put_pictures(tmp_path / "data", {"cat": numbered(2), "dog": numbered(2), "eel": numbered(2)})
    held = put_pictures(tmp_path / "held", {"cat": numbered(2), "cow": numbered(2)})
    found = fgdd_fast.check_data(data, held, needs="names")
    assert [(each.code, each.severity, each.files) for each in found] == [
        ("validation-classes", "error", ("cow",)),
        ("validation-classes", "warning", ("dog", "eel")),
    ]


def test_frames_of_one_scene_on_both_sides_are_said_before_accuracy_is_believed(tmp_path: Path) -> None:
    films = {
        name: [f"film{film}_{frame:03}.png" for film in (1, 2) for frame in range(5)]
        for name in ("cat", "dog")
    }
    data = put_pictures(tmp_path / "data", films)
    found = only(fgdd_fast.check_data(data, needs="names", held_out=True), "recordings")
    assert (found.severity, len(found.groups), len(found.files)) == ("warning", 4, 20)
    assert "--group" in found.advice
    assert only(fgdd_fast.check_data(data, needs="names"), "recordings").severity == "note"
    held = put_pictures(
        tmp_path / "held", {"cat": ["film1_007.png", "film9_001.png"], "dog": ["film2_900.png", "x.png"]}
    )
    found = only(fgdd_fast.check_data(data, held, needs="names"), "recordings")
    assert found.files == (f"{held}/cat/film1_007.png", f"{held}/dog/film2_900.png")
    assert "(50%)" in found.message


def test_names_are_matched_by_spelling() -> None:
    folders = ("dress", "longsleeve", "t-shirt")
    assert match_by_spelling(("T Shirt", "Dress", "Long sleeve", "Hat"), folders) == {
        "dress": "Dress", "longsleeve": "Long sleeve", "t-shirt": "T Shirt",
    }  # fmt: skip
    assert match_by_spelling(("LABEL_0", "LABEL_1", "LABEL_2"), folders) is None
    assert match_by_spelling(("Dress", "DRESS", "t-shirt", "longsleeve"), folders) is None
    assert match_by_spelling(("cafe\u0301",), ("caf\u00e9",)) == {"caf\u00e9": "cafe\u0301"}


def test_names_are_matched_by_what_outputs_answer() -> None:
    assert match_by_answers(np.array([[1, 9, 0, 0], [8, 1, 0, 1], [0, 0, 2, 8]])) == (1, 0, 3)
    assert match_by_answers(np.array([[1, 9], [2, 8]])) is None  # both folders are one output's
    assert match_by_answers(np.array([[5, 5], [9, 1]])) is None  # no majority


@pytest.mark.parametrize("names", [["1", "2", "10"], ["a1b2", "a1b10", "a2"], ["", "0", "00", "x"]])
def test_natural_order_takes_digits_as_numbers(names: list[str]) -> None:
    assert natural_order(names[::-1]) == names
