"""A teacher's class activation map becomes a foreground model: what it finds, and which teachers have one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_convolutions
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from installed_devices import available_devices

from fgdd_engines.base import Device, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, load_bundle, write_bundle
from fgdd_export.classifier.class_activation import export_class_activation
from fgdd_export.classifier.teacher import add_loss
from fgdd_export.graphs.graph import GraphBuilder, bundle_of, serialise
from fgdd_export.tile.bundle import make_cropped_graph
from fgdd_fast.cli import main
from fgdd_fast.errors import FgddError, SettingsError, TeacherError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.catalogue.catalogue import own_bundle_path
from fgdd_fast.models.factory import choose_foreground, find_network, open_foreground
from fgdd_fast.models.foreground import Foreground
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime.parity import Comparison
from fgdd_fast.runtime.sample_images import drawn_sample_images, sample_feeds

SIDE, CELL = 8, 2  # pixels of the image and of a cell of the feature map, which is the mean colour of each
CLASSES = ("redder than green", "blue", "green")
WEIGHT = np.array([[1, -1, 0], [0, 0, 1], [0, 1, 0]], np.float32) / 100

End = Callable[[GraphBuilder, str], str]  # from the feature map to the logits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))


def linear(builder: GraphBuilder, features: str) -> str:
    return builder.node(
        "Gemm",
        features,
        builder.constant(WEIGHT),
        builder.constant([0.5, 0, -0.5]),
        output="logits",
        transB=1,
    )


def mean(builder: GraphBuilder, maps: str) -> str:
    return builder.node("ReduceMean", maps, axes=[2, 3], keepdims=0)


def teacher_ending_in(end: End, folder: Path) -> Bundle:
    builder = GraphBuilder()
    planes = builder.images_to_planes("images")
    end(builder, builder.node("AveragePool", planes, kernel_shape=[CELL] * 2, strides=[CELL] * 2))
    images = TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))
    network = builder.model("cells", [images], [TensorSpec("logits", "float32", ("batch", len(CLASSES)))])
    model = add_loss(network, len(CLASSES))
    bundle = bundle_of(
        model,
        folder / "teacher.onnx",
        "teacher",
        preprocessing=Preprocessing(SIDE, SIDE, "none"),
        classes=CLASSES,
        source={"made": "by the tests"},
        licence="Apache-2.0",
    )
    return write_bundle(bundle, serialise(model))


def pooled_linear(builder: GraphBuilder, maps: str) -> str:
    return linear(builder, mean(builder, maps))


def find(bundle: Bundle, pixels: np.ndarray, class_name: str, device: Device = "cpu") -> Foreground:
    choice = choose_foreground(str(bundle.onnx), [class_name])
    runtime = Runtime(device, "fp32", 1)
    with closing(
        open_foreground(choice, runtime=lambda _: runtime, batch=2, resize="area", threads=1)
    ) as model:
        return model.find(
            [model.prepare(pixels, SourceImage("a/1.png", class_name, Path()))] * 3, masks=True
        )[2]


def cells(**colours: tuple[int, int, int]) -> np.ndarray:
    """A black image but for cells, which are named by their row and column."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    for place, colour in colours.items():
        row, column = (CELL * int(digit) for digit in place[1:])
        pixels[row : row + CELL, column : column + CELL] = colour
    return pixels


@pytest.mark.parametrize("device", available_devices())
def test_what_speaks_for_the_class_is_its_foreground(tmp_path: Path, device: Device) -> None:
    bundle = export_class_activation(teacher_ending_in(pooled_linear, tmp_path), tmp_path / "cam.onnx")
    # Red alone speaks for the class; a third of the red is too little, and green takes back what red says.
    pixels = cells(_00=(200, 0, 0), _12=(200, 0, 0), _31=(66, 0, 0), _33=(200, 200, 0))
    found = find(bundle, pixels, "redder than green", device)
    assert found.mask is not None
    expected = np.zeros((SIDE, SIDE), bool)
    expected[:2, :2] = expected[2:4, 4:6] = True
    np.testing.assert_array_equal(found.mask > 127, expected)
    assert found.occupancy == pytest.approx(8 / 64)
    # 1 in the corner; elsewhere a pixel lies a quarter of a cell from the cell's middle: 3/4 of 3/4 is left.
    assert (found.mask[0, 0], found.mask[2, 5]) == (255, round(255 * (0.5 + (9 / 16 - 0.4) * 0.5 / 0.6)))
    nothing = find(bundle, pixels, "blue", device)
    assert nothing.mask is not None
    assert (nothing.occupancy, nothing.mask.max()) == (0, 0)


def test_the_threshold_is_a_share_of_the_maximum(tmp_path: Path) -> None:
    teacher = teacher_ending_in(pooled_linear, tmp_path)
    pixels = cells(_12=(0, 0, 90))
    for threshold, count in ((0.15, 12), (0.4, 4), (0.7, 0)):  # 9/16 in the cell, 3/16 and 1/16 around it
        bundle = export_class_activation(teacher, tmp_path / "cam.onnx", threshold=threshold)
        found = find(bundle, pixels, "blue")
        assert found.mask is not None
        assert found.occupancy == (found.mask > 127).mean() == count / SIDE**2
        assert bundle.prompting == {"family": "cam", "threshold": threshold}


def product(builder: GraphBuilder, maps: str) -> str:
    logits = builder.node("MatMul", mean(builder, maps), builder.constant(WEIGHT.T))
    return builder.node("Add", builder.constant([0.5, 0, -0.5]), logits, output="logits")


def bare_product(builder: GraphBuilder, maps: str) -> str:
    return builder.node("MatMul", mean(builder, maps), builder.constant(WEIGHT.T), output="logits")


def flattened_pool(builder: GraphBuilder, maps: str) -> str:
    pooled = builder.node("Flatten", builder.node("GlobalAveragePool", maps))
    return builder.node("Gemm", pooled, builder.constant(WEIGHT.T), output="logits")


def reshaped_mean(builder: GraphBuilder, maps: str) -> str:
    pooled = builder.node("ReduceMean", maps, axes=[-1, -2], keepdims=1)
    return linear(builder, builder.node("Reshape", pooled, builder.constant([0, 3], np.int64)))


def channels_last(builder: GraphBuilder, maps: str) -> str:
    turned = builder.node("Transpose", maps, perm=[0, 2, 3, 1])
    return linear(builder, builder.node("ReduceMean", turned, axes=[1, 2], keepdims=0))


@pytest.mark.parametrize("end", [product, bare_product, flattened_pool, reshaped_mean, channels_last])
def test_heads_of_all_forms_give_the_same_map(tmp_path: Path, end: End) -> None:
    pixels = cells(_00=(200, 0, 0), _12=(120, 0, 0), _20=(200, 150, 9))
    one = export_class_activation(teacher_ending_in(pooled_linear, tmp_path), tmp_path / "one.onnx")
    other = export_class_activation(teacher_ending_in(end, tmp_path), tmp_path / "other.onnx")
    for name in CLASSES:
        expected, found = find(one, pixels, name), find(other, pixels, name)
        np.testing.assert_array_equal(found.mask, expected.mask)
        assert found.occupancy == expected.occupancy


def normalised(builder: GraphBuilder, maps: str) -> str:
    return linear(builder, builder.node("Tanh", mean(builder, maps)))


def flattened(builder: GraphBuilder, maps: str) -> str:
    weight = builder.constant(np.ones((len(CLASSES), 3 * (SIDE // CELL) ** 2)))
    return builder.node("Gemm", builder.node("Flatten", maps), weight, output="logits", transB=1)


def squashed(builder: GraphBuilder, maps: str) -> str:
    hidden = builder.node("Gemm", mean(builder, maps), builder.constant(WEIGHT), transB=1)
    return builder.node("Tanh", hidden, output="logits")


def one_axis(builder: GraphBuilder, maps: str) -> str:
    rows = builder.node("ReduceMean", maps, axes=[2], keepdims=0)
    pooled = builder.node("ReduceMean", rows, axes=[2], keepdims=0)
    return linear(builder, pooled)


def scaled(builder: GraphBuilder, maps: str) -> str:
    pooled = builder.node("Reshape", mean(builder, maps), builder.constant([0, 3], np.int64))
    bias = builder.constant([0, 0, 0])
    return builder.node("Gemm", pooled, builder.constant(WEIGHT), bias, output="logits", transB=1, alpha=2.0)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (normalised, "fed by a node Tanh"),
        (flattened, "fed by a node AveragePool"),
        (squashed, "logits come from a node Tanh"),
        (scaled, "logits come from a node Gemm"),
        (one_axis, "fed by a node ReduceMean"),
    ],
)
def test_a_network_that_ends_otherwise_is_refused(tmp_path: Path, end: End, reason: str) -> None:
    teacher = teacher_ending_in(end, tmp_path)
    with pytest.raises(TeacherError, match=reason) as caught:
        export_class_activation(teacher, tmp_path / "cam.onnx")
    assert "global average pooling and one linear layer" in caught.value.advice
    assert not (tmp_path / "cam.onnx").exists()


def test_other_bundles_sizes_and_thresholds_are_refused(tmp_path: Path) -> None:
    teacher = tiny_convolutions.inverted_residuals(tmp_path)
    cropped = make_cropped_graph(teacher, 32)
    assert cropped is not None
    for other in (cropped, replace(teacher, variant="fp16"), tiny.foreground_bundle(tmp_path)):
        with pytest.raises(SettingsError, match="is no teacher in fp32"):
            export_class_activation(other, tmp_path / "cam.onnx")
    with pytest.raises(SettingsError, match="takes images of 96 x 96 pixels only"):
        export_class_activation(teacher, tmp_path / "cam.onnx", size=128)
    for threshold in (0.0, 1.0):
        with pytest.raises(SettingsError, match="lies between 0 and 1"):
            export_class_activation(teacher, tmp_path / "cam.onnx", threshold=threshold)


# A foreground model like the others: by the command, by its name, in a distillation, in comparisons


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def test_the_command_puts_it_where_its_name_finds_it(workplace: Path) -> None:
    with pytest.raises(FgddError, match="has been exported yet"):
        choose_foreground("cam", tiny.CLASSES)
    # Grey is 127 of 255, so what is above 0.7 of the maximum is the square of a class's own colour.
    result = run("export", "cam", workplace / "tiny-teacher.onnx", "--threshold", 0.7)
    assert result.exit_code == 0, result.output
    assert result.output.endswith(f"{own_bundle_path('cam')}\n")
    bundle = load_bundle(own_bundle_path("cam"), "foreground")
    assert bundle.classes == tiny.CLASSES
    assert bundle.source["teacher"]["name"] == "tiny-teacher"
    assert find_network("cam") == bundle
    words = [
        "--teacher",
        workplace / "tiny-teacher.onnx",
        "--store",
        workplace / "store",
        "--device",
        "cpu",
        "--ipc",
        1,
    ]
    result = run("distill", workplace / "data", workplace / "out", "--foreground", "cam", *words)
    assert result.exit_code == 0, result.output
    manifest = json.loads((workplace / "out" / "manifest.json").read_text())
    assert manifest["models"]["foreground"]["sha256"] == bundle.sha256
    for tile in (tile for image in manifest["images"] for tile in image["tiles"]):
        truth = tiny.coloured(workplace / "data" / tile["source"]).mean()
        assert tile["occupancy"] == pytest.approx(truth, abs=0.05)


def test_it_is_asked_for_the_classes_of_its_teacher_alone(tmp_path: Path) -> None:
    bundle = export_class_activation(tiny.teacher_bundle(tmp_path), tmp_path / "cam.onnx")
    with pytest.raises(TeacherError, match="does not know 'cat'") as caught:
        choose_foreground(str(bundle.onnx), ["red", "cat"])
    assert "fgdd-fast export cam" in caught.value.advice
    with pytest.raises(SettingsError, match="--prompts does not apply"):
        choose_foreground(str(bundle.onnx), ["red"], prompts={"red": ("a red square",)})
    choice = choose_foreground(str(bundle.onnx), ["red", "blue"])
    runtime = Runtime("cpu", "fp32", 1)
    with closing(
        open_foreground(choice, runtime=lambda _: runtime, batch=1, resize="area", threads=1)
    ) as model:
        assert model.fingerprint("red") != model.fingerprint("blue")


def test_it_is_compared_on_drawn_pictures_of_other_classes(tmp_path: Path) -> None:
    bundle = export_class_activation(tiny.teacher_bundle(tmp_path), tmp_path / "cam.onnx")
    images = drawn_sample_images(4, named=False)
    found = Comparison(bundle, images).compare(Runtime("cpu", "fp32", 1), batch=2)
    assert found.parity.accepted
    assert found.parity.figures["with_foreground"] > 0
    feeds = sample_feeds(bundle, images)
    assert [int(feed["labels"][0]) for feed in feeds] == [0, 1, 2, 0]
