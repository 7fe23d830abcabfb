"""Which images are measured, and the mosaics that are composed of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from fake_ways import TASK

from fgdd_bench.harness.originals import (
    choose_originals,
    compose_plan,
    draw_composition,
    mosaic_settings,
    record_of,
)
from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.images.dataset import scan
from fgdd_fast.images.decode import read_image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_squares(tmp_path / "data", 6)


def test_images_come_from_all_classes_alike(data: Path) -> None:
    originals, skipped = choose_originals(scan(data), 8, seed=0)
    counts = Counter(original.image.class_name for original in originals)
    assert sorted(counts.values()) == [2, 3, 3]
    assert skipped == []
    for original in originals:
        pixels = read_image(original.image.path)
        assert original.file.sha256 == pixels.sha256
        assert (original.file.height, original.file.width) == pixels.pixels.shape[:2]


def test_the_seed_says_which(data: Path) -> None:
    names = [
        {original.image.source for original in choose_originals(scan(data), 6, seed)[0]} for seed in (0, 0, 1)
    ]
    assert names[0] == names[1] != names[2]


def test_more_than_there_are_is_all(data: Path) -> None:
    assert len(choose_originals(scan(data), 1000, seed=0)[0]) == 18


def test_what_cannot_be_read_is_left_out_and_said(data: Path) -> None:
    (data / "red" / "03.png").write_bytes(b"\x89PNG and no more")
    originals, skipped = choose_originals(scan(data), 18, seed=0)
    assert len(originals) == 17
    assert [item.source for item in skipped] == ["red/03.png"]


def test_a_folder_without_any_usable_image(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="can be used"):
        choose_originals(scan(tmp_path), 1, seed=0)


def test_drawn_mosaics_fill_every_class(data: Path) -> None:
    originals, _ = choose_originals(scan(data), 18, seed=0)
    composition = draw_composition(originals, TASK, size=16)
    assert composition.settings.ipc == 1  # of six images a class one mosaic of four tiles
    assert [plan.name for plan in composition.plan.classes] == ["blue", "green", "red"]
    tiles = [tile for _, mosaic in composition.plan.mosaics for tile in mosaic.tiles]
    assert len(tiles) == len(set(tiles)) == 12
    assert {tile.kind for tile in tiles} == {"full", "crop"}
    backwards = draw_composition(originals[::-1], TASK, size=16)
    assert list(backwards.plan.mosaics) == list(composition.plan.mosaics)
    assert draw_composition(originals, replace(TASK, seed=1), size=16).plan != composition.plan


def test_many_crops_can_be_drawn(data: Path) -> None:
    originals, _ = choose_originals(scan(data), 6, seed=0)
    assert draw_composition(originals, replace(TASK, crops=80), size=16).plan.classes


def test_mosaics_of_measurements_take_the_lowest_losses(data: Path) -> None:
    originals, _ = choose_originals(scan(data), 18, seed=0)
    records = [
        record_of(original, 0.5, [place, *[100.0] * TASK.crops], TASK)
        for place, original in enumerate(originals)
    ]
    plan = compose_plan(records, mosaic_settings(originals, TASK, 16)).plan
    for part in plan.classes:
        assert [tile.loss for tile in part.selection.tiles] == sorted(part.full_losses)[:4]


def test_what_cannot_be_composed_is_an_error(data: Path) -> None:
    originals, _ = choose_originals(scan(data), 18, seed=0)
    with pytest.raises(SettingsError, match="equal tiles"):
        draw_composition(originals, TASK, size=15)
    with pytest.raises(DataError, match="too small"):
        draw_composition(originals[:1], replace(TASK, crops=2), size=16)
