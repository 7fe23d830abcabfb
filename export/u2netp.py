"""U2-Netp as published -> a foreground bundle that takes uint8 images and gives mask and occupancy.

U2-Net: Qin et al., Pattern Recognition 2020, arXiv 2005.09007; published preprocessing and min-max scaling:
the repository xuebinqin/U-2-Net, `data_loader.py` and `u2net_test.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgdd_fast.engines.base import TensorSpec
from fgdd_fast.errors import BundleError
from fgdd_fast.export.graph import EXTRA, OPSET, GraphBuilder, cut_model, read_model, slim_model
from fgdd_fast.extras import import_extra

if TYPE_CHECKING:
    import onnx

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
STRIDE = 32  # the network halves its input five times


def build_u2netp(source: bytes, size: int) -> onnx.ModelProto:
    """Wrap the published network in its preprocessing and postprocessing.

    Args:
        source: the published ONNX file's bytes; its first output is the fused probability map.
        size: pixels of each side of the square input, a multiple of 32.

    Returns:
        A model from `images` uint8 [batch, size, size, 3], RGB, to `mask` uint8 [batch, size, size] (0 to
        255: the probability map scaled to fill [0, 1] in each image) and `occupancy` float32 [batch].
    """
    network = _network(source, size)
    builder = GraphBuilder("fgdd_")
    planes = builder.images_to_planes("images")
    peak = builder.node("ReduceMax", planes, axes=[1, 2, 3], keepdims=1)
    peak = builder.node("Max", peak, builder.constant(1.0))  # an all-black image stays black
    shape = (1, 3, 1, 1)
    planes = builder.node("Div", planes, peak)
    planes = builder.node("Sub", planes, builder.constant(np.reshape(MEAN, shape)))
    builder.node("Div", planes, builder.constant(np.reshape(STD, shape)), output=network.graph.input[0].name)
    probability = network.graph.output[0].name
    nodes, constants = cut_model(network, [probability])
    builder.nodes += nodes
    builder.constants += constants
    _add_postprocessing(builder, probability)
    return builder.model(
        f"u2netp_{size}",
        [TensorSpec("images", "uint8", ("batch", size, size, 3))],
        [TensorSpec("mask", "uint8", ("batch", size, size)), TensorSpec("occupancy", "float32", ("batch",))],
    )


def _network(source: bytes, size: int) -> onnx.ModelProto:
    """The published network for one input size, at the current opset, free of shape arithmetic."""
    model = read_model(source, "The source of U2-Netp")
    del model.graph.output[1:]  # the side outputs serve training only
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, length in zip(value.type.tensor_type.shape.dim, (1, None, size, size), strict=True):
            if length is not None:
                axis.dim_value = length
    model = slim_model(model)  # at batch 1 every size becomes a constant
    version_converter: Any = import_extra("onnx.version_converter", EXTRA)
    model = version_converter.convert_version(model, OPSET)
    _resize_by_scales(model)
    return model


def _resize_by_scales(model: onnx.ModelProto) -> None:
    """Give each Resize its factors instead of a target size, which would fix the batch."""
    onnx_: Any = import_extra("onnx", EXTRA)
    inferred = onnx_.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }
    for node in model.graph.node:
        if node.op_type != "Resize":
            continue
        scales = np.divide(shapes[node.output[0]], shapes[node.input[0]]).astype(np.float32)
        name = f"{node.output[0]}_scales"
        model.graph.initializer.append(onnx_.numpy_helper.from_array(scales, name))
        node.input[:] = [node.input[0], "", name]


def _add_postprocessing(builder: GraphBuilder, probability: str) -> None:
    low = builder.node("ReduceMin", probability, axes=[1, 2, 3], keepdims=1)
    high = builder.node("ReduceMax", probability, axes=[1, 2, 3], keepdims=1)
    span = builder.node("Max", builder.node("Sub", high, low), builder.constant(1e-6))
    scaled = builder.node("Div", builder.node("Sub", probability, low), span)
    foreground = builder.cast(builder.node("Greater", scaled, builder.constant(0.5)), np.float32)
    builder.node("ReduceMean", foreground, axes=[1, 2, 3], keepdims=0, output="occupancy")
    grey = builder.node("Round", builder.node("Mul", scaled, builder.constant(255.0)))
    grey = builder.node("Squeeze", grey, builder.constant([1], np.int64))
    builder.cast(grey, np.uint8, output="mask")
