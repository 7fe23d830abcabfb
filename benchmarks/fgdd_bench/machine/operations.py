"""How much arithmetic a bundle's graphs ask for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgdd_bench.harness.implementation import StageName
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.models.grounded_tensors import BOXES, SCORES

IMAGE_ENCODER = "/image_encoder/"  # in the names of its nodes: that of the module which was traced


@dataclass(frozen=True)
class Work:
    """What a graph does for one sample.

    Attributes:
        multiply_adds: of its convolutions and matrix products.
        values: read and written by these, weights left out; everything else can be done in passing.
        weights: values of the graph's constants, which a whole batch shares.
        unknown: convolutions and products whose shapes could not be inferred, which are not counted.
    """

    multiply_adds: int
    values: int
    weights: int
    unknown: int


def graph_operations(bundle: Bundle, height: int, width: int) -> Work:
    """Count the arithmetic of a graph by shape inference, at batch 1.

    Args:
        bundle: the graph.
        height, width: pixels of its images, where it leaves them open.

    Raises:
        MissingExtraError: ONNX is not installed.
        BundleError: the graph keeps its weights in other files.
    """
    graph = _inferred(bundle, {"height": height, "width": width})
    return _work(graph, graph.node)


def grounded_operations(bundle: Bundle) -> dict[StageName, Work]:
    """Count the arithmetic of a Grounded SAM 2, in either form, by its three networks.

    Raises:
        MissingExtraError: ONNX is not installed.
        BundleError: a graph keeps its weights in other files, or lacks a part.
    """
    graphs = [_inferred(bundle, {})]
    if "segmenter" in bundle.parts:
        graphs.append(_inferred(bundle.part("segmenter"), {}))
    joint, segmenter = graphs[0], graphs[-1]
    ends = [name for node in segmenter.node if IMAGE_ENCODER in node.name for name in node.output]
    detector = _needed(joint, [spec.name for spec in (BOXES, SCORES)])
    encoder = _needed(segmenter, ends)
    taken = {node.output[0] for node in (*detector, *encoder)}
    decoder = [node for node in segmenter.node if node.output[0] not in taken]
    return {
        "detector": _work(joint, detector),
        "mask encoder": _work(segmenter, encoder),
        "mask decoder": _work(segmenter, decoder),
    }


def _inferred(bundle: Bundle, lengths: Mapping[str, int]) -> Any:
    """A graph with the shapes of its tensors; axes that are not named here have the length 1.

    ONNX Runtime's inference follows shapes that are computed within the graph, as those of SAM 2 are.
    """
    onnx = import_optional("onnx", "bench")
    model = onnx.load_from_string(bundle.graph())
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = lengths.get(axis.dim_param, 1)
    inference = import_optional("onnxruntime.tools.symbolic_shape_infer", "cpu").SymbolicShapeInference
    try:
        return inference.infer_shapes(model, auto_merge=True).graph
    except Exception:  # of no narrower type, where it does not get through
        return onnx.shape_inference.infer_shapes(model, data_prop=True).graph


def _needed(graph: Any, outputs: Iterable[str]) -> list[Any]:
    """The nodes that some tensors of a graph are made by."""
    wanted = set(outputs)
    nodes = []
    for node in reversed(graph.node):  # sorted topologically, as ONNX demands
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    return nodes


def _work(graph: Any, nodes: Iterable[Any]) -> Work:
    """What some nodes of a graph do."""
    shapes: dict[str, Sequence[int]] = {item.name: list(item.dims) for item in graph.initializer}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    nodes = list(nodes)
    counts = [_count(node, shapes, set(sizes)) for node in nodes if node.op_type in _PRODUCTS]
    known = [count for count in counts if count is not None]
    weights = {name for node in nodes for name in node.input if name in sizes}
    return Work(
        sum(multiply_adds for multiply_adds, _ in known),
        sum(values for _, values in known),
        sum(sizes[name] for name in weights),
        len(counts) - len(known),
    )


def _count(
    node: Any, shapes: Mapping[str, Sequence[int]], constants: Collection[str]
) -> tuple[int, int] | None:
    """Multiply-adds of a node, and the values that it reads and writes; None where a shape is unknown."""
    tensors = [shapes.get(name, [0]) for name in (*node.input[:2], node.output[0])]
    if not all(all(shape) for shape in tensors):
        return None
    first, second, output = tensors
    multiply_adds = math.prod(output) * _terms(node, first, second)
    if node.op_type == "ConvTranspose":  # every input value goes into a kernel of outputs
        multiply_adds = math.prod(first) * math.prod(second[1:])
    moved = [math.prod(shapes[name]) for name in node.input[:2] if name not in constants]
    return multiply_adds, sum(moved) + math.prod(output)


def _terms(node: Any, first: Sequence[int], second: Sequence[int]) -> int:
    """How many products each value of the output is the sum of."""
    if node.op_type == "Conv":
        return math.prod(second[1:])  # the weight is [out, in / groups, height, width]
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return first[0] if transposed else first[-1]


_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
