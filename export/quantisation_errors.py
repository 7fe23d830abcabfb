"""How much each node with weights loses to int8, were it alone in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fgdd_fast.export.graph import Array, GraphBuilder, load_model, serialise
from fgdd_fast.export.quantisation_nodes import weighted_nodes
from fgdd_fast.extras import import_extra

if TYPE_CHECKING:
    import onnx

Ranges = Mapping[str, tuple[float, float]]
_PREFIX = "fgdd_alone_"


def signal_to_noise(
    model: onnx.ModelProto, ranges: Ranges, samples: Sequence[Mapping[str, Array]], *, unsigned: bool
) -> dict[str, float]:
    """Compare each node with itself in int8, both on the fp32 inputs.

    Args:
        model: the fp32 graph.
        ranges: the least and the greatest value of each node's first input; nodes without are left out.
        samples: feeds of the graph.
        unsigned: whether activations are u8 with a zero point, or s8 without.

    Returns:
        The power of a node's output over that of its error, in decibels, by the node's name.
    """
    onnx_ = import_extra("onnx", "models")
    weights = {each.name: onnx_.numpy_helper.to_array(each) for each in model.graph.initializer}
    nodes = [node for node in weighted_nodes(model) if node.input[0] in ranges]
    builder = GraphBuilder(_PREFIX)
    powers = [
        _powers(builder, node, weights[node.input[1]], ranges[node.input[0]], unsigned=unsigned)
        for node in nodes
    ]
    both = onnx_.ModelProto()
    both.CopyFrom(model)
    both.graph.node.extend(builder.nodes)
    both.graph.initializer.extend(builder.constants)
    both.graph.output.extend(
        onnx_.helper.make_tensor_value_info(name, onnx_.TensorProto.FLOAT, [])
        for pair in powers
        for name in pair
    )
    run = load_model(serialise(both))
    sums = np.zeros((len(nodes), 2))
    for feeds in samples:
        found = run(feeds)
        sums += [[float(found[signal]), float(found[noise])] for signal, noise in powers]
    floor = np.finfo(np.float32).tiny
    decibels = 10 * np.log10(np.maximum(sums[:, 0], floor) / np.maximum(sums[:, 1], floor))
    return {node.name: float(value) for node, value in zip(nodes, decibels, strict=True)}


def _powers(
    builder: GraphBuilder,
    node: onnx.NodeProto,
    weight: Array,
    limits: tuple[float, float],
    *,
    unsigned: bool,
) -> tuple[str, str]:
    """Add a node's twin in int8; the names of the mean squares of the output and of the difference."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    step = (high - low) / 255 if unsigned else max(-low, high) / 127
    step = step or 1.0  # a tensor that is always zero
    scale = builder.constant(step)
    zero = builder.constant(round(-low / step), np.uint8) if unsigned else builder.constant(0, np.int8)
    levels = builder.node("QuantizeLinear", node.input[0], scale, zero)
    rounded = builder.node("DequantizeLinear", levels, scale, zero)
    twin = builder.node(node.op_type, rounded, builder.constant(_rounded(node, weight)), *node.input[2:])
    builder.nodes[-1].attribute.extend(node.attribute)
    signal, difference = node.output[0], builder.node("Sub", node.output[0], twin)
    squares = [builder.node("Mul", tensor, tensor) for tensor in (signal, difference)]
    first, second = (builder.node("ReduceMean", square, keepdims=0) for square in squares)
    return first, second


def _rounded(node: onnx.NodeProto, weight: Array) -> Array:
    """Weights as int8 holds them: s8, a scale for each output."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    outputs = 0 if node.op_type == "Conv" or transposed else weight.ndim - 1
    others = tuple(axis for axis in range(weight.ndim) if axis != outputs)
    scale = np.abs(weight).max(axis=others, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.asarray(np.round(weight / scale) * scale, np.float32)
