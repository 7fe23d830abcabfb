"""A tiny classifier as an ONNX bundle, and the same network in NumPy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tiny_bundles import make_model

from fgdd_engines.base import Array, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, Role, write_bundle
from fgdd_export.graphs.graph import bundle_of, serialise

SIDE = 24
CHANNELS = 16
CLASSES = ("apple", "bear", "cup", "dog", "egg")
INPUTS = (
    TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3)),
    TensorSpec("labels", "int32", ("batch",)),
)
OUTPUTS = (
    TensorSpec("logits", "float32", ("batch", len(CLASSES))),
    TensorSpec("loss", "float32", ("batch",)),
    TensorSpec("mask", "uint8", ("batch", SIDE, SIDE)),
)
_rng = np.random.default_rng(0)
_FILTERS = _rng.normal(0, 0.3, (CHANNELS, 3, 3, 3)).astype(np.float32)
_WEIGHTS = _rng.normal(0, 1, (CHANNELS, len(CLASSES))).astype(np.float32)


@cache
def tiny_model() -> onnx.ModelProto:
    """A graph that takes images uint8 and labels int32 to logits, loss and a mask; nobody may change it."""
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
    return make_model("tiny", nodes, constants, INPUTS, OUTPUTS)


def tiny_graph() -> bytes:
    return serialise(tiny_model())


def tiny_description(onnx_file: Path, role: Role = "teacher") -> Bundle:
    """The bundle of `tiny_graph`, not yet written."""
    described = bundle_of(
        tiny_model(),
        onnx_file,
        role,
        preprocessing=Preprocessing(SIDE, SIDE, "pixels / 255", pad_value=(0, 0, 0)),
        source={"made": "by the tests"},
        licence="Apache-2.0",
        classes=CLASSES,
        parity={"logits": 0.0},
        accuracy={"held out": 0.5},
    )
    return replace(described, name="tiny")


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
