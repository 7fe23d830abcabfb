"""`fgdd-fast distill` with given masks, and with a model that is asked for each class by its name."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from tiny_distillation import IMAGES, assert_refused, contents, distill
from tiny_grounded import write_grounded_bundle

from fgdd_fast.output.manifest_reading import read_manifest


@pytest.fixture
def masks(workplace: Path) -> Path:
    return tiny.write_masks(workplace)


def test_given_masks_say_the_occupancy_exactly(workplace: Path, masks: Path) -> None:
    result = distill(workplace, foreground=f"masks:{masks}")
    assert result.exit_code == 0, result.output
    manifest = read_manifest(workplace / "out")
    assert manifest.models["foreground"].name == "masks"
    assert manifest.prompts == {}
    assert "box_threshold" not in manifest.settings
    for tile in (tile for image in manifest.images for tile in image.tiles):
        assert tile.occupancy == tiny.coloured(workplace / "data" / tile.source).mean()
    assert distill(workplace, "again", foreground=f"masks:{masks}", store=workplace / "new").exit_code == 0
    assert contents(workplace / "again") == contents(workplace / "out")


def test_a_class_of_which_no_image_can_be_used_is_named_with_the_reasons(
    workplace: Path, masks: Path
) -> None:
    for number, file in enumerate(sorted((masks / "red").iterdir())):
        if number == 0:
            file.write_bytes(b"")
        else:
            file.unlink()
    result = distill(workplace, foreground=f"masks:{masks}")
    count = len(list((workplace / "data" / "red").iterdir())) - 1
    assert_refused(
        result, "'red'", f"{count} x has no mask of its name; 1 x its mask cannot be used: empty file"
    )


@pytest.mark.parametrize("split", [False, True], ids=["joint", "split"])
def test_grounded_sam2_is_asked_for_each_class_by_its_name(workplace: Path, split: bool) -> None:
    bundle = write_grounded_bundle(workplace, split=split)
    result = distill(workplace, "out", foreground=bundle.onnx, device="auto")
    assert result.exit_code == 0, result.output
    assert "compared with nothing else" in result.output  # why the reference runs it
    manifest = read_manifest(workplace / "out")
    assert manifest.models["foreground"].sha256 == bundle.sha256
    assert manifest.prompts == {name: (name,) for name in tiny.CLASSES}
    assert manifest.box_threshold == bundle.prompting["threshold"]
    for tile in (tile for image in manifest.images for tile in image.tiles):
        truth = tiny.coloured(workplace / "data" / tile.source).mean()
        assert tile.occupancy == pytest.approx(truth, abs=0.08)  # the mask has 16 x 16 pixels
    with closing(sqlite3.connect(workplace / "store" / "measurements.sqlite3")) as database:
        for table in ("boxes", "masks"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (3 * IMAGES,)


def test_prompts_and_threshold_decide_what_is_found(workplace: Path) -> None:
    bundle = write_grounded_bundle(workplace)
    (workplace / "data" / "red").rename(workplace / "data" / "n00000001")
    tiny.teacher_bundle(workplace, ("blue", "green", "n00000001"))
    assert_refused(distill(workplace, foreground=bundle.onnx), "n00000001", "--prompts")
    assert not (workplace / "store").exists()  # it was seen before anything was measured
    prompts = workplace / "prompts.json"
    prompts.write_text(json.dumps({"n00000001": ["patch", "red"], "green": "blue", "elsewhere": "cup"}))
    result = distill(workplace, foreground=bundle.onnx, prompts=prompts)
    assert result.exit_code == 0, result.output
    manifest = read_manifest(workplace / "out")
    asked = {"blue": ("blue",), "green": ("blue",), "n00000001": ("patch", "red")}
    assert manifest.prompts == asked
    found = {image.class_name: max(tile.occupancy for tile in image.tiles) > 0 for image in manifest.images}
    assert found == {"blue": True, "green": False, "n00000001": True}  # nothing blue is in a green square
    assert (
        distill(workplace, "strict", foreground=bundle.onnx, prompts=prompts, box_threshold=1).exit_code == 0
    )
    strict = read_manifest(workplace / "strict")
    assert strict.box_threshold == 1
    assert {tile.occupancy for image in strict.images for tile in image.tiles} == {0}


@pytest.mark.parametrize("option", ["prompts", "box_threshold"])
@pytest.mark.parametrize("model", ["tiny-foreground.onnx", "masks"])
def test_what_no_model_is_asked_is_refused(workplace: Path, masks: Path, option: str, model: str) -> None:
    prompts = workplace / "prompts.txt"
    prompts.write_text("red red patch\n")
    value = {"prompts": prompts, "box_threshold": 0.5}[option]
    foreground = f"masks:{masks}" if model == "masks" else workplace / model
    name = f"--{option.replace('_', '-')}"
    assert_refused(distill(workplace, foreground=foreground, **{option: value}), name, "does not apply")
    assert not (workplace / "store").exists()


def test_bad_masks_and_prompts_are_explained(workplace: Path) -> None:
    assert_refused(distill(workplace, foreground="masks:"), "masks:FOLDER")
    assert_refused(distill(workplace, foreground=f"masks:{workplace / 'none'}"), "no folder of masks")
    bundle = write_grounded_bundle(workplace)
    assert_refused(distill(workplace, foreground=bundle.onnx, prompts=workplace / "none"), "cannot be read")
    (workplace / "prompts.json").write_text('{"red": []}')
    assert_refused(
        distill(workplace, foreground=bundle.onnx, prompts=workplace / "prompts.json"), "'red' has no phrase"
    )
    assert_refused(distill(workplace, foreground=bundle.onnx, box_threshold=2), "--box-threshold")
    assert not (workplace / "out").exists()
