"""Which nodes of a graph compute in int8, and what int8 does to each alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fgdd_export.graphs.graph import Array, GraphBuilder, load_model, serialise
from fgdd_export.graphs.late_onnx import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
CONNECTING = ("Add", "Concat", "MaxPool", "Resize")
_FUSED = ("Relu", "Clip")  # every runtime computes these as part of the node before


def weighted_nodes(model: onnx.ModelProto) -> tuple[onnx.NodeProto, ...]:
    """The convolutions and products whose second factor is constant, in the graph's order."""
    constants = {constant.name for constant in model.graph.initializer}
    return tuple(node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in constants)


def choose_nodes(model: onnx.ModelProto, keep: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Decide node by node what to quantise; names in the graph's order, and why others with weights stay.

    The last nodes with weights are never quantised: nothing after them evens out an error, they cost little,
    and what follows them is exact arithmetic on their results. A node without weights is quantised where all
    that read it are; so nothing is rounded on its way into a node that is to be exact.
    """
    weighted, without_weights = {node.name for node in weighted_nodes(model)}, {*CONNECTING, *_FUSED}
    readers = _readers(model)
    leads_on: set[str] = set()  # nodes after which there is another with weights
    takes_int8: set[str] = set()
    kept: dict[str, str] = {}
    for node in reversed(model.graph.node):
        after = {reader for output in node.output for reader in readers.get(output, ())}
        if after & (weighted | leads_on):
            leads_on.add(node.name)
        if node.name in weighted:
            if node.name in keep:
                kept[node.name] = keep[node.name]
            elif node.name not in leads_on:
                kept[node.name] = "nothing after it evens out an error"
            else:
                takes_int8.add(node.name)
        elif node.op_type in without_weights and node.name not in keep and after and after <= takes_int8:
            takes_int8.add(node.name)
    in_order = [node for node in model.graph.node if node.name in takes_int8 and node.op_type not in _FUSED]
    quantised = tuple(node.name for node in in_order)
    return quantised, {node.name: kept[node.name] for node in model.graph.node if node.name in kept}


def _readers(model: onnx.ModelProto) -> dict[str, list[str]]:
    """The names of the nodes that read each tensor; an output of the graph is read from outside, by ``."""
    readers: dict[str, list[str]] = {output.name: [""] for output in model.graph.output}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node.name)
    return readers


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
    """Measure each convolution and each product with constant weights, by the node's name.

    Args:
        model: the fp32 graph.
        ranges: the least and the greatest value of each node's first input; nodes without are left out.
        samples: feeds of the graph, at least one.
        unsigned: whether activations are u8 with a zero point, or s8 without.
    """
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    nodes = [node for node in weighted_nodes(model) if node.input[0] in ranges]
    builder = GraphBuilder("fgdd_alone_")
    measured = [
        _compare(builder, node, weights[node.input[1]], ranges[node.input[0]], unsigned=unsigned)
        for node in nodes
    ]
    both = deepcopy(model)
    both.graph.node.extend(builder.nodes)
    both.graph.initializer.extend(builder.constants)
    both.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for names in measured
        for name in names
    )
    run = load_model(serialise(both))
    sums: list[list[NDArray[np.float64]]] = [[np.zeros(())] * 3 for _ in nodes]
    for feeds in samples:
        found = run(feeds)
        for row, names in zip(sums, measured, strict=True):
            row[:] = [total + found[name] for total, name in zip(row, names, strict=True)]
    least = float(np.finfo(np.float32).tiny)
    return {
        node.name: Harm(
            10 * float(np.log10(max(float(signal), least) / max(float(noise), least))), shift / len(samples)
        )
        for node, (signal, noise, shift) in zip(nodes, sums, strict=True)
    }


def _compare(
    builder: GraphBuilder, node: onnx.NodeProto, weight: Array, limits: tuple[float, float], *, unsigned: bool
) -> tuple[str, str, str]:
    """Add a node's twin in int8; the names of its output's power, of the error's, and of the mean error."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    step = (high - low) / 255 if unsigned else max(-low, high) / 127
    step = step or 1.0  # a tensor that is always zero
    scale = builder.constant(step)
    zero = builder.constant(round(-low / step), np.uint8) if unsigned else builder.constant(0, np.int8)
    levels = builder.node("QuantizeLinear", node.input[0], scale, zero)
    rounded = builder.node("DequantizeLinear", levels, scale, zero)
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    outputs = 0 if node.op_type == "Conv" or transposed else weight.ndim - 1
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


def _rounded(weight: Array, outputs: int) -> Array:
    """Weights as int8 holds them: s8, with a scale for each output."""
    others = tuple(axis for axis in range(weight.ndim) if axis != outputs)
    scale = np.abs(weight).max(axis=others, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.asarray(np.round(weight / scale) * scale, np.float32)
