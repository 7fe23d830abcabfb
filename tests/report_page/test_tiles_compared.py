"""Which tiles of two distilled data sets differ, and the reasons that are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_report import write_reported

from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.output.manifest import DistilledImage, Manifest
from fgdd_fast.report_page.comparison import Change, compare, differences
from fgdd_fast.selection.records import Tile


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_reported(tmp_path_factory.mktemp("compared") / "out", ["cat"], ipc=1)


def told(manifest: Manifest, **settings: Any) -> Manifest:
    return replace(manifest, settings={**manifest.settings, **settings})


def with_tile(manifest: Manifest, place: int, **values: Any) -> Manifest:
    """The manifest with one tile changed."""
    (image,) = manifest.images
    tiles = list(image.tiles)
    tiles[place] = replace(tiles[place], **values)
    return replace(manifest, images=(DistilledImage(image.file, image.class_name, tuple(tiles)),))


def only(a: Manifest, b: Manifest) -> tuple[Change, ...]:
    (found,) = compare(a, b)
    return found.changes


def tile(change: Change) -> Tile:
    placed = change.before or change.after
    assert placed is not None
    return placed.tile


def test_what_is_the_same_is_counted(manifest: Manifest) -> None:
    (found,) = compare(manifest, manifest)
    assert (found.same, found.changes, found.thresholds) == (4, (), (0.5, 0.5))
    assert list(differences(manifest, manifest)) == []


def test_settings_and_models_that_differ_are_listed(manifest: Manifest) -> None:
    other = told(replace(manifest, tool={"fgdd-fast": "9"}), rule="mean", least_area=0.2)
    assert {each.name: (each.before, each.after) for each in differences(manifest, other)} == {
        "rule": ("quantile:0.3", "mean"),
        "least_area": ("not set", "0.2"),
        "version of fgdd-fast": ("1.2.3", "9"),
    }


def test_another_threshold_is_the_reason(manifest: Manifest) -> None:
    other = replace(with_tile(manifest, 0, source="cat/new.png", loss=0.9), thresholds={"cat": 0.95})
    gone, new = only(manifest, other)
    assert (tile(gone).source, tile(new).source) == ("cat/0.png", "cat/new.png")
    assert gone.reason == (
        "B would crop it: its occupancy of 0.900 is below the threshold of 0.950 (0.500 in A). As a crop it "
        "ranks behind the tiles of B."
    )


def test_one_image_may_give_another_tile(manifest: Manifest) -> None:
    other = with_tile(manifest, 0, kind="crop", box=Box(0, 0, 9, 9), threshold=0.95)
    (change,) = only(manifest, other)
    assert change.before is not None
    assert change.after is not None
    assert change.reason == (
        "A keeps it whole (occupancy 0.900, threshold 0.500), B crops it (occupancy 0.900, threshold 0.950)."
    )
    (change,) = only(manifest, told(with_tile(manifest, 1, box=Box(0, 0, 9, 9)), crops=9))
    assert change.reason == "Another crop of the same image: crops 5 in A, 9 in B."
    (change,) = only(manifest, with_tile(manifest, 1, sha256="d" * 64))
    assert change.reason == "The file changed."


def test_a_rule_that_asks_for_no_foreground_is_the_reason(manifest: Manifest) -> None:
    other = told(with_tile(manifest, 0, kind="crop", box=Box(0, 0, 9, 9), occupancy=0.2), rule="mean")
    (found,) = compare(other, told(manifest, rule="always-full"))
    assert found.thresholds == (0.5, None)
    assert found.changes[0].reason == (
        "A crops it (occupancy 0.200, threshold 0.500), B keeps it whole (rule always-full)."
    )


def test_a_worse_loss_is_the_reason(manifest: Manifest) -> None:
    better = with_tile(manifest, 3, source="cat/better.png", loss=0.05)
    new, gone = only(manifest, better)
    assert gone.before is not None
    assert gone.reason == "Its loss of 0.300 ranks behind: B takes tiles up to 0.200."
    assert new.reason.startswith("A takes other tiles of this class")


def test_what_was_left_out_or_never_there_is_said(manifest: Manifest) -> None:
    other = replace(
        with_tile(manifest, 3, source="cat/new.png"), skipped=(Skipped("cat/3.png", "truncated"),)
    )
    reasons = {tile(change).source: change.reason for change in only(manifest, other)}
    assert reasons["cat/3.png"] == "B left the image out: truncated."
    renamed = replace(
        manifest,
        classes=("dog",),
        thresholds={"dog": 0.5},
        images=(DistilledImage("images/dog/dog_00000.png", "dog", manifest.images[0].tiles),),
    )
    cat, dog = compare(manifest, renamed)
    assert {change.reason for change in cat.changes} == {"B has no such class."}
    assert {change.reason for change in dog.changes} == {"A has no such class."}
    assert (cat.thresholds, dog.thresholds) == ((0.5, None), (None, 0.5))


def test_settings_explain_what_losses_do_not(manifest: Manifest) -> None:
    other = told(with_tile(manifest, 0, source="cat/new.png"), seed=1)
    gone, _ = only(manifest, other)
    assert gone.reason == "B takes other tiles of this class: seed 0 in A, 1 in B."


def test_fewer_tiles_are_said(manifest: Manifest, tmp_path: Path) -> None:
    more = write_reported(tmp_path / "out", ["cat"], ipc=2)
    reasons = [change.reason for change in only(more, manifest)]
    assert all(reason.endswith("B takes 4 tiles of this class, A 8.") for reason in reasons)
