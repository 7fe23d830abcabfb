"""A backbone and a linear head -> one teacher bundle that gives logits and each sample's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_export.graphs.graph import (
    Array,
    GraphBuilder,
    bundle_of,
    cut_model,
    read_model,
    run_model,
    serialise,
    tensor_specs,
)
from fgdd_export.graphs.late_onnx import onnx
from fgdd_export.graphs.parity import check_teacher_parity, cross_entropy, drawn_images, teacher_differences
from fgdd_fast.errors import TeacherError


def build_teacher(
    backbone: Bundle,
    weight: Array,
    bias: Array,
    classes: Sequence[str],
    onnx: Path,
    *,
    source: Mapping[str, Any],
    accuracy: Mapping[str, Any],
) -> Bundle:
    """Write backbone and head as one ONNX file.

    Args:
        backbone: a bundle with the output `features` float32 [batch, channels].
        weight: float32 [classes, channels].
        bias: float32 [classes].
        classes: the class names, in the order of the logits.
        onnx: where the ONNX file goes; the sidecar goes beside it, and its stem is the bundle's name.
        source: what the head was fitted on; the backbone is recorded with it.
        accuracy: what was measured on held-out images.

    Returns:
        A bundle with the role `teacher`: inputs `images` and `labels` int32 [batch], outputs `logits` float32
        [batch, classes], `loss` float32 [batch], the cross-entropy of each sample in nats, and the backbone's
        `features`.

    Raises:
        TeacherError: weight, bias and classes do not fit each other or the backbone.
        BundleError: the backbone cannot be read, or the file differs from the same sum in float64.
    """
    _check_head(backbone, weight, bias, classes)
    network = read_model(backbone.graph(), f"The backbone {backbone.name}")
    model = serialise(add_head(network, weight, bias))
    parity = _measure_parity(network, model, weight, bias, backbone)
    check_teacher_parity(onnx.stem, parity)
    origin = {"name": backbone.name, "sha256": backbone.sha256, **backbone.source}
    bundle = bundle_of(
        read_model(model, f"The teacher {onnx.stem}"),
        onnx,
        "teacher",
        preprocessing=backbone.preprocessing,
        classes=tuple(classes),
        source={"backbone": origin, "head": dict(source)},
        licence=backbone.licence,
        parity=parity,
        accuracy=accuracy,
    )
    return write_bundle(bundle, model)


def _check_head(backbone: Bundle, weight: Array, bias: Array, classes: Sequence[str]) -> None:
    features = next((spec for spec in backbone.outputs if spec.name == "features"), None)
    if features is None:
        raise TeacherError(f"The bundle {backbone.name} has no output 'features', so it is no backbone")
    if weight.shape != (len(classes), features.shape[1]) or bias.shape != (len(classes),):
        raise TeacherError(
            f"A head for {len(classes)} classes on {features.shape[1]} features has a weight "
            f"[{len(classes)}, {features.shape[1]}] and a bias [{len(classes)}], "
            f"not {list(weight.shape)} and {list(bias.shape)}"
        )
    if len(set(classes)) != len(classes):
        raise TeacherError("Two of the teacher's classes have the same name")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise TeacherError("The head holds values that are not finite", "Fit it again.")


def add_head(backbone: onnx.ModelProto, weight: Array, bias: Array) -> onnx.ModelProto:
    """Cut a backbone at `features`, which stay an output, and add a linear head with its cross-entropy."""
    builder = _cut(backbone, "features")
    head = builder.constant(weight), builder.constant(bias)
    builder.node("Gemm", "features", *head, output="logits", transB=1)
    batch = tensor_specs(backbone.graph.input)[0].shape[0]
    features = TensorSpec("features", "float32", (batch, weight.shape[1]))
    return _finish(builder, backbone, len(bias), features)


def add_loss(network: onnx.ModelProto, classes: int) -> onnx.ModelProto:
    """Cut a network at `logits` float32 [batch, classes] and add their cross-entropy.

    The network's first input is `images`, and its opset is `OPSET`. Returns a model from `images` and
    `labels` int32 [batch] to `logits` and `loss` float32 [batch], in nats.
    """
    return _finish(_cut(network, "logits"), network, classes)


def _cut(network: onnx.ModelProto, output: str) -> GraphBuilder:
    """A builder that holds what a network needs to compute one tensor."""
    builder = GraphBuilder("head_")
    nodes, constants = cut_model(network, [output])
    builder.nodes += nodes
    builder.constants += constants
    return builder


def _finish(
    builder: GraphBuilder, network: onnx.ModelProto, classes: int, *others: TensorSpec
) -> onnx.ModelProto:
    """Add the cross-entropy of `logits`, and assemble the teacher, which gives other tensors as well.

    The loss is the negative of LogSoftmax at the label. Written out with ReduceSum, ONNX Runtime rounds some
    samples of a batch in another order than others; ReduceLogSumExp is reduced over wrong axes by OpenVINO
    (openvinotoolkit/openvino issue 38238); and TensorRT has no SoftmaxCrossEntropyLoss.
    """
    columns = builder.constant([1], np.int64)
    scores = builder.node("LogSoftmax", "logits", axis=1)
    labels = builder.node("Unsqueeze", "labels", columns)
    score = builder.node("GatherElements", scores, labels, axis=1)
    builder.node("Squeeze", builder.node("Neg", score), columns, output="loss")
    images = tensor_specs(network.graph.input)[0]
    batch = images.shape[:1]
    outputs = [TensorSpec("logits", "float32", (*batch, classes)), TensorSpec("loss", "float32", batch)]
    inputs = [images, TensorSpec("labels", "int32", batch)]
    return builder.model(f"{network.graph.name}_teacher", inputs, [*outputs, *others])


def _measure_parity(
    network: onnx.ModelProto, model: bytes, weight: Array, bias: Array, backbone: Bundle
) -> dict[str, float]:
    images = drawn_images(backbone.preprocessing.height, backbone.preprocessing.width)
    labels = (np.arange(len(images)) * 7 % len(bias)).astype(np.int32)
    features = run_model(serialise(network), {"images": images})["features"]
    logits = features.astype(np.float64) @ weight.astype(np.float64).T + bias
    found = run_model(model, {"images": images, "labels": labels})
    return teacher_differences(found, logits, cross_entropy(logits, labels))
