from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from installed_devices import available_devices
from tiny_models import CHANNELS, SIDE, tiny_description, tiny_graph

from fgdd_engines.base import Device, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_engines.factory import open_engine
from fgdd_export.classifier.teacher import build_teacher
from fgdd_export.graphs.graph import Array
from fgdd_export.graphs.parity import drawn_images
from fgdd_fast.errors import BundleError, TeacherError

FLOAT = onnx.TensorProto.FLOAT
CLASSES = ("hat", "shoe", "t-shirt")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny classifier with its features and logits, as a backbone."""
    model = onnx.load_model_from_string(tiny_graph())
    del model.graph.input[1:], model.graph.output[:]
    for name, length in (("features", CHANNELS), ("logits", 5)):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, FLOAT, ["batch", length]))
    model = onnx.utils.Extractor(model).extract_model(["images"], ["features", "logits"])
    path = tmp_path_factory.mktemp("backbone") / "backbone.onnx"
    description = replace(
        tiny_description(path, "backbone"),
        classes=None,
        inputs=(TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3)),),
        outputs=(
            TensorSpec("features", "float32", ("batch", CHANNELS)),
            TensorSpec("logits", "float32", ("batch", 5)),
        ),
    )
    return write_bundle(description, model.SerializeToString())


def head(scale: float = 1.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    weight = scale * rng.normal(size=(len(CLASSES), CHANNELS))
    return weight.astype(np.float32), rng.normal(size=len(CLASSES)).astype(np.float32)


def build(backbone: Bundle, path: Path, weight: Array, bias: Array, **changes: Any) -> Bundle:
    settings: dict[str, Any] = {
        "classes": CLASSES,
        "source": {"fitted_on": "photographs"},
        "accuracy": {"top1": 0.9},
        **changes,
    }
    return build_teacher(backbone, weight, bias, settings.pop("classes"), path, **settings)


@pytest.mark.parametrize("device", available_devices())
@pytest.mark.parametrize("scale", [1.0, 3000.0])
def test_logits_and_losses(backbone: Bundle, tmp_path: Path, device: Device, scale: float) -> None:
    weight, bias = head(scale)
    teacher = build(backbone, tmp_path / "mine.onnx", weight, bias)
    images, labels = drawn_images(SIDE, SIDE), np.array([0, 2, 1, 1], np.int32)
    with open_engine(backbone, device=device, precision="fp32", axes={"batch": 4}, threads=1) as engine:
        features = engine.run({"images": images})["features"].astype(np.float64)
    with open_engine(teacher, device=device, precision="fp32", axes={"batch": 4}, threads=1) as engine:
        found = engine.run({"images": images, "labels": labels})
    logits = features @ weight.T + bias
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-4 * scale)
    assert np.isfinite(found["loss"]).all()  # no exponential overflows
    assert (found["loss"] >= 0).all()
    if scale == 1:
        np.testing.assert_allclose(found["loss"], -np.log(chances[range(4), labels]), atol=1e-4)
    else:
        assert logits.max() > 100  # where exp(z) is beyond float32
        expected = logits.max(axis=1) - logits[range(4), labels]
        np.testing.assert_allclose(found["loss"], expected, atol=1e-3 * scale)


def test_bundle_says_what_it_is(backbone: Bundle, tmp_path: Path) -> None:
    teacher = build(backbone, tmp_path / "mine.onnx", *head())
    assert load_bundle(tmp_path / "mine.onnx", "teacher") == teacher
    assert teacher.classes == CLASSES
    assert teacher.preprocessing == backbone.preprocessing
    assert teacher.licence == backbone.licence
    assert teacher.source["backbone"]["sha256"] == backbone.sha256
    assert teacher.source["head"] == {"fitted_on": "photographs"}
    assert teacher.accuracy == {"top1": 0.9}
    assert 0 <= teacher.parity["max_loss_difference"] < 1e-4
    assert [spec.shape for spec in teacher.outputs] == [("batch", 3), ("batch",), ("batch", CHANNELS)]


def test_same_head_gives_the_same_bytes(backbone: Bundle, tmp_path: Path) -> None:
    first, second = (build(backbone, tmp_path / f"{name}.onnx", *head()) for name in "ab")
    assert first.sha256 == second.sha256


def test_what_the_head_does_not_need_is_left_out(tmp_path: Path, backbone: Bundle) -> None:
    assert "weights" in {constant.name for constant in onnx.load(backbone.onnx).graph.initializer}
    model = onnx.load(build(backbone, tmp_path / "mine.onnx", *head()).onnx)
    assert "MatMul" not in {node.op_type for node in model.graph.node}
    assert "weights" not in {constant.name for constant in model.graph.initializer}


def test_heads_that_do_not_fit_are_refused(backbone: Bundle, tmp_path: Path) -> None:
    weight, bias = head()
    path = tmp_path / "mine.onnx"
    with pytest.raises(TeacherError, match="3 classes on 16 features"):
        build(backbone, path, weight[:, 1:], bias)
    with pytest.raises(TeacherError, match="2 classes"):
        build(backbone, path, weight, bias, classes=CLASSES[:2])
    with pytest.raises(TeacherError, match="same name"):
        build(backbone, path, weight, bias, classes=("hat", "hat", "shoe"))
    with pytest.raises(TeacherError, match="not finite"):
        build(backbone, path, weight * np.float32(np.nan), bias)
    with pytest.raises(TeacherError, match="no output 'features'"):
        build(replace(backbone, outputs=()), path, weight, bias)
    with pytest.raises(BundleError, match="cannot be read"):
        build(replace(backbone, onnx=tmp_path / "absent.onnx"), path, weight, bias)
    assert list(tmp_path.iterdir()) == []
