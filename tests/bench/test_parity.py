"""Answers that differ are noticed, by figures with known values, with tolerances that fit the pair."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from fake_implementations import TASK, answer, originals

from fgdd_bench.harness.implementation import PATHS, PathName
from fgdd_bench.harness.parity import (
    FP32,
    ComparisonResult,
    as_json,
    compare,
    compare_answers,
    selected_tiles,
)
from fgdd_engines.base import Array

ORIGINALS = originals()


def compared(
    path: PathName,
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    against: str = FP32,
    *precisions: str,
) -> ComparisonResult:
    return compare(path, against, expected, found, ORIGINALS, TASK, precisions or ("bf16",))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("against", [FP32, "fair"])
def test_equal_answers_agree(path: PathName, against: str) -> None:
    parity = compared(path, answer(path), answer(path), against)
    assert parity.tolerances
    assert parity.failures == ()
    for name, value in parity.figures.items():
        assert value == (0 if "error" in name or "regret" in name else 1), name


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("against", [FP32, "published"])
def test_answers_to_something_else_do_not(path: PathName, against: str) -> None:
    parity = compared(path, answer(path), answer(path, seed=1), against)
    assert parity.failures
    assert all(f"against {against}" in failure for failure in parity.failures)


def test_a_path_is_decided_in_each_class() -> None:
    # the classes take turns; the shirts' occupancies lie above all of the hats'
    expected = np.linspace(0.1, 0.4, 16, dtype=np.float32)
    expected[1::2] += 0.5
    found = expected.copy()
    found[1::2] = found[1::2][::-1]
    figures = compare_answers({"occupancy": expected}, {"occupancy": found}, ORIGINALS, TASK)
    assert figures["same_path"] == pytest.approx(1 - 0.5 * 6 / 8)  # of eight shirts three are cropped
    assert figures["mean_occupancy_error"] == pytest.approx(np.abs(expected - found).mean())


def test_one_crop_in_sixteen_is_too_many() -> None:
    expected, found = answer("teacher"), answer("teacher")
    best = expected["losses"][3, 1:].argmin()
    found["losses"][3, 1 + best] += 10
    parity = compared("teacher", expected, found)
    assert parity.figures["same_crop"] == 15 / 16
    assert parity.failed == ("same_or_near_crop",)
    assert "0.938" in parity.failures[0]
    assert "at least 0.99" in parity.failures[0]


def test_a_crop_that_is_almost_as_good_is_as_good() -> None:
    expected = {"losses": np.tile(np.float32([1, 0.5, 0.51, 2]), (16, 1))}
    found = {"losses": np.tile(np.float32([1, 0.5, 0.49, 2]), (16, 1))}
    parity = compared("teacher", expected, found)
    assert parity.figures["same_crop"] == 0
    assert parity.figures["mean_regret"] == pytest.approx(0.01)
    assert parity.failures == ()


def test_int8_is_judged_by_what_its_crops_cost() -> None:
    expected, found = answer("teacher"), answer("teacher")
    crops = expected["losses"][3, 1:]
    order = crops.argsort()
    expected["losses"][3, 1 + order[1]] = crops[order[0]] + 0.2
    found["losses"][3, 1 + order[1]] = crops[order[0]] - 0.1  # is chosen, at a regret of 0.2 in one of 16
    parity = compared("teacher", expected, found, FP32, "int8", "fp32")
    assert parity.figures["mean_regret"] == pytest.approx(0.2 / 16, rel=1e-4)
    assert parity.failures == ()
    assert compared("teacher", expected, found, FP32, "bf16").failed == ("same_or_near_crop",)
    expected["losses"][3, 1 + order[1]] = crops[order[0]] + 0.4
    assert compared("teacher", expected, found, FP32, "int8").failed == ("mean_regret",)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_fails(value: float) -> None:
    found = answer("all")
    found["losses"][:] = value
    parity = compared("all", answer("all"), found)
    assert "same_or_near_crop" in parity.failed
    assert as_json(parity)["figures"]["mean_loss_error"] is None
    found = answer("all")
    found["occupancy"][:] = value
    assert compared("all", answer("all"), found, "fair").failures
    assert compared("all", answer("all"), found).figures["same_tiles"] == 0


def test_nothing_is_shown_where_nothing_is_found() -> None:
    nothing = {"occupancy": np.zeros(16, np.float32)}
    assert compared("foreground", nothing, nothing).failed == ("with_foreground",)


def test_tiles_that_are_selected() -> None:
    expected = answer("all")
    tiles = selected_tiles(expected, ORIGINALS, TASK)
    assert len(tiles) == 2 * TASK.factor**2  # of each class
    found = answer("all")
    taken = {source for source, _ in tiles}
    loser = next(place for place, original in enumerate(ORIGINALS) if original.image.source in taken)
    found["losses"][loser] += 100
    assert compare_answers(expected, found, ORIGINALS, TASK)["same_tiles"] == 7 / 8


def test_boxes_are_matched() -> None:
    boxes = np.zeros((2, 3, 5), np.float32)
    boxes[0, 0] = 0.1, 0.1, 0.5, 0.5, 0.9
    boxes[0, 1] = 0.6, 0.6, 0.9, 0.9, 0.8
    other = boxes[:, ::-1].copy()  # in another order
    figures = compare_answers({"boxes": boxes}, {"boxes": other}, ORIGINALS, TASK)
    assert figures == {"mean_box_iou": 1, "matched_boxes": 1, "mean_score_error": 0}
    other[0, 2, 4] = 0  # one is not found
    figures = compare_answers({"boxes": boxes}, {"boxes": other}, ORIGINALS, TASK)
    assert (figures["mean_box_iou"], figures["matched_boxes"]) == (0.5, 0.5)
    none = np.zeros_like(boxes)
    assert compare_answers({"boxes": none}, {"boxes": none}, ORIGINALS, TASK)["mean_box_iou"] == 1


def test_masks_are_compared_at_one_size() -> None:
    mask = np.zeros((1, 8, 8), np.uint8)
    mask[0, :, :4] = 200
    half = mask[:, ::2, ::2].copy()
    assert compare_answers({"masks": mask}, {"masks": half}, ORIGINALS, TASK)["mean_mask_iou"] > 0.75
    half[0] = 0
    assert compare_answers({"masks": mask}, {"masks": half}, ORIGINALS, TASK)["lowest_mask_iou"] == 0
