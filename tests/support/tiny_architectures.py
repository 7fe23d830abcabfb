"""Miniatures of what networks are made of, as ONNX graphs, and what holds of every lowered graph."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from fgdd_engines.base import TensorSpec
from fgdd_export.graphs.graph import GraphBuilder, serialise
from fgdd_export.precision.graph import LowPrecision
from fgdd_export.precision.mixed_precision import lower_precision

TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def convolutional(rng: np.random.Generator) -> onnx.ModelProto:
    """Pixels / 255, two convolutions and their sum, a mean over the map, and a linear head."""
    builder = GraphBuilder()
    planes = builder.node("Div", builder.images_to_planes("images"), builder.constant(255.0))
    maps = planes
    for channels in (3, 8):
        weights = builder.constant(rng.normal(0, channels**-0.5, (8, channels, 3, 3)))
        before, maps = maps, builder.node("Conv", maps, weights, pads=[1, 1, 1, 1])
        maps = builder.node("Relu", maps)
    maps = builder.node("Add", before, maps)
    features = builder.node("ReduceMean", maps, axes=[2, 3], keepdims=0)
    builder.node("MatMul", features, builder.constant(rng.normal(size=(8, 5))), output="logits")
    inputs = [TensorSpec("images", "uint8", ("batch", 16, 16, 3))]
    return builder.model("classifier", inputs, [TensorSpec("logits", "float32", ("batch", 5))])


def upscaling(rng: np.random.Generator) -> onnx.ModelProto:
    """Two convolutions with a transposed one between them, as masks are made finer."""
    builder = GraphBuilder()
    tensor = builder.images_to_planes("images")
    for operator, shape, attributes in (
        ("Conv", (8, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("ConvTranspose", (8, 4, 2, 2), {"strides": [2, 2]}),
        ("Conv", (2, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    ):
        weights = builder.constant(rng.normal(0, 0.1, shape))
        tensor = builder.node("Relu", builder.node(operator, tensor, weights, **attributes))
    builder.node("ReduceMean", tensor, axes=[2, 3], keepdims=0, output="means")
    inputs = [TensorSpec("images", "uint8", ("batch", 16, 16, 3))]
    return builder.model("upscaling", inputs, [TensorSpec("means", "float32", ("batch", 2))])


def transformer(rng: np.random.Generator) -> onnx.ModelProto:
    """Attention with an additive mask made of an input, and a feed-forward part, residual, over LayerNorm."""
    builder = GraphBuilder()

    def linear(tensor: str, rows: int, columns: int) -> str:
        product = builder.node("MatMul", tensor, builder.constant(rng.normal(0, 0.2, (rows, columns))))
        return builder.node("Add", product, builder.constant(rng.normal(0, 0.1, columns)))

    def normalised(tensor: str) -> str:
        scale, shift = builder.constant(rng.normal(1, 0.1, 16)), builder.constant(rng.normal(0, 0.1, 16))
        return builder.node("LayerNormalization", tensor, scale, shift, axis=-1)

    bias = builder.node("Mul", builder.node("Sub", "mask", builder.constant(1.0)), builder.constant(1e9))
    trunk = linear("tokens", 16, 16)
    source = normalised(trunk)
    keys = builder.node("Transpose", linear(source, 16, 16), perm=[0, 2, 1])
    scores = builder.node("Add", builder.node("MatMul", linear(source, 16, 16), keys), bias)
    weights = builder.node("Softmax", scores, axis=-1)
    trunk = builder.node("Add", trunk, builder.node("MatMul", weights, linear(source, 16, 16)))
    hidden = linear(normalised(trunk), 16, 32)
    erf = builder.node("Erf", builder.node("Div", hidden, builder.constant(2**0.5)))
    gate = builder.node("Mul", builder.node("Add", erf, builder.constant(1.0)), builder.constant(0.5))
    trunk = builder.node("Add", trunk, linear(builder.node("Mul", hidden, gate), 32, 16))
    builder.node("MatMul", normalised(trunk), builder.constant(rng.normal(size=(16, 3))), output="scores")
    return builder.model(
        "transformer",
        [TensorSpec("tokens", "float32", ("batch", 6, 16)), TensorSpec("mask", "float32", ("batch", 1, 6))],
        [TensorSpec("scores", "float32", ("batch", 6, 3))],
    )


def check_wellformed(model: onnx.ModelProto, lowered: onnx.ModelProto, precision: LowPrecision) -> None:
    """Valid by every check of ONNX, the same from outside, and with no conversion that could be spared."""
    onnx.checker.check_model(lowered, full_check=True)
    onnx.shape_inference.infer_shapes(lowered, check_type=True, strict_mode=True)
    assert list(lowered.graph.input) == list(model.graph.input)
    assert list(lowered.graph.output) == list(model.graph.output)
    nodes = lowered.graph.node
    assert len({node.name for node in nodes}) == len(nodes)
    casts = [node for node in nodes if node.op_type == "Cast"]
    assert max(Counter((node.input[0], node.attribute[0].i) for node in casts).values()) == 1
    cast = {node.output[0]: node for node in casts}
    low = TYPES[precision]
    for node in casts:
        if node.attribute[0].i in (TensorProto.FLOAT, low) and node.input[0] in cast:
            assert cast[node.input[0]].attribute[0].i not in (TensorProto.FLOAT, low)
    read = {name for node in nodes for name in node.input}
    assert all(constant.name in read for constant in lowered.graph.initializer)


def operators_of(model: onnx.ModelProto) -> dict[str, str]:
    """The operator of each node, by the name under which it is reported."""
    return {node.name or node.output[0]: node.op_type for node in model.graph.node}


def parse_lowered(trt: Any, model: onnx.ModelProto, precision: LowPrecision) -> tuple[Any, Any, Any]:
    """Parse a lowered graph in TensorRT, which has to take its types as they are.

    Returns:
        The builder, the network, and the parser, which owns the network's weights.
    """
    lowered = lower_precision(model, precision)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, builder.logger)
    assert parser.parse(serialise(lowered.model)), [str(parser.get_error(0))]
    products = Counter(
        layer.get_output(0).dtype
        for layer in map(definition.get_layer, range(definition.num_layers))
        if layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    )
    low = {"fp16": trt.float16, "bf16": trt.bfloat16}[precision]
    operators = operators_of(model)
    assert products[low] == sum(operators[name] in ("Conv", "MatMul") for name in lowered.lowered)
    assert products.keys() <= {low, trt.float32}
    return builder, definition, parser
