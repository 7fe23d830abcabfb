"""A tiny classifier as an ONNX bundle, and the same network in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fgdd_engines.base import Array, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, Role, write_bundle

SIDE = 24
CHANNELS = 16
CLASSES = ("apple", "bear", "cup", "dog", "egg")
_rng = np.random.default_rng(0)
_FILTERS = _rng.normal(0, 0.3, (CHANNELS, 3, 3, 3)).astype(np.float32)
_WEIGHTS = _rng.normal(0, 1, (CHANNELS, len(CLASSES))).astype(np.float32)


def tiny_graph() -> bytes:
    """A serialised graph that takes images uint8 and labels int32 to logits, loss and a mask."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "filters"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["scores"], axis=1),
        helper.make_node("Unsqueeze", ["labels", "one"], ["columns"]),
        helper.make_node("GatherElements", ["scores", "columns"], ["score"], axis=1),
        helper.make_node("Neg", ["score"], ["losses"]),
        helper.make_node("Squeeze", ["losses", "one"], ["loss"]),
        helper.make_node("ReduceMax", ["active"], ["strongest"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["strongest", "half"], ["salient"]),
        helper.make_node("Cast", ["salient"], ["mask"], to=TensorProto.UINT8),
    ]
    constants = {
        "scale": np.float32(255),
        "filters": _FILTERS,
        "weights": _WEIGHTS,
        "one": np.array([1], np.int64),
        "half": np.float32(0.5),
    }
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3]),
        helper.make_tensor_value_info("labels", TensorProto.INT32, ["batch"]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES)]),
        helper.make_tensor_value_info("loss", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", SIDE, SIDE]),
    ]
    initialisers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def tiny_description(onnx_file: Path, role: Role = "teacher") -> Bundle:
    """The bundle of `tiny_graph`, not yet written."""
    return Bundle(
        onnx=onnx_file,
        name="tiny",
        role=role,
        sha256="",
        inputs=(
            TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3)),
            TensorSpec("labels", "int32", ("batch",)),
        ),
        outputs=(
            TensorSpec("logits", "float32", ("batch", len(CLASSES))),
            TensorSpec("loss", "float32", ("batch",)),
            TensorSpec("mask", "uint8", ("batch", SIDE, SIDE)),
        ),
        preprocessing=Preprocessing(SIDE, SIDE, "pixels / 255", pad_value=(0, 0, 0)),
        classes=CLASSES,
        source={"made": "by the tests"},
        licence="Apache-2.0",
        parity={"logits": 0.0},
        accuracy={"held out": 0.5},
    )


def tiny_bundle(folder: Path) -> Bundle:
    """Write the tiny classifier's bundle into a folder."""
    return write_bundle(tiny_description(folder / "tiny.onnx"), tiny_graph())


def tiny_feeds(count: int, seed: int = 0) -> dict[str, Array]:
    """Random images with labels."""
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8),
        "labels": rng.integers(0, len(CLASSES), count, dtype=np.int32),
    }


def tiny_reference(feeds: dict[str, Array]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The tiny classifier's logits and losses, computed by NumPy in float64."""
    pixels = np.pad(feeds["images"] / 255.0, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), axis=(1, 2))
    maps = np.einsum("bhwcij,ocij->bohw", windows, _FILTERS.astype(np.float64))
    logits = np.maximum(maps, 0).mean(axis=(2, 3)) @ _WEIGHTS.astype(np.float64)
    rows = np.arange(len(logits))
    return logits, np.log(np.exp(logits).sum(axis=1)) - logits[rows, feeds["labels"]]
