"""How much arithmetic a bundle's graphs ask for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgdd_bench.harness.implementation import StageName
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_export.graphs.graph import cut_model
from fgdd_fast.models.grounded_tensors import BOXES, SCORES

IMAGE_ENCODER = "/image_encoder/"  # in the names of its nodes: that of the module which was traced
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True)
class Work:
    """What a graph does for one sample: multiply-adds of its convolutions and matrix products.

    `unknown` are those of them whose shapes could not be inferred, which are not counted.
    """

    multiply_adds: int
    unknown: int


@dataclass(frozen=True)
class Network:
    """A network that a path runs: of which bundle, what it does for a sample, and samples of each image."""

    name: str
    work: Work
    samples: int


def graph_operations(bundle: Bundle, height: int, width: int) -> Work:
    """Count the arithmetic of a graph by shape inference, at batch 1, for images of so many pixels.

    Raises:
        BundleError: the graph keeps its weights in other files.
    """
    graph = _inferred(bundle, {"height": height, "width": width}).graph
    return _work(graph, graph.node)


def grounded_operations(bundle: Bundle) -> dict[StageName, Work]:
    """Count the arithmetic of a Grounded SAM 2, in either form, by its three networks.

    Raises:
        BundleError: a graph keeps its weights in other files, or lacks a part.
    """
    joint = segmenter = _inferred(bundle, {})
    if "segmenter" in bundle.parts:
        segmenter = _inferred(bundle.part("segmenter"), {})
    nodes = segmenter.graph.node
    detector, _ = cut_model(joint, (BOXES.name, SCORES.name))
    encoder, _ = cut_model(
        segmenter, [out for node in nodes if IMAGE_ENCODER in node.name for out in node.output]
    )
    taken = {node.output[0] for node in (*detector, *encoder)}
    decoder = [node for node in nodes if node.output[0] not in taken]
    return {
        "detector": _work(joint.graph, detector),
        "mask encoder": _work(segmenter.graph, encoder),
        "mask decoder": _work(segmenter.graph, decoder),
    }


def _inferred(bundle: Bundle, lengths: Mapping[str, int]) -> Any:
    """A model with the shapes of its tensors; axes that are not named here have the length 1.

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
        return inference.infer_shapes(model, auto_merge=True)
    except Exception:  # of no narrower type, where it does not get through
        return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _work(graph: Any, nodes: Iterable[Any]) -> Work:
    """What some nodes of a graph do."""
    shapes: dict[str, Sequence[int]] = {item.name: list(item.dims) for item in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    multiply_adds = unknown = 0
    for node in nodes:
        if node.op_type in _PRODUCTS:
            tensors = [shapes.get(name, [0]) for name in (*node.input[:2], node.output[0])]
            known = all(map(all, tensors))
            multiply_adds += _multiply_adds(node, *tensors) if known else 0
            unknown += not known
    return Work(multiply_adds, unknown)


def _multiply_adds(node: Any, first: Sequence[int], second: Sequence[int], output: Sequence[int]) -> int:
    if node.op_type == "ConvTranspose":  # every input value goes into a kernel of outputs
        return math.prod(first) * math.prod(second[1:])
    if node.op_type == "Conv":  # the weight is [out, in / groups, height, width]
        return math.prod(output) * math.prod(second[1:])
    transposed = any(item.name == "transA" and item.i for item in node.attribute)
    return math.prod(output) * (first[0] if transposed else first[-1])
