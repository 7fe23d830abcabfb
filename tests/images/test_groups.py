"""Frames of one recording, and splits that keep them together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.groups import RECORDING, grouping, hold_out_groups, recordings


def images(*sources: str) -> list[SourceImage]:
    return [SourceImage(source, source.split("/")[0], Path()) for source in sources]


def test_a_group_is_what_the_expression_finds() -> None:
    assert grouping(r"film\d+")("cat/film2/017.jpg") == "film2"
    assert grouping(r"/(film\d+)/")("cat/film2/017.jpg") == "film2"
    assert grouping(r"film\d+")("cat/other.jpg") == "cat/other.jpg"
    assert grouping(RECORDING)("cat/film2_017.jpg") == grouping(RECORDING)("cat/film2_018.png")
    with pytest.raises(SettingsError, match="is no regular expression"):
        grouping("(")


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6)), min_size=1, max_size=60),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
)
def test_no_group_lies_on_both_sides(members: list[tuple[str, int]], share: float, seed: int) -> None:
    given_images = images(*(f"{name}/g{group}_{place}.jpg" for place, (name, group) in enumerate(members)))
    group_of = grouping(r"(\w/g\d+)_")
    fitted, held = hold_out_groups(given_images, share, seed, group_of)
    assert sorted(image.source for image in (*fitted, *held)) == sorted(i.source for i in given_images)
    sides = [{group_of(image.source) for image in side} for side in (fitted, held)]
    assert not sides[0] & sides[1]
    for name in {name for name, _ in members}:
        groups = {group for other, group in members if other == name}
        assert any(image.class_name == name for image in fitted)
        assert any(image.class_name == name for image in held) is (len(groups) > 1)
    assert hold_out_groups(given_images, share, seed, group_of) == (fitted, held)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([f"film{f}_{n:03}.jpg" for f in (1, 2) for n in range(0, 50, 10)], 2),
        ([f"film{f}/{n}.png" for f in (1, 2, 3) for n in range(4)], 3),
        ([f"{n}.jpg" for n in range(20)], 0),  # all of a class are numbered, which says nothing
        ([f"n0144_{n * n * 7919 % 9973}.JPEG" for n in range(20)], 0),
        ([f"IMG_2020010{d}_{t}.jpg" for d in (1, 2) for t in (101502, 113044, 170001, 203018)], 0),
        (["a1.jpg", "a2.jpg", "b1.jpg", "b2.jpg"], 0),  # two are no film
    ],
)
def test_recordings_are_told_by_names_alone(names: list[str], found: int) -> None:
    assert len(recordings(f"cat/{name}" for name in names)) == found
