from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_convolutions as tiny
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_export.graphs.graph import read_model, run_model, serialise
from fgdd_export.tile.bundle import make_cropped_graph
from fgdd_export.tile.graph import CroppedGraph, build_cropped_graph
from fgdd_fast.cli import main
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.tiles import teacher_view
from fgdd_fast.models.network import Runtime, Teacher, open_teacher

TILE = 32
CPU = Runtime("cpu", "fp32", 1)


@pytest.fixture
def teacher(tmp_path: Path) -> Bundle:
    return tiny.inverted_residuals(tmp_path)


def figures_of(opened: Teacher) -> tuple[np.ndarray, np.ndarray]:
    """Losses and features of a few tiles."""
    tiles = np.random.default_rng(0).integers(0, 256, (4, TILE, TILE, 3), dtype=np.uint8)
    with closing(opened):
        shown = np.stack([opened.show(tile) for tile in tiles])
        return opened.losses(shown, np.arange(4, dtype=np.int32) % 3), opened.features(shown)


def opened(bundle: Bundle, runtime: Runtime = CPU) -> Teacher:
    return open_teacher(bundle, runtime=lambda _: runtime, view="pad", tile_size=TILE, batch=2)


def test_the_form_lies_beside_its_teacher_and_is_used(teacher: Bundle) -> None:
    before = opened(teacher)
    assert before.bundle.sha256 == teacher.sha256
    form = make_cropped_graph(teacher, TILE)
    assert form is not None
    assert form.onnx.name == f"teacher.tile{TILE}.onnx"
    assert form.parity["max_loss_difference"] < 1e-4
    assert [spec.name for spec in form.outputs] == ["logits", "loss", "features"]
    after = opened(teacher)
    assert after.bundle.sha256 == form.sha256
    assert after.size == (TILE, TILE)
    assert dict(before.fingerprint) != dict(after.fingerprint)
    expected = figures_of(before)
    for found, values in zip(figures_of(after), expected, strict=True):
        np.testing.assert_allclose(found, values, atol=2e-5)
    assert expected[1].std(axis=0).max() > 1e-3


def test_other_views_and_tiles_take_the_teacher_itself(teacher: Bundle) -> None:
    make_cropped_graph(teacher, TILE)
    for view, tile in (("resize", TILE), ("pad", TILE + 8)):
        other = open_teacher(teacher, runtime=lambda _: CPU, view=view, tile_size=tile, batch=1)  # type: ignore[arg-type]
        assert other.bundle.sha256 == teacher.sha256
        other.close()


def test_a_form_that_cannot_run_as_asked_gives_way(teacher: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fgdd_fast")
    make_cropped_graph(teacher, TILE)

    def runtime(bundle: Bundle) -> Runtime:
        if bundle.tile_of is not None:
            raise SettingsError("it has no int8 variant beside it")
        return CPU

    whole = open_teacher(teacher, runtime=runtime, view="pad", tile_size=TILE, batch=1)
    whole.close()
    assert whole.bundle.sha256 == teacher.sha256
    assert caplog.messages == [f"teacher.tile{TILE}: not used. it has no int8 variant beside it"]


def test_a_form_of_another_teacher_is_refused(teacher: Bundle) -> None:
    form = make_cropped_graph(teacher, TILE)
    assert form is not None
    write_bundle(replace(form, tile_of="0" * 64), form.onnx.read_bytes())
    with pytest.raises(BundleError, match="does not belong to the teacher") as caught:
        opened(teacher)
    assert "teacher tile" in caught.value.advice


def test_a_form_named_itself_shows_tiles_of_its_size_only(teacher: Bundle) -> None:
    form = make_cropped_graph(teacher, TILE)
    assert form is not None
    for view, tile in (("native", TILE), ("pad", TILE + 1)):
        with pytest.raises(SettingsError, match="takes tiles of 32 pixels"):
            Teacher(form, CPU, view=view, tile_size=tile, batch=1)  # type: ignore[arg-type]


def test_no_form_of_a_form_or_without_a_pad_value_or_a_gain(teacher: Bundle) -> None:
    form = make_cropped_graph(teacher, TILE)
    assert form is not None
    without = replace(teacher, preprocessing=replace(teacher.preprocessing, pad_value=None))
    assert make_cropped_graph(teacher, tiny.SIDE) is None  # as large as the view: nothing to gain
    for bundle, words in ((form, "no teacher in fp32"), (without, "no pixel value")):
        with pytest.raises(SettingsError, match=words):
            make_cropped_graph(bundle, TILE)


def test_the_command_writes_a_form_for_each_size(teacher: Bundle) -> None:
    result = CliRunner().invoke(main, ["teacher", "tile", str(teacher.onnx), "--tile", "32", "--tile", "16"])
    assert result.exit_code == 0, result.output
    for tile in (16, 32):
        assert load_bundle(teacher.beside(f"tile{tile}")).tile_of == teacher.sha256
    assert [form.preprocessing.width for form in teacher.cropped_graphs()] == [16, 32]


def test_the_command_says_where_nothing_is_gained(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["teacher", "tile", str(tiny.mixing(tmp_path).onnx), "--tile", "32"])
    assert result.exit_code == 0
    assert "no layers that need only a part" in result.output
    assert not list(tmp_path.glob("*tile*"))


def test_a_conversion_makes_variants_of_the_tile_form_as_well(teacher: Bundle, tmp_path: Path) -> None:
    form = make_cropped_graph(teacher, TILE)
    assert form is not None
    command = ["convert", str(teacher.onnx), "--precision", "bf16", "--force", "--check-images", "4"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    for bundle in (teacher, form):
        variant = bundle.find_variant("bf16")
        assert variant is not None
        assert variant.variant_of == bundle.sha256
        assert variant.outputs == bundle.outputs  # with the features
    assert [each.sha256 for each in teacher.cropped_graphs()] == [form.sha256]  # a variant of it is none


# The graph


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


def test_a_tile_that_nearly_fills_the_view_saves_nothing(tmp_path: Path) -> None:
    assert tile_graph(tiny.inverted_residuals(tmp_path), tiny.SIDE - 2) is None
