"""A miniature network in the shape of U2-Net: what int8 flows through, and a channel that it cannot hold."""

from __future__ import annotations

import numpy as np
import onnx

from fgdd_engines.base import TensorSpec
from fgdd_export.graphs.graph import GraphBuilder

SIDE = 16
CHANNELS = 8
WEIGHTED = ("outer", "inner", "joined", "fine", "last")
CONNECTING = ("pool", "enlarged", "join", "residual")


class _Builder(GraphBuilder):
    """Gives nodes their names."""

    def named(self, name: str, operator: str, *inputs: str, **attributes: object) -> str:
        tensor = self.node(operator, *inputs, **attributes)
        self.nodes[-1].name = name
        return tensor

    def convolution(self, name: str, tensor: str, weight: object, bias: object) -> str:
        pads = [np.shape(weight)[2] // 2] * 4
        return self.named(name, "Conv", tensor, self.constant(weight), self.constant(bias), pads=pads)


def u_shape(*, offset: float = 0.0) -> onnx.ModelProto:
    """Images uint8 to `logits`, their sigmoid's mean (`occupancy`), and where that is above 0.5 (`mask`).

    Args:
        offset: what `inner` adds to its first channel, and `joined` takes away again: nothing changes in
            exact arithmetic, but that channel's values hardly differ in comparison.
    """
    rng = np.random.default_rng(0)
    shapes = {"outer": (3, 3), "inner": (CHANNELS, 3), "joined": (2 * CHANNELS, 1), "fine": (CHANNELS, 3)}
    weights = {
        name: rng.normal(0, (inputs * kernel**2) ** -0.5, (CHANNELS, inputs, kernel, kernel))
        for name, (inputs, kernel) in shapes.items()
    }
    raised = np.where(np.arange(CHANNELS) == 0, offset, 0.0)
    lowered = -offset * weights["joined"][:, 0, 0, 0]
    unbiased = np.zeros(CHANNELS)

    builder = _Builder()
    planes = builder.node("Div", builder.images_to_planes("images"), builder.constant(64.0))
    outer = builder.node("Relu", builder.convolution("outer", planes, weights["outer"], unbiased))
    pooled = builder.named("pool", "MaxPool", outer, kernel_shape=[2, 2], strides=[2, 2])
    inner = builder.node("Relu", builder.convolution("inner", pooled, weights["inner"], raised))
    twice = builder.constant([1, 1, 2, 2])
    large = builder.named("enlarged", "Resize", inner, "", twice, mode="linear")
    both = builder.named("join", "Concat", large, outer, axis=1)
    joined = builder.node("Relu", builder.convolution("joined", both, weights["joined"], lowered))
    fine = builder.node("Relu", builder.convolution("fine", joined, weights["fine"], unbiased))
    total = builder.named("residual", "Add", fine, joined)
    last = builder.convolution("last", total, rng.normal(0, 0.1, (1, CHANNELS, 3, 3)), np.zeros(1))
    logits = builder.node("Identity", last, output="logits")
    likely = builder.node("Sigmoid", logits)
    builder.node("ReduceMean", likely, axes=[1, 2, 3], keepdims=0, output="occupancy")
    found = builder.node("Greater", likely, builder.constant(0.5))
    builder.cast(builder.node("Squeeze", found, builder.constant([1], np.int64)), np.uint8, output="mask")
    return builder.model(
        "u_shape",
        [TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))],
        [
            TensorSpec("logits", "float32", ("batch", 1, SIDE, SIDE)),
            TensorSpec("occupancy", "float32", ("batch",)),
            TensorSpec("mask", "uint8", ("batch", SIDE, SIDE)),
        ],
    )
