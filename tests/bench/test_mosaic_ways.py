"""Composing: every way writes what the plan says, in its order and in the format that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_references as tiny

pytest.importorskip("torch")

from fgdd_bench.harness.subject import Composition
from fgdd_bench.ours.mosaics import ComposingWay, ProductMosaics
from fgdd_bench.references.mosaics import FairMosaics, PublishedMosaics
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import DataSet
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.headers import read_header
from fgdd_fast.images.tiles import tile_pixels


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return tiny.squares(tmp_path)


@contextmanager
def ways(folder: Path, composition: Composition) -> Iterator[list[ComposingWay]]:
    subject = tiny.subject(folder, composition=composition)
    with ExitStack() as stack:
        opened = [
            ProductMosaics(tiny.TASK, subject),
            PublishedMosaics(tiny.TASK, subject),
            FairMosaics(tiny.TASK, subject, column="fair"),
        ]
        for way in opened:
            stack.enter_context(way)
        yield opened


def test_cells_are_the_tiles_of_the_plan(data: DataSet, tmp_path: Path) -> None:
    composition = tiny.composition(data)
    expected = [
        [
            tile_pixels(read_image(data.root / tile.source).pixels, tile.box, 16, "area")
            for tile in mosaic.tiles
        ]
        for _, mosaic in composition.plan.mosaics
    ]
    with ways(tmp_path, composition) as opened:
        for way, tolerance in zip(opened, (0, 6, 0.5), strict=True):  # mean grey levels
            mosaics = way.run(data.images)["mosaics"].astype(float)
            for mosaic, tiles in zip(mosaics, expected, strict=True):
                cells = mosaic.reshape(2, 16, 2, 16, 3).swapaxes(1, 2).reshape(4, 16, 16, 3)
                assert np.abs(cells - np.array(tiles)).mean() <= tolerance


def test_photographs_may_become_jpeg(data: DataSet, tmp_path: Path) -> None:
    composition = tiny.composition(data)
    jpeg = replace(composition, settings=replace(composition.settings, format="jpg"))
    with ways(tmp_path, composition) as exact, ways(tmp_path, jpeg) as lossy:
        for lossless, way in zip(exact, lossy, strict=True):
            apart = np.abs(way.run(data.images)["mosaics"].astype(int) - lossless.run(data.images)["mosaics"])
            assert 0 < apart.mean() < 4
            files = [file for file in way._folder.rglob("*") if file.is_file()]
            assert [read_header(file.read_bytes()).format for file in files] == ["JPEG"] * 6


def test_nothing_stays_on_the_disk(data: DataSet, tmp_path: Path) -> None:
    with ways(tmp_path, tiny.composition(data)) as opened:
        for way in opened:
            way.run(data.images)
            assert any(way._folder.iterdir())
    assert not any(way._folder.exists() for way in opened)


def test_images_that_the_mosaics_take_must_be_given(data: DataSet, tmp_path: Path) -> None:
    with ways(tmp_path, tiny.composition(data)) as opened:
        for way in opened:
            with pytest.raises(SettingsError, match=r"such as blue/00\.png"):
                way.run(data.images[1:])
