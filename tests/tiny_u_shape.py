"""A miniature network in the shape of U2-Net: what int8 must flow through, and one channel that it harms."""

from __future__ import annotations

import numpy as np
import onnx

from fgdd_fast.engines.base import Array, TensorSpec
from fgdd_fast.export.graph import GraphBuilder

SIDE = 16
CHANNELS = 8
OFFSET = 2000.0  # of the channel that hardly differs from a constant
HARMED = ("joined", "harmed")


def u_shape(*, offset: float = 0.0, last_bias: float = 0.0) -> onnx.ModelProto:
    """Images uint8 to a map of logits, its mean after a sigmoid, and a mask.

    Convolutions `outer`, `inner`, `joined`, `fine` and `last`, in this order; `pool` lies before `inner`,
    `enlarged` and `join` (of `inner` and `outer`) before `joined`, and the sum `residual` before `last`.

    Args:
        offset: what the biases of `inner` add to its first channel, and those of `joined` take away again.
        last_bias: of `last`.
    """
    rng = np.random.default_rng(0)
    builder = GraphBuilder()

    def convolution(name: str, tensor: str, inputs: int, outputs: int, kernel: int, bias: Array) -> str:
        weight = rng.normal(0, (inputs * kernel**2) ** -0.5, (outputs, inputs, kernel, kernel))
        weights[name] = weight
        maps = builder.node(
            "Conv", tensor, builder.constant(weight), builder.constant(bias), pads=[kernel // 2] * 4
        )
        builder.nodes[-1].name = name
        return maps

    def named(name: str, *inputs: str, operator: str, **attributes: object) -> str:
        tensor = builder.node(operator, *inputs, **attributes)
        builder.nodes[-1].name = name
        return tensor

    weights: dict[str, Array] = {}
    planes = builder.node("Div", builder.images_to_planes("images"), builder.constant(64.0))
    outer = builder.node("Relu", convolution("outer", planes, 3, CHANNELS, 3, np.zeros(CHANNELS)))
    pooled = named("pool", outer, operator="MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    bias = np.zeros(CHANNELS)
    bias[0] = offset
    inner = builder.node("Relu", convolution("inner", pooled, CHANNELS, CHANNELS, 3, bias))
    scales = builder.constant([1, 1, 2, 2])
    large = named("enlarged", inner, "", scales, operator="Resize", mode="linear")
    join = named("join", large, outer, operator="Concat", axis=1)
    builder_constants = len(builder.constants)
    joined = convolution("joined", join, 2 * CHANNELS, CHANNELS, 1, np.zeros(CHANNELS))
    cancelling = (-offset * weights["joined"][:, 0, 0, 0]).astype(np.float32)
    builder.constants[builder_constants + 1].CopyFrom(
        onnx.numpy_helper.from_array(cancelling, builder.constants[builder_constants + 1].name)
    )
    joined = builder.node("Relu", joined)
    fine = builder.node("Relu", convolution("fine", joined, CHANNELS, CHANNELS, 3, np.zeros(CHANNELS)))
    residual = named("residual", fine, joined, operator="Add")
    logits = convolution("last", residual, CHANNELS, 1, 3, np.array([last_bias]))
    likely = builder.node("Sigmoid", logits)
    builder.node("ReduceMean", likely, axes=[1, 2, 3], keepdims=0, output="occupancy")
    found = builder.node("Greater", likely, builder.constant(0.5))
    builder.cast(builder.node("Squeeze", found, builder.constant([1], np.int64)), np.uint8, output="mask")
    builder.node("Identity", logits, output="logits")
    return builder.model(
        "u_shape",
        [TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))],
        [
            TensorSpec("logits", "float32", ("batch", 1, SIDE, SIDE)),
            TensorSpec("occupancy", "float32", ("batch",)),
            TensorSpec("mask", "uint8", ("batch", SIDE, SIDE)),
        ],
    )
