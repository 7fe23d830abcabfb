"""A teacher -> a foreground bundle: the class activation map of each image's class.

Zhou et al., CVPR 2016, arXiv 1512.04150: where a network averages its last feature map and multiplies it by a
linear head, the class's weights times that map say where in the image the class's logit comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, write_bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_export.graphs.graph import (
    EXTRA,
    Array,
    GraphBuilder,
    bundle_of,
    cut_model,
    load_model,
    read_model,
    run_model,
    serialise,
)
from fgdd_export.graphs.parity import check_parity, drawn_images, teacher_tolerance
from fgdd_fast.errors import SettingsError, TeacherError
from fgdd_fast.models.class_activation import CLASS_ACTIVATION, THRESHOLD

if TYPE_CHECKING:
    import onnx

TOLERANCES = {
    "max_mask_difference": 0.5 / 255 + 1e-3,
    "max_occupancy_error": 1e-3,
}  # half a grey level is rounding
NEAR_TIE = 1e-4  # of a map's maximum: a pixel that near to the threshold may fall on either side
_PASSING = ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze")  # [n, channels, 1, 1] to [n, channels]
LEAST = 1e-4  # of a map's maximum: less is no evidence, and may be no number in half precision
COMPARED = 5  # classes, at most
_CHANNELS = {(2, 3): 1, (1, 2): 3}  # the axis of a map's channels, by the axes that are averaged

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class PooledHead:
    """The end of a network: `logits` = the mean of a feature map over its area @ `weight`.T + `bias`.

    Attributes:
        feature_map: name of the tensor, float32 [batch, channels, rows, columns].
        channels_last: whether it is [batch, rows, columns, channels] instead.
        weight: float32 [classes, channels].
        bias: float32 [classes].
    """

    feature_map: str
    channels_last: bool
    weight: Array
    bias: Array


def export_class_activation(
    teacher: Bundle, onnx: Path, *, threshold: float = THRESHOLD, size: int | None = None
) -> Bundle:
    """Write a teacher's class activation map as a foreground bundle; nothing is trained.

    Args:
        teacher: in fp32; its network ends in global average pooling and one linear layer.
        onnx: where the ONNX file goes; the sidecar goes beside it.
        threshold: share of a map's maximum, in (0, 1), above which a pixel is foreground.
        size: side of the images that it takes, in pixels; the teacher's own by default. A larger one gives a
            finer map.

    Returns:
        A bundle with the role `foreground`: inputs `images` uint8 [batch, height, width, 3] and `labels`
        int32 [batch], which are indices of `classes`; outputs `mask` uint8 [batch, rows, columns], where 128
        and more is foreground, and `occupancy` float32 [batch].

    Raises:
        TeacherError: the network ends in another way.
        SettingsError: the bundle is no teacher in fp32, or takes no images of this size; or the threshold is
            none.
        BundleError: the teacher cannot be read, or the result differs from the same sums in float64.
    """
    if not 0 < threshold < 1:
        raise SettingsError(f"A threshold lies between 0 and 1, so {threshold} cannot be one")
    if teacher.role != "teacher" or teacher.variant is not None or teacher.tile_of is not None:
        raise SettingsError(f"The bundle {teacher.onnx} is no teacher in fp32", "Name the teacher itself.")
    height, width = _input_size(teacher, size)
    network = read_model(teacher.graph(), f"The teacher {teacher.onnx}")
    head = find_pooled_head(network, teacher.name)
    images = drawn_images(height, width)
    maps = _feature_maps(network, head, images, teacher.name)
    model = serialise(
        build_class_activation(network, head, (height, width), maps.shape[2:], threshold=threshold)
    )
    parity = _measure_parity(model, head, images, maps, threshold)
    check_parity(onnx.stem, parity, TOLERANCES)
    bundle = bundle_of(
        read_model(model, f"The class activation map {onnx.stem}"),
        onnx,
        "foreground",
        preprocessing=Preprocessing(height, width, teacher.preprocessing.description),
        classes=teacher.classes,
        source={"teacher": {"name": teacher.name, "sha256": teacher.sha256, **teacher.source}},
        licence=teacher.licence,
        parity=parity,
        prompting={"family": CLASS_ACTIVATION.name, "threshold": threshold},
    )
    return write_bundle(bundle, model)


def _input_size(teacher: Bundle, size: int | None) -> tuple[int, int]:
    height, width = teacher.preprocessing.height, teacher.preprocessing.width
    wanted = (height, width) if size is None else (size, size)
    for axis, length in zip(teacher.inputs[0].shape[1:3], wanted, strict=True):
        if isinstance(axis, int) and axis != length:
            raise SettingsError(
                f"The teacher {teacher.name} takes images of {height} x {width} pixels only",
                "Leave the size out.",
            )
    return wanted


def find_pooled_head(network: onnx.ModelProto, name: str) -> PooledHead:
    """Find the feature map and the linear layer that a teacher's logits come from.

    Args:
        network: has the output `logits`.
        name: of the teacher, for messages.

    Raises:
        TeacherError: something else lies between them than global average pooling.
    """
    makers = {output: node for node in network.graph.node for output in node.output}
    weight, bias, features = _linear(network, makers, name)
    node = makers.get(features)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    if node is None or (axes := _averaged_axes(node)) not in _CHANNELS:
        found = "nothing" if node is None else f"a node {node.op_type}"
        raise _other_end(name, f"its linear layer is fed by {found}, not by global average pooling")
    return PooledHead(node.input[0], _CHANNELS[axes] == 3, weight, bias)


def _linear(
    network: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto], name: str
) -> tuple[Array, Array, str]:
    """The weight [classes, channels] and bias of the last layer, and the tensor that it takes."""
    helper: Any = import_optional("onnx", EXTRA).numpy_helper
    constants = {tensor.name: tensor for tensor in network.graph.initializer}

    def read(tensor: str) -> Array:
        if tensor not in constants:
            raise _other_end(name, "the weights of its last layer are computed")
        return np.asarray(helper.to_array(constants[tensor]), np.float32)

    node = makers["logits"]
    bias: Array = np.zeros(1, np.float32)
    if node.op_type == "Add" and any(tensor in constants for tensor in node.input):
        product, added = sorted(node.input, key=lambda tensor: tensor in constants)
        bias, node = read(added), makers.get(product, node)
    if node.op_type == "MatMul":
        weight = read(node.input[1]).T
    elif node.op_type == "Gemm" and _is_plain(node):
        weight = read(node.input[1])
        weight = weight if _attributes(node).get("transB") else weight.T
        bias = bias + read(node.input[2]) if len(node.input) > 2 else bias
    else:
        raise _other_end(name, f"its logits come from a node {node.op_type}, not from a linear layer")
    if weight.ndim != 2:
        raise _other_end(name, "its last layer has no matrix of weights")
    return weight, np.broadcast_to(bias.ravel(), weight.shape[:1]), node.input[0]


def _is_plain(gemm: onnx.NodeProto) -> bool:
    found = _attributes(gemm)
    return found.get("alpha", 1.0) == found.get("beta", 1.0) == 1.0 and not found.get("transA")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    helper: Any = import_optional("onnx", EXTRA).helper
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _averaged_axes(node: onnx.NodeProto) -> tuple[int, ...]:
    """The axes of a tensor of four that a node averages, sorted; none where it does something else."""
    if node.op_type == "GlobalAveragePool":
        return (2, 3)
    if node.op_type != "ReduceMean":
        return ()
    return tuple(sorted(axis % 4 for axis in _attributes(node).get("axes", ())))


def _other_end(name: str, reason: str) -> TeacherError:
    return TeacherError(
        f"The teacher {name} has no class activation map: {reason}",
        "It takes a network that ends in global average pooling and one linear layer, such as a ResNet, an "
        "EfficientNet, or what 'fgdd-fast teacher fit' makes; a ViT and a flattened ConvNet do not.",
    )


def _feature_maps(network: onnx.ModelProto, head: PooledHead, images: Array, name: str) -> Doubles:
    """The feature maps [n, channels, rows, columns] of images, whose means have to give the logits."""
    onnx: Any = import_optional("onnx", EXTRA)
    widened = onnx.ModelProto()
    widened.CopyFrom(network)
    widened.graph.output.append(
        onnx.helper.make_tensor_value_info(head.feature_map, onnx.TensorProto.FLOAT, None)
    )
    found = run_model(serialise(widened), {"images": images, "labels": np.zeros(len(images), np.int32)})
    maps = np.asarray(found[head.feature_map], np.float64)
    if maps.ndim != 4:
        raise _other_end(name, "what is averaged is no map")
    maps = maps.transpose(0, 3, 1, 2) if head.channels_last else maps
    if maps.shape[1] != head.weight.shape[1]:
        raise _other_end(name, "its linear layer takes more than the means of its feature map")
    logits = maps.mean(axis=(2, 3)) @ head.weight.astype(np.float64).T + head.bias
    if not np.abs(logits - found["logits"]).max() <= teacher_tolerance(float(np.abs(logits).max())):
        raise _other_end(name, "its logits are not the class's weights times the means of its feature map")
    return maps


def build_class_activation(
    network: onnx.ModelProto,
    head: PooledHead,
    size: tuple[int, int],
    cells: tuple[int, ...],
    *,
    threshold: float,
) -> onnx.ModelProto:
    """Cut a teacher at its feature map, and add the map of one class, its mask and its occupancy.

    Args:
        network: the teacher.
        head: its end.
        size: height and width of the images in pixels.
        cells: rows and columns of the feature map for images of this size.
        threshold: see `export_class_activation`.

    Returns:
        A model of the tensors that `export_class_activation` names. The mask is the map, scaled by its
        maximum, interpolated to about the size of the images, and bent so that the threshold becomes a half.
    """
    builder = GraphBuilder("cam_")
    nodes, constants = cut_model(network, [head.feature_map])
    builder.nodes += nodes
    builder.constants += constants
    planes = head.feature_map
    if head.channels_last:
        planes = builder.node("Transpose", planes, perm=[0, 3, 1, 2])
    rows, columns = cells
    channels = head.weight.shape[1]
    # A product of matrices for each sample: ReduceSum rounds some samples of a batch in another order.
    flat = builder.node("Reshape", planes, builder.constant([0, channels, rows * columns], np.int64))
    weights = builder.node("Gather", builder.constant(head.weight), "labels", axis=0)
    weights = builder.node("Unsqueeze", weights, builder.constant([1], np.int64))
    evidence = builder.node("Relu", builder.node("MatMul", weights, flat))
    peak = builder.node("ReduceMax", evidence, axes=[1, 2], keepdims=1)
    share = builder.node("Div", evidence, builder.node("Max", peak, builder.constant(LEAST)))
    share = builder.node("Reshape", share, builder.constant([0, 1, rows, columns], np.int64))
    factors = _factors(size, cells)
    scales = builder.constant([1, 1, *factors])
    share = builder.node(
        "Resize", share, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    above = builder.node("Sub", share, builder.constant(threshold))
    below = builder.node("Mul", above, builder.constant(0.5 / threshold))
    above = builder.node("Mul", above, builder.constant(0.5 / (1 - threshold)))
    bent = builder.node("Min" if threshold <= 0.5 else "Max", below, above)
    grey = builder.node("Mul", builder.node("Add", bent, builder.constant(0.5)), builder.constant(255.0))
    grey = builder.node("Round", grey)
    foreground = builder.cast(builder.node("Greater", grey, builder.constant(127.5)), np.float32)
    builder.node("ReduceMean", foreground, axes=[1, 2, 3], keepdims=0, output="occupancy")
    grey = builder.node("Squeeze", grey, builder.constant([1], np.int64))
    builder.cast(grey, np.uint8, output="mask")
    mask = (rows * factors[0], columns * factors[1])
    return builder.model(
        f"{network.graph.name}_cam",
        [TensorSpec("images", "uint8", ("batch", *size, 3)), TensorSpec("labels", "int32", ("batch",))],
        [TensorSpec("mask", "uint8", ("batch", *mask)), TensorSpec("occupancy", "float32", ("batch",))],
    )


def _factors(size: tuple[int, ...], cells: tuple[int, ...]) -> tuple[int, int]:
    """By how much rows and columns grow; whole numbers, so that runtimes agree on how many there are."""
    return max(1, size[0] // cells[0]), max(1, size[1] // cells[1])


def _measure_parity(
    model: bytes, head: PooledHead, images: Array, maps: Doubles, threshold: float
) -> dict[str, float]:
    """Compare masks and occupancies of every class's map with the same sums in float64."""
    run = load_model(model)
    rows, columns = np.multiply(maps.shape[2:], _factors(images.shape[1:3], maps.shape[2:]))
    mask_difference = occupancy_error = 0.0
    for label in np.unique(np.linspace(0, len(head.weight) - 1, COMPARED).astype(np.int32)):
        found = run({"images": images, "labels": np.full(len(images), label, np.int32)})
        for place, planes in enumerate(maps):
            evidence = np.maximum(np.tensordot(head.weight[label].astype(np.float64), planes, 1), 0)
            share = evidence / max(evidence.max(), LEAST)
            share = cv2.resize(share, (int(columns), int(rows)), interpolation=cv2.INTER_LINEAR)
            probability = np.interp(share, [0, threshold, 1], [0, 0.5, 1])
            difference = np.abs(found["mask"][place] / 255 - probability).max()
            least, most = ((share > threshold + near).mean() for near in (NEAR_TIE, -NEAR_TIE))
            error = abs(float(found["occupancy"][place]) - np.clip(found["occupancy"][place], least, most))
            mask_difference = max(mask_difference, float(difference))
            occupancy_error = max(occupancy_error, float(error))
    return {"max_mask_difference": mask_difference, "max_occupancy_error": occupancy_error}
