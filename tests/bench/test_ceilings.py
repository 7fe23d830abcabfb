"""Limits are measured, and the arithmetic of a graph is counted as by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import tiny_models
import tiny_pipeline
from onnx import TensorProto, helper, numpy_helper

from fgdd_bench.machine import ceilings
from fgdd_bench.machine.ceilings import (
    multiply_add_rates,
    multiplying,
    opencv_decode_rate,
    opencv_decoding,
    precisions_of,
)
from fgdd_bench.machine.operations import Work, graph_operations
from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, write_bundle
from fgdd_engines.optional_imports import openvino_core


def counted(folder: Path, nodes: list[onnx.NodeProto], **weights: tuple[int, ...]) -> Bundle:
    """A graph from `images` [batch, 4, height, width] to `result`; `rows` is a constant beside weights."""
    constants = {name: np.zeros(shape, np.float32) for name, shape in weights.items()}
    constants["rows"] = np.array([32, 6])
    graph = helper.make_graph(
        nodes,
        "counted",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, "height", "width"])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    size = Preprocessing(8, 6, "none")
    images = TensorSpec("images", "float32", ("batch", 4, "height", "width"))
    onnx_file = folder / "counted.onnx"
    bundle = Bundle(onnx_file, "counted", "backbone", "", (images,), (), size, None, {}, "Apache-2.0")
    return write_bundle(bundle, model.SerializeToString())


def test_convolutions_by_hand(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["images", "w"], ["result"], strides=[2, 2], pads=[1, 1, 1, 1], group=2)
    assert graph_operations(counted(tmp_path, [node], w=(10, 2, 3, 3)), 8, 6) == Work(10 * 4 * 3 * 2 * 9, 0)
    node = helper.make_node("ConvTranspose", ["images", "w"], ["result"], strides=[2, 2])
    assert graph_operations(counted(tmp_path, [node], w=(4, 5, 2, 2)), 8, 6) == Work(4 * 8 * 6 * 5 * 4, 0)


@pytest.mark.parametrize("transposed", [0, 1])
def test_matrix_products_by_hand(tmp_path: Path, transposed: int) -> None:
    nodes = [
        helper.make_node("MatMul", ["images", "a"], ["product"]),  # [1, 4, 8, 6] x [6, 6]
        helper.make_node("Reshape", ["product", "rows"], ["flat"]),
        helper.make_node("Gemm", ["flat", "b"], ["result"], transB=transposed),  # [32, 6] x [6, 7]
    ]
    bundle = counted(tmp_path, nodes, a=(6, 6), b=(7, 6) if transposed else (6, 7))
    assert graph_operations(bundle, 8, 6) == Work(4 * 8 * 6 * 6 + 32 * 6 * 7, 0)


def test_what_cannot_be_inferred_is_told(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["images"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["a", "numbers"], ["result"]),
    ]
    assert graph_operations(counted(tmp_path, nodes, a=(3, 4)), 8, 6) == Work(0, 1)


def test_a_bundle_of_fixed_size(tmp_path: Path) -> None:
    work = graph_operations(tiny_models.tiny_bundle(tmp_path), 1, 1)
    side, channels, classes = tiny_models.SIDE, tiny_models.CHANNELS, len(tiny_models.CLASSES)
    assert work.multiply_adds == side**2 * channels * 27 + channels * classes
    assert work.unknown == 0


def test_a_core_multiplies_so_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "SIDE", 256)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "openvino", None)
        assert multiply_add_rates() == {}
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    rates = multiply_add_rates()
    assert "fp32" in rates
    assert all(1e8 < rate < 1e13 for rate in rates.values())


def test_the_int8_ceiling_is_computed_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.setattr(ceilings, "SIDE", 256)
    compiled = openvino_core().compile_model(ceilings._product(openvino, quantised=True), "CPU")
    precisions = {
        layer.get_rt_info()["runtimePrecision"].astype(str)
        for layer in compiled.get_runtime_model().get_ops()
        if layer.get_rt_info()["layerType"].astype(str).startswith(("FullyConnected", "MatMul"))
    }
    assert precisions <= {"u8", "i8"}
    assert precisions


def test_decoding_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_pipeline.write_squares(tmp_path, 3)
    files = sorted(folder.glob("*/*.png"))
    rate = opencv_decode_rate(files)
    assert math.isfinite(rate)
    assert rate > 10
    decoded: list[bytes] = []
    monkeypatch.setattr(cv2, "imdecode", lambda content, flags: decoded.append(content.tobytes()))
    assert opencv_decoding(files, threads=2)() == {}
    assert sorted(decoded) == sorted(file.read_bytes() for file in files)


@pytest.mark.parametrize(
    ("arithmetic", "named", "multiplied"),
    [
        ("ONNX Runtime 1.32.0, CPU, fp32", ("fp32",), "fp32"),
        ("OpenVINO 2026.4.1, CPU, bf16, tiles", ("bf16",), "bf16"),
        ("OpenVINO 2026.4.1, CPU, int8 and fp32", ("int8", "fp32"), "int8"),
        ("U2-Net + OpenVINO, CPU, bf16 + OpenVINO, CPU, int8 and fp32", ("bf16", "int8", "fp32"), None),
        ("OpenCV 5.0.0", (), None),
    ],
)
def test_the_precision_of_an_arithmetic(
    arithmetic: str, named: tuple[str, ...], multiplied: str | None
) -> None:
    assert precisions_of(arithmetic) == named
    assert multiplying(named) == multiplied
