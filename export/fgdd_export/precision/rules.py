"""Which nodes of a graph may compute in low precision, and why the others stay in fp32.

The rules look at operators and at what their results are for, never at names, so they hold for any exporter:

1. Operators that sum many values or are steep: normalisations, softmaxes, sums and means, exponentials,
   logarithms, sines, roots, computed denominators. ONNX does not say in which precision an operator
   accumulates. TensorRT's own sums in fp16 may be safe, but the same graph runs elsewhere, and in fp16 a sum
   over a map passes 65,504 before the division that would make it a mean.
2. What is looked up rather than weighed: the coordinates at which GridSample samples, whatever is compared,
   ranked, rounded, logged or taken the sine of, and the graph's outputs. From there back, everything is kept
   down to the nearest matrix product or convolution, which is kept too, or to the nearest sum or
   normalisation. That covers what a list of names would call box refinement, inverse sigmoids, reference
   points, sampling locations, position embeddings, scores and heads.
3. Arithmetic on operands that are all in fp32, or whose result is read in fp32: rounding would save nothing.
   So pixels, masks and positions are in fp32 until the first matrix product, and so is the residual stream
   between normalisations, as in PyTorch's autocast. (In bf16 that alone makes a detector's errors 2.5 times
   smaller, for no more conversions.)
4. Nodes with a constant that the precision cannot hold, and operators that ONNX does not define for it, or
   that TensorRT does not build in it.

Operators that only move or select values round nothing; they follow their neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from fgdd_export.precision.graph import FloatGraph, LowFormat, LowPrecision


def _operators(names: str) -> frozenset[str]:
    return frozenset(names.split())


PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
_NORMALISATIONS = _operators(
    """
    BatchNormalization GroupNormalization InstanceNormalization LayerNormalization LpNormalization
    MeanVarianceNormalization RMSNormalization
    """
)
_SUMS = _operators(
    """
    CumSum GlobalAveragePool ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd
    ReduceSum ReduceSumSquare
    """
)
_SAMPLERS = frozenset({"GridSample", "RoiAlign"})
_SOFTMAXES = frozenset({"LogSoftmax", "Softmax"})
# Small errors of their argument matter as much as those of their result.
_STEEP = frozenset({"Cos", "Exp", "Log", "Pow", "Reciprocal", "Sin", "Sqrt", "Tan"})
_DECISIONS = _operators(
    """
    ArgMax ArgMin Ceil Equal Floor Greater GreaterOrEqual Less LessOrEqual NonMaxSuppression Round
    Sign TopK
    """
)
_KEPT = _NORMALISATIONS | _SUMS | _SAMPLERS | _SOFTMAXES | _STEEP | _DECISIONS
_ENDS = PRODUCTS | _NORMALISATIONS | _SUMS | _SAMPLERS
# Each value of the result is one of the operands' values, or a small constant: nothing is rounded.
EXACT = _operators(
    """
    Abs Cast Clip Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Max
    MaxPool Min Neg Pad ReduceMax ReduceMin Relu Reshape Slice SpaceToDepth Split Squeeze Tile
    Transpose Unsqueeze Where
    """
)
INDIFFERENT = frozenset({"Shape", "Size"})  # they read no values, so any precision serves them as it is
# TensorRT for RTX 1.7 parses them, and then "could not infer output types".
_UNBUILDABLE: dict[LowPrecision, frozenset[str]] = {"fp16": frozenset(), "bf16": frozenset({"ConvTranspose"})}


@dataclass(frozen=True)
class Plan:
    """Which nodes do what.

    Attributes:
        low: indices of the nodes whose tensors are in low precision.
        kept: why each other node that handles float32 tensors stays as it is, by the node's name.
    """

    low: frozenset[int]
    kept: dict[str, str]


def plan_precision(graph: FloatGraph, low: LowFormat, keep: Collection[str]) -> Plan:
    """Decide for each node; those in `keep` stay in fp32, which changes nothing for others that compute."""
    kept: dict[str, str] = {}
    _keep_operators(graph, low, kept)
    _keep_what_is_looked_up(graph, kept)
    flexible = {
        place for place, name in enumerate(graph.names) if name not in kept and _handles_floats(graph, place)
    }
    products = {place for place in flexible if graph.nodes[place].op_type in PRODUCTS}
    lowered = _spread_low(graph, products, flexible)
    read_in_fp32 = _arithmetic_read_in_fp32(graph, lowered)
    lowered = _spread_low(graph, products, flexible - read_in_fp32)
    named = {place for place in flexible if graph.names[place] in keep}
    exact = {place for place in flexible if graph.nodes[place].op_type in EXACT}
    lowered = _spread_low(graph, lowered - exact - named, exact - named)
    for place in sorted(flexible - lowered):
        if place in named:
            why = "named by the caller"
        elif place in read_in_fp32:
            why = "its result is read in fp32"
        else:
            why = "passes fp32 on" if place in exact else "all that it reads is in fp32"
        kept[graph.names[place]] = why
    return Plan(frozenset(lowered), kept)


def _handles_floats(graph: FloatGraph, place: int) -> bool:
    node = graph.nodes[place]
    return node.op_type not in INDIFFERENT and any(
        name in graph.float_tensors for name in (*node.input, *node.output)
    )


def _keep_operators(graph: FloatGraph, low: LowFormat, kept: dict[str, str]) -> None:
    for place, (node, name) in enumerate(zip(graph.nodes, graph.names, strict=True)):
        if not _handles_floats(graph, place):
            continue
        if node.op_type in _KEPT:
            kept[name] = f"{node.op_type} is computed in fp32"
        elif node.op_type == "Div" and node.input[1] not in graph.constants:
            kept[name] = "its denominator is computed"
        elif node.op_type == "Cast" and not _is_exact_cast(graph, place):
            kept[name] = "it converts numbers that the precision does not hold"
        elif any(_is_lost(graph, constant, low) for constant in node.input):
            kept[name] = f"a constant is out of {low.precision}'s range"
        elif not graph.takes(place, low):
            kept[name] = f"{node.op_type} is not defined for {low.precision} in this opset"
        elif node.op_type in _UNBUILDABLE[low.precision]:
            kept[name] = f"TensorRT builds no {node.op_type} in {low.precision}"


def _is_exact_cast(graph: FloatGraph, place: int) -> bool:
    """Whether a Cast makes float32 of truth values, which any precision holds."""
    return bool(graph.results(place)) and graph.nodes[place].input[0] in graph.truth_tensors


def _is_lost(graph: FloatGraph, name: str, low: LowFormat) -> bool:
    """Whether rounding makes a constant infinite, or a single number 0 that is not: a margin, a divisor."""
    values = graph.constants.get(name)
    if values is None:
        return False
    rounded = low.round(values)
    if not np.array_equal(np.isfinite(rounded), np.isfinite(values)):
        return True
    return values.size == 1 and bool((rounded == 0).all() and (values != 0).any())


def _keep_what_is_looked_up(graph: FloatGraph, kept: dict[str, str]) -> None:
    for place, node in enumerate(graph.nodes):
        inputs = [name for name in node.input if name in graph.float_tensors]
        if node.op_type in _SAMPLERS:
            _keep_back_to_products(graph, node.input[1:], f"coordinates of {node.op_type}", kept)
        elif node.op_type in _STEEP | _DECISIONS:
            _keep_back_to_products(graph, inputs, f"argument of {node.op_type}", kept)
        elif node.op_type == "Div" and node.input[1] not in graph.constants:
            _keep_back_to_products(graph, node.input[1:], "denominator", kept)
        elif node.op_type == "Cast" and inputs and not graph.results(place):
            _keep_back_to_products(graph, inputs, "argument of Cast", kept)
    _keep_back_to_products(graph, graph.outputs, "graph output", kept)


def _keep_back_to_products(
    graph: FloatGraph, tensors: Iterable[str], reason: str, kept: dict[str, str]
) -> None:
    """Keep what makes `tensors`, back to the nearest products, sums and normalisations, and those too."""
    waiting = [name for name in tensors if name in graph.float_tensors and name not in graph.constants]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        place = graph.producers.get(name)
        if name in seen or place is None:
            continue
        seen.add(name)
        kept.setdefault(graph.names[place], reason)
        if graph.nodes[place].op_type not in _ENDS:
            waiting.extend(graph.sources(place))


def _spread_low(graph: FloatGraph, seeds: set[int], flexible: set[int]) -> set[int]:
    """The seeds, which are low, and which of the flexible nodes are because of them.

    Arithmetic is low if an operand is. What rounds nothing is low if all its operands are, or all readers.
    """
    low = set(seeds)
    waiting = sorted(low)
    while waiting:
        place = waiting.pop()
        neighbours = {reader for name in graph.results(place) for reader in graph.readers[name]}
        neighbours |= {graph.producers[name] for name in graph.sources(place) if name in graph.producers}
        for other in sorted((neighbours & flexible) - low):
            if _becomes_low(graph, other, low):
                low.add(other)
                waiting.append(other)
    return low


def _becomes_low(graph: FloatGraph, place: int, low: set[int]) -> bool:
    operands = [graph.producers.get(name) in low for name in graph.sources(place)]
    if graph.nodes[place].op_type not in EXACT:
        return any(operands)
    if operands and all(operands):
        return True
    readers = [
        reader in low
        for name in graph.results(place)
        for reader in graph.readers[name]
        if graph.nodes[reader].op_type not in INDIFFERENT
    ]
    return bool(readers) and all(readers)


def _arithmetic_read_in_fp32(graph: FloatGraph, lowered: set[int]) -> set[int]:
    """Which of the lowered nodes compute, after the last product, what is read in fp32."""
    high = (
        place for place in range(len(graph.nodes)) if place not in lowered and _handles_floats(graph, place)
    )
    waiting = [name for place in high for name in graph.sources(place)]
    seen: set[str] = set()
    found: set[int] = set()
    while waiting:
        name = waiting.pop()
        place = graph.producers.get(name)
        if name in seen or place not in lowered:
            continue
        seen.add(name)
        operator = graph.nodes[place].op_type
        if operator not in PRODUCTS:
            waiting.extend(graph.sources(place))
            if operator not in EXACT:
                found.add(place)
    return found
