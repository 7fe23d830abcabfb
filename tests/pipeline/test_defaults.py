"""What is distilled where little is asked for: all images whole, and crops only where they cannot fill up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tiny_distillation import assert_refused, contents, distill

from fgdd_fast.options import MeasureOptions, PlanOptions, foreground_for
from fgdd_fast.output.manifest_reading import read_manifest


def losses(workplace: Path) -> int:
    """How many views the teacher saw, by the tests' store."""
    with closing(sqlite3.connect(workplace / "store" / "measurements.sqlite3")) as store:
        return int(store.execute("SELECT total(length(content)) / 24 FROM losses").fetchone()[0])


def chosen(out: Path) -> list[tuple[str, Any, str, float]]:
    manifest = read_manifest(out)
    return [
        (tile.source, tile.box, tile.kind, tile.loss) for image in manifest.images for tile in image.tiles
    ]


def test_by_default_all_images_are_whole_and_nothing_else_is_measured(workplace: Path) -> None:
    assert distill(workplace, foreground=None).exit_code == 0
    manifest = read_manifest(workplace / "out")
    assert (manifest.settings["rule"], manifest.models["foreground"].name) == ("always-full", "none")
    assert {kind for *_, kind, _ in chosen(workplace / "out")} == {"full"}
    assert losses(workplace) == 24  # one view of each image


def test_the_shortcut_takes_what_measuring_everything_takes(workplace: Path) -> None:
    foreground = workplace / "tiny-foreground.onnx"
    for file in sorted((workplace / "data" / "red").iterdir())[3:]:
        file.unlink()
    assert distill(workplace, foreground=None).exit_code == 0
    assert losses(workplace) < 16 * 2 + 3 * 4 + 1  # only the small class's crops were looked at
    everything = {"foreground": foreground, "rule": "always-full", "store": workplace / "other"}
    assert distill(workplace, "measured", **everything).exit_code == 0
    assert chosen(workplace / "out") == chosen(workplace / "measured")
    assert "crop" in {kind for source, _, kind, _ in chosen(workplace / "out") if source.startswith("red")}


def test_a_stopped_run_and_another_store_give_the_same_bytes(workplace: Path) -> None:
    assert distill(workplace, foreground=None, threads=1).exit_code == 0
    assert distill(workplace, "again", foreground=None, threads=4, store=workplace / "other").exit_code == 0
    assert contents(workplace / "again") == contents(workplace / "out")


def test_naming_a_foreground_or_a_rule_that_needs_one_is_asking_for_it(workplace: Path) -> None:
    assert distill(workplace).exit_code == 0
    assert read_manifest(workplace / "out").settings["rule"] == "quantile:0.3"
    plain = MeasureOptions()
    for rule, model in {"mean": "saliency-u2netp", "always-patch": "none", "always-full": "none"}.items():
        assert foreground_for(PlanOptions(rule=rule).settings(plain)) == model
    keeping = PlanOptions(rule="always-patch", keep_foreground=0.5).settings(plain)
    assert foreground_for(keeping) == "saliency-u2netp"


@pytest.mark.parametrize(
    "options", [{"rule": "quantile:0.3"}, {"rule": "always-patch", "keep_foreground": 0.7}]
)
def test_a_rule_that_needs_a_foreground_is_refused_without_one(
    workplace: Path, options: dict[str, Any]
) -> None:
    result = distill(workplace, foreground="none", **options)
    assert_refused(result, "asks for a foreground", "--foreground saliency-u2netp")
    assert not (workplace / "out").exists()
