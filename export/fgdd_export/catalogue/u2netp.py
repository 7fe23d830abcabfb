"""U2-Netp as published -> a foreground bundle that takes uint8 images and gives mask and occupancy.

U2-Net: Qin et al., Pattern Recognition 2020, arXiv 2005.09007; published preprocessing and min-max scaling:
the repository xuebinqin/U-2-Net, `data_loader.py` and `u2net_test.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Preprocessing
from fgdd_export.graphs.graph import (
    OPSET,
    GraphBuilder,
    cut_model,
    load_model,
    read_model,
    run_model,
    serialise,
    slim_model,
    tensor_specs,
)
from fgdd_export.graphs.late_onnx import onnx
from fgdd_export.graphs.parity import Prepared, check_parity, drawn_images, mask_iou
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.models.catalogue.catalogue import Preparation

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
STRIDE = 32  # the network halves its input five times
# Half a grey level is rounding; what is left is the order of float32 sums.
TOLERANCES = {
    "max_probability_difference": 0.5 / 255 + 1e-3,
    "mask_iou_loss": 1e-3,
    "max_occupancy_error": 1e-3,
}


def prepare_u2netp(source_file: Path, preparation: Preparation) -> Prepared:
    """Make a foreground model of a published U2-Netp file, at one input size, and measure its parity.

    Raises SettingsError where the size is missing or no multiple of 32, and BundleError where the file is no
    U2-Netp, or the result differs from it.
    """
    size = preparation.size
    if size is None or size % STRIDE:
        raise SettingsError(f"The recipe u2netp needs a size that is a multiple of {STRIDE}, not {size}")
    source = source_file.read_bytes()
    model = serialise(build_u2netp(source, size))
    images = drawn_images(size, size)
    parity = compare(run_model(model, {"images": images}), reference_probabilities(source, images))
    check_parity(f"u2netp at {size}", parity, TOLERANCES)
    description = "divided by the image's highest value, ImageNet mean and standard deviation"
    return Prepared(model, "foreground", Preprocessing(size, size, description), parity)


def reference_probabilities(source: bytes, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The published network as published: preprocessing in NumPy, one image at a time, min-max scaling.

    Takes the published file's bytes and images uint8 [n, height, width, 3], RGB; gives float64 [n, height,
    width], from 0 to 1 in each image.
    """
    model = _read_source(source)
    for axis in (2, 3):  # the file is fixed at 320, though every layer takes other sizes
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side_{axis}"
        for output in model.graph.output:
            output.type.tensor_type.shape.dim[axis].dim_param = f"side_{axis}"
    run, name = load_model(serialise(model)), model.graph.input[0].name
    probabilities = []
    for image in images:
        planes = ((image / image.max() - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
        raw = run({name: planes})[model.graph.output[0].name][0, 0].astype(np.float64)
        probabilities.append((raw - raw.min()) / (raw.max() - raw.min()))
    return np.stack(probabilities)


def compare(found: Mapping[str, NDArray[Any]], reference: NDArray[np.float64]) -> dict[str, float]:
    """Measure the bundle's `mask` and `occupancy` against the reference's probabilities."""
    probabilities, foreground = found["mask"] / 255, reference > 0.5
    iou = min(map(mask_iou, probabilities > 0.5, foreground))
    return {
        "max_probability_difference": float(np.abs(probabilities - reference).max()),
        "mask_iou_loss": 1 - iou,
        "max_occupancy_error": float(np.abs(found["occupancy"] - foreground.mean(axis=(1, 2))).max()),
    }


def build_u2netp(source: bytes, size: int) -> onnx.ModelProto:
    """Wrap the published network (the file's bytes) in its preprocessing and postprocessing.

    The model takes `images` uint8 [batch, size, size, 3], RGB, to `mask` uint8 [batch, size, size] (0 to 255:
    the probability map scaled to fill [0, 1] in each image) and `occupancy` float32 [batch]; `size` is a
    multiple of 32.
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


def _read_source(source: bytes) -> onnx.ModelProto:
    model = read_model(source, "The source of U2-Netp")
    inputs, outputs = tensor_specs(model.graph.input), tensor_specs(model.graph.output)
    channels = [spec.shape[1] for spec in (*inputs, *outputs[:1]) if len(spec.shape) == 4]
    if channels != [3, 1]:
        raise BundleError(
            f"The source is no U2-Netp: it maps {[spec.shape for spec in inputs]} to "
            f"{[spec.shape for spec in outputs[:1]]}, not three planes to one"
        )
    return model


def _network(source: bytes, size: int) -> onnx.ModelProto:
    """The published network for one input size, at the current opset, free of shape arithmetic."""
    model = _read_source(source)
    del model.graph.output[1:]  # the side outputs serve training only
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, length in zip(value.type.tensor_type.shape.dim, (1, None, size, size), strict=True):
            if length is not None:
                axis.dim_value = length
    model = slim_model(model)  # at batch 1 every size becomes a constant
    converted: onnx.ModelProto = onnx.version_converter.convert_version(model, OPSET)
    _resize_by_scales(converted)
    return converted


def _resize_by_scales(model: onnx.ModelProto) -> None:
    """Give each Resize its factors instead of a target size, which would fix the batch."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}
    for node in model.graph.node:
        if node.op_type != "Resize":
            continue
        scales = np.divide(shapes[node.output[0]], shapes[node.input[0]]).astype(np.float32)
        name = f"{node.output[0]}_scales"
        model.graph.initializer.append(onnx.numpy_helper.from_array(scales, name))
        node.input[:] = [node.input[0], "", name]


def _add_postprocessing(builder: GraphBuilder, probability: str) -> None:
    """Scale each image's map to fill [0, 1]; where no pixel is more likely foreground than not, all is 0.

    Without that condition the scaling would stretch what little noise an empty image gives to full contrast.
    At 160 pixels and more, the highest probability is above 0.8 on each of 427 photographs of clothes, and
    below 0.1 on flat and graded images.
    """
    low = builder.node("ReduceMin", probability, axes=[1, 2, 3], keepdims=1)
    high = builder.node("ReduceMax", probability, axes=[1, 2, 3], keepdims=1)
    half = builder.constant(0.5)
    found = builder.cast(builder.node("Greater", high, half), np.float32)
    span = builder.node("Max", builder.node("Sub", high, low), builder.constant(1e-6))
    scaled = builder.node("Div", builder.node("Sub", probability, low), span)
    scaled = builder.node("Mul", scaled, found)
    foreground = builder.cast(builder.node("Greater", scaled, half), np.float32)
    builder.node("ReduceMean", foreground, axes=[1, 2, 3], keepdims=0, output="occupancy")
    grey = builder.node("Round", builder.node("Mul", scaled, builder.constant(255.0)))
    grey = builder.node("Squeeze", grey, builder.constant([1], np.int64))
    builder.cast(grey, np.uint8, output="mask")
