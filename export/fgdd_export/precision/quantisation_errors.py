"""What int8 does to each node with weights, were it alone in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.optional_imports import import_optional
from fgdd_export.graphs.graph import Array, GraphBuilder, load_model, serialise
from fgdd_export.precision.quantisation_nodes import weighted_nodes

if TYPE_CHECKING:
    import onnx

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Harm:
    """A node in int8 compared with itself in fp32, both on the fp32 inputs.

    Attributes:
        decibels: the power of its output over that of the error.
        shift: what the error is on average, float64 [outputs]: fp32 minus int8, for each of its channels.
    """

    decibels: float
    shift: NDArray[np.float64]


def measure_harm(
    model: onnx.ModelProto, ranges: Ranges, samples: Sequence[Mapping[str, Array]], *, unsigned: bool
) -> dict[str, Harm]:
    """Measure each convolution and each product with constant weights.

    Args:
        model: the fp32 graph.
        ranges: the least and the greatest value of each node's first input; nodes without are left out.
        samples: feeds of the graph, at least one.
        unsigned: whether activations are u8 with a zero point, or s8 without.

    Returns:
        The harm by the node's name.
    """
    onnx_ = import_optional("onnx", "models")
    weights = {each.name: onnx_.numpy_helper.to_array(each) for each in model.graph.initializer}
    nodes = [node for node in weighted_nodes(model) if node.input[0] in ranges]
    builder = GraphBuilder("fgdd_alone_")
    measured = [
        _compare(builder, node, weights[node.input[1]], ranges[node.input[0]], unsigned=unsigned)
        for node in nodes
    ]
    both = onnx_.ModelProto()
    both.CopyFrom(model)
    both.graph.node.extend(builder.nodes)
    both.graph.initializer.extend(builder.constants)
    both.graph.output.extend(
        onnx_.helper.make_tensor_value_info(name, onnx_.TensorProto.FLOAT, None)
        for names in measured
        for name in names
    )
    run = load_model(serialise(both))
    sums: list[list[NDArray[np.float64]]] = [[np.zeros(())] * 3 for _ in nodes]
    for feeds in samples:
        found = run(feeds)
        for row, names in zip(sums, measured, strict=True):
            row[:] = [total + found[name] for total, name in zip(row, names, strict=True)]
    return {
        node.name: Harm(_decibels(float(signal), float(noise)), shift / len(samples))
        for node, (signal, noise, shift) in zip(nodes, sums, strict=True)
    }


def _decibels(signal: float, noise: float) -> float:
    least = float(np.finfo(np.float32).tiny)
    return 10 * float(np.log10(max(signal, least) / max(noise, least)))


def _compare(
    builder: GraphBuilder,
    node: onnx.NodeProto,
    weight: Array,
    limits: tuple[float, float],
    *,
    unsigned: bool,
) -> tuple[str, str, str]:
    """Add a node's twin in int8; the names of its output's power, of the error's, and of the mean error."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    step = (high - low) / 255 if unsigned else max(-low, high) / 127
    step = step or 1.0  # a tensor that is always zero
    scale = builder.constant(step)
    zero = builder.constant(round(-low / step), np.uint8) if unsigned else builder.constant(0, np.int8)
    levels = builder.node("QuantizeLinear", node.input[0], scale, zero)
    rounded = builder.node("DequantizeLinear", levels, scale, zero)
    outputs = _outputs_axis(node, weight)
    twin = builder.node(node.op_type, rounded, builder.constant(_rounded(weight, outputs)), *node.input[2:])
    builder.nodes[-1].attribute.extend(node.attribute)
    error = builder.node("Sub", node.output[0], twin)
    signal, noise = (
        builder.node("ReduceMean", builder.node("Mul", tensor, tensor), keepdims=0)
        for tensor in (node.output[0], error)
    )
    if node.op_type == "Conv":
        return signal, noise, builder.node("ReduceMean", error, axes=[0, *range(2, weight.ndim)], keepdims=0)
    rows = builder.node("Reshape", error, builder.constant([-1, weight.shape[outputs]], np.int64))
    return signal, noise, builder.node("ReduceMean", rows, axes=[0], keepdims=0)


def _outputs_axis(node: onnx.NodeProto, weight: Array) -> int:
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else weight.ndim - 1


def _rounded(weight: Array, outputs: int) -> Array:
    """Weights as int8 holds them: s8, with a scale for each output."""
    others = tuple(axis for axis in range(weight.ndim) if axis != outputs)
    scale = np.abs(weight).max(axis=others, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.asarray(np.round(weight / scale) * scale, np.float32)
