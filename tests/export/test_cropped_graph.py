from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_convolutions as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdd_engines.bundle.bundle import Bundle
from fgdd_export.graphs.graph import read_model, run_model, serialise
from fgdd_export.tile.graph import CroppedGraph, build_cropped_graph
from fgdd_fast.images.tiles import teacher_view

Make = Callable[[Path], Bundle]
NETWORKS: tuple[Make, ...] = (tiny.inverted_residuals, tiny.basic_blocks)


def tile_graph(bundle: Bundle, tile: int, pad: tuple[int, int, int] = tiny.PAD) -> CroppedGraph | None:
    return build_cropped_graph(read_model(bundle.graph(), "the teacher"), tiny.SIDE, tile, pad)


def tiles_and_labels(count: int, tile: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 256, (count, tile, tile, 3), dtype=np.uint8)
    return tiles, rng.integers(0, len(tiny.CLASSES), count, dtype=np.int32)


def padded(tiles: np.ndarray, pad: tuple[int, int, int] = tiny.PAD) -> np.ndarray:
    return np.stack([teacher_view(tile, "pad", tiny.SIDE, pad) for tile in tiles])


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("tile", [17, 32])
def test_a_tile_gives_what_its_padded_view_gives(make: Make, tile: int, tmp_path: Path) -> None:
    teacher = make(tmp_path)
    made = tile_graph(teacher, tile)
    assert made is not None
    assert made.windowed
    tiles, labels = tiles_and_labels(3, tile)
    expected = run_model(teacher.graph(), {"images": padded(tiles), "labels": labels})
    found = run_model(serialise(made.model), {"images": tiles, "labels": labels})
    assert np.ptp(expected["loss"]) > 0.01
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-5)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(0, 255)] * 3))
def test_any_tile_around_any_pad_value(
    tmp_path_factory: pytest.TempPathFactory, seed: int, pad: tuple[int, int, int]
) -> None:
    teacher = tiny.basic_blocks(tmp_path_factory.mktemp("teacher"))
    made = tile_graph(teacher, 32, pad)
    assert made is not None
    tiles, labels = tiles_and_labels(2, 32, seed)
    expected = run_model(teacher.graph(), {"images": padded(tiles, pad), "labels": labels})
    found = run_model(serialise(made.model), {"images": tiles, "labels": labels})
    np.testing.assert_allclose(found["loss"], expected["loss"], atol=1e-4)


@pytest.mark.parametrize("make", NETWORKS)
def test_the_first_layers_compute_less(make: Make, tmp_path: Path) -> None:
    teacher = make(tmp_path)
    made = tile_graph(teacher, 24)
    assert made is not None
    shapes = onnx.shape_inference.infer_shapes(made.model)
    first = next(node.output[0] for node in made.model.graph.node if node.op_type == "Conv")
    shape = next(value for value in shapes.graph.value_info if value.name == first).type.tensor_type.shape
    assert 12 <= shape.dim[2].dim_value <= 16  # of 48


def test_a_network_whose_first_layers_see_everything_has_no_tile_graph(tmp_path: Path) -> None:
    assert tile_graph(tiny.mixing(tmp_path), 32) is None


def test_a_tile_that_nearly_fills_the_view_saves_nothing(tmp_path: Path) -> None:
    assert tile_graph(tiny.inverted_residuals(tmp_path), tiny.SIDE - 2) is None
