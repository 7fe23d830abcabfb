"""Mosaics: RDED's order of cells, composition and encoding."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from record_strategies import make_record, quick

from fgdd_fast.output.mosaic import arrange, compose, encode
from fgdd_fast.selection.records import Tile
from fgdd_fast.selection.select import select
from fgdd_fast.selection.thresholds import parse_rule


def ranked_tiles(count: int) -> tuple[Tile, ...]:
    records = [make_record(f"{rank:04}", crops=(float(rank),)) for rank in range(count)]
    return select(records, parse_rule("always-patch"), count, 0).tiles


def test_cell_k_of_mosaic_j_takes_rank_k_times_ipc_plus_j() -> None:
    mosaics = arrange(ranked_tiles(12), ipc=3, factor=2)
    assert [mosaic.index for mosaic in mosaics] == [0, 1, 2]
    ranks = [[int(tile.source) for tile in mosaic.tiles] for mosaic in mosaics]
    assert ranks == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


@quick
@given(st.integers(1, 6), st.integers(1, 4))
def test_every_tile_is_used_once(ipc: int, factor: int) -> None:
    tiles = ranked_tiles(ipc * factor**2)
    mosaics = arrange(tiles, ipc, factor)
    assert len(mosaics) == ipc
    for cell in range(factor**2):
        for mosaic in mosaics:
            assert mosaic.tiles[cell] == tiles[cell * ipc + mosaic.index]


@pytest.mark.parametrize("count", [0, 11, 13])
def test_another_number_of_tiles_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="need 12 tiles"):
        arrange(ranked_tiles(12)[:count] if count < 12 else ranked_tiles(13), ipc=3, factor=2)
    with pytest.raises(ValueError, match="needs"):
        compose([np.zeros((5, 5, 3), np.uint8)] * count, factor=2)


def test_jpeg_is_close_and_keeps_full_colour_resolution() -> None:
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    pixels = np.dstack([ramp, ramp[::-1], 255 - ramp])
    pixels[:, 31:] = (255, 0, 0)  # a seam of colour inside a chroma block
    with Image.open(io.BytesIO(encode(pixels, "jpg"))) as image:
        assert image.format == "JPEG"
        assert [component[1:3] for component in image.layer] == [(1, 1)] * 3, "4:4:4"
        error = np.abs(np.asarray(image, np.int16) - pixels)
    assert error.mean() < 3
