"""Two foreground models are compared: figures that are known, through Python and the command; bad input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from tiny_distillation import IMAGES, assert_refused, distill
from tiny_grounded import write_grounded_bundle

import fgdd_fast
from fgdd_fast.cli import main
from fgdd_fast.comparison import Agreement, ForegroundComparison, mask_overlap
from fgdd_fast.errors import DataError
from fgdd_fast.models.saliency import SaliencyModel

SIDE = 10  # of the pictures whose masks are filled row by row, to so many percent
EXPECTED = {"blue": [0, 50], "red": [10, 20, 30, 40]}
FOUND = {"blue": [0, 50], "red": [20, 10, 30, 0]}


def write(folder: Path, shares: Mapping[str, Sequence[int]], side: int = SIDE) -> str:
    """Write masks, and the pictures that they are of beside them."""
    for name, percents in shares.items():
        (folder / name).mkdir(parents=True)
        (folder.parent / "data" / name).mkdir(parents=True, exist_ok=True)
        for index, percent in enumerate(percents):
            mask = np.zeros((side, side), np.uint8)
            mask.ravel()[: percent * side * side // 100] = 255
            assert cv2.imwrite(str(folder / name / f"{index}.png"), mask)
            pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            assert cv2.imwrite(str(folder.parent / "data" / name / f"{index}.png"), pixels)
    return f"masks:{folder}"


def compare(folder: Path, expected: str, found: str, **options: object) -> ForegroundComparison:
    return fgdd_fast.compare_foregrounds(
        folder / "data", expected, foreground=found, store=folder / "store", **options
    )


def measure(folder: Path, *options: str) -> Result:
    words = ["measure", str(folder / "data"), "--store", str(folder / "store"), "--device", "cpu"]
    return CliRunner().invoke(main, [*words, "--crops", "3", *options])


@pytest.mark.usefixtures("nothing_on_the_terminal")
def test_the_figures_are_those_of_the_masks(tmp_path: Path) -> None:
    expected, found = write(tmp_path / "expected", EXPECTED), write(tmp_path / "found", FOUND)
    compared = compare(tmp_path, expected, found)
    red, blue = compared.classes["red"], compared.classes["blue"]
    assert red == Agreement(
        images=4,
        mean_error=pytest.approx(0.15),
        largest_error=pytest.approx(0.4),
        bias=pytest.approx(-0.1),
        iou=pytest.approx(0.5),
        masks=4,
        rank_correlation=pytest.approx(-0.4),
        path_agreement=0.25,  # whole are the last three, and the first and third
        nothing_found=1,
        nothing_expected=0,
        nothing_in_either=1,
    )
    assert (blue.mean_error, blue.iou, blue.masks, blue.rank_correlation) == (0, 1, 1, 1)
    assert (blue.path_agreement, blue.nothing_found, blue.nothing_expected) == (1, 1, 1)
    assert compared.overall == Agreement(
        images=6,
        mean_error=pytest.approx(0.1),
        largest_error=pytest.approx(0.4),
        bias=pytest.approx(-0.4 / 6),
        iou=pytest.approx(3 / 5),
        masks=5,
        rank_correlation=pytest.approx((4 * -0.4 + 2 * 1) / 6),
        path_agreement=0.5,
        nothing_found=2,
        nothing_expected=1,
        nothing_in_either=2,
    )
    assert list(compared.classes) == ["blue", "red"]
    assert compared.skipped == ()


def test_another_rule_gives_other_paths(tmp_path: Path) -> None:
    expected, found = write(tmp_path / "expected", EXPECTED), write(tmp_path / "found", FOUND)
    paths = {
        rule: compare(tmp_path, expected, found, rule=rule).classes["red"].path_agreement
        for rule in ("fixed:0.3", "always-patch", "quantile:0")
    }
    assert paths == {"fixed:0.3": 0.75, "always-patch": 1, "quantile:0": 0.75}


def test_the_sides_may_be_exchanged(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", EXPECTED), write(tmp_path / "other", FOUND)
    forth, back = compare(tmp_path, one, other).overall, compare(tmp_path, other, one).overall
    assert back.bias == -forth.bias
    assert (back.nothing_found, back.nothing_expected) == (1, 2)
    for name in ("mean_error", "largest_error", "rank_correlation", "path_agreement", "nothing_in_either"):
        assert getattr(back, name) == getattr(forth, name)


def test_masks_of_different_sizes_are_laid_on_each_other() -> None:
    half, whole = np.zeros((4, 6), np.uint8), np.full((2, 3), 255, np.uint8)
    half[:, :3] = 255
    assert mask_overlap(half, whole) == mask_overlap(whole, half) == 0.5
    assert mask_overlap(half, np.kron(half, np.ones((5, 7), np.uint8))) == pytest.approx(1, abs=0.1)
    assert mask_overlap(half, np.zeros((9, 9), np.uint8)) == 0
    assert mask_overlap(np.zeros((3, 3), np.uint8), np.zeros((9, 9), np.uint8)) == 0


def test_a_class_of_one_image_has_no_order(tmp_path: Path) -> None:
    masks = write(tmp_path / "masks", {"red": [20]})
    overall = compare(tmp_path, masks, masks).overall
    assert (overall.rank_correlation, overall.iou, overall.path_agreement) == (None, 1, 1)


def test_the_command_shows_each_class_and_writes_the_result(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    against = f"masks:{tiny.write_masks(workplace)}"
    options = ("--foreground", str(workplace / "tiny-foreground.onnx"), "--against", against)
    shown = measure(workplace, *options)
    assert shown.exit_code == 0, shown.output
    assert all(f"│ {name} " in shown.output for name in (*tiny.CLASSES, "all"))
    assert "nothing" not in shown.output
    # Both sides are kept: neither is looked for again, not even by a distillation.
    monkeypatch.setattr(SaliencyModel, "find", _fail)
    printed = measure(workplace, *options, "--json")
    result = json.loads(printed.stdout)
    assert (result["foreground"], result["against"]) == ("tiny-foreground", "masks")
    assert (result["rule"], result["skipped"]) == ("quantile:0.3", [])
    assert result["classes"].keys() == set(tiny.CLASSES)
    assert result["all"]["images"] == 3 * IMAGES
    assert 0 < result["all"]["mean_error"] < 0.08  # seen at 16 x 16
    assert result["all"]["iou"] > 0.85
    assert (result["all"]["rank_correlation"], result["all"]["path_agreement"]) == (1, 1)
    assert str(workplace) not in printed.stdout
    file = workplace / "result.json"
    assert measure(workplace, *options, "--json", str(file)).exit_code == 0
    assert json.loads(file.read_text()) == result
    assert distill(workplace).exit_code == 0


def test_losses_are_measured_as_well_where_a_teacher_is_named(workplace: Path) -> None:
    foreground = ("--foreground", str(workplace / "tiny-foreground.onnx"), "--size", "16")
    teacher = ("--teacher", str(workplace / "tiny-teacher.onnx"))
    against = ("--against", f"masks:{tiny.write_masks(workplace)}")
    result = measure(workplace, *foreground, *teacher, *against, "--json")
    assert json.loads(result.stdout)["all"]["images"] == 3 * IMAGES
    again = measure(workplace, *foreground, *teacher)
    assert f"{3 * IMAGES} were known" in again.output


def test_an_image_without_a_mask_is_left_out_and_named(workplace: Path) -> None:
    masks = tiny.write_masks(workplace)
    (masks / "red" / "03.png").unlink()
    options = ("--foreground", str(workplace / "tiny-foreground.onnx"), "--against", f"masks:{masks}")
    result = measure(workplace, *options, "--json", "-")
    assert "red/03.png: has no mask of its name" in result.output
    data = json.loads(result.stdout)
    assert data["classes"]["red"]["images"] == IMAGES - 1
    assert data["skipped"] == [{"source": "red/03.png", "reason": "has no mask of its name"}]


def test_images_of_which_no_two_answers_are_known_end_it(tmp_path: Path) -> None:
    found = write(tmp_path / "found", FOUND)
    others = write(tmp_path / "elsewhere" / "masks", {"green": [10]})
    with pytest.raises(DataError, match="6 x has no mask of its name"):
        compare(tmp_path, others, found)


@pytest.mark.parametrize("side", ["foreground", "against"])
def test_prompts_are_for_the_side_that_is_asked_by_class(workplace: Path, side: str) -> None:
    masks, bundle = f"masks:{tiny.write_masks(workplace)}", write_grounded_bundle(workplace).onnx
    (workplace / "prompts.json").write_text('{"green": "blue"}')
    sides = {"foreground": masks, "against": masks, side: str(bundle)}
    words = [word for name, value in sides.items() for word in (f"--{name}", value)]
    result = measure(workplace, *words, "--prompts", str(workplace / "prompts.json"), "--json")
    assert result.exit_code == 0, result.output
    classes = json.loads(result.stdout)["classes"]
    nothing = "nothing_found" if side == "foreground" else "nothing_expected"
    assert {name: figures[nothing] for name, figures in classes.items()} == {"blue": 0, "green": 8, "red": 0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rule", "mean"), ("--against",)),
        (("--against", "masks:{masks}", "--rule", "meen"), ("'meen' is no threshold rule",)),
        (("--against", "masks:nowhere"), ("There is no folder of masks nowhere",)),
        (("--against", "no-such-model"), ("no-such-model",)),
        (("--against", "masks:{masks}", "--box-threshold", "0.3"), ("--box-threshold does not apply",)),
        ((), ("No teacher is named",)),
    ],
)
def test_what_does_not_go_together_is_refused(
    workplace: Path, options: Sequence[str], words: Sequence[str]
) -> None:
    masks = tiny.write_masks(workplace)
    foreground = ("--foreground", str(workplace / "tiny-foreground.onnx"))
    result = measure(workplace, *foreground, *(option.format(masks=masks) for option in options))
    assert_refused(result, *words)


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("a foreground was looked for again")
