"""EfficientNet-lite0 in ONNX, from the weights of its PyTorch port.

Architecture: Tan and Le, ICML 2019, arXiv 1905.11946, in the "lite" variant of the TensorFlow TPU models
(no squeeze-and-excitation, ReLU6, fixed stem and head). The weights' names are those of the PyTorch port.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Preprocessing
from fgdd_export.checkpoints.checkpoint import read_checkpoint
from fgdd_export.graphs.graph import Array, GraphBuilder, run_model, serialise
from fgdd_export.graphs.late_onnx import onnx
from fgdd_export.graphs.parity import Prepared, check_parity, drawn_images
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.models.catalogue.catalogue import Preparation

EPSILON = 1e-3  # of the batch normalisations
MEAN, SCALE = 127.0, 128.0
SIZE = 224  # of its training
GOLDEN = "efficientnet_lite0_golden.json"  # logits of the PyTorch network on the drawn images
TOLERANCES = {"max_logit_difference": 1e-3}  # seen: 1e-5; logits have a standard deviation of about 1.4


class Stage(NamedTuple):
    """Inverted residual blocks that share their settings; only the first strides and widens."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class _Network:
    """Adds layers to a graph and takes their weights from a checkpoint."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.builder = GraphBuilder()
        self.weights = weights
        self.unused = {name for name in weights if not name.endswith("num_batches_tracked")}

    def take(self, name: str) -> Array:
        self.unused.discard(name)
        return self.weights[name]

    def convolution(
        self, tensor: str, weight: str, norm: str, *, stride: int = 1, groups: int = 1, clip: bool = True
    ) -> str:
        """Convolution with 'same' padding, its batch normalisation folded in, then ReLU6 if `clip`."""
        kernel, bias = fold_batch_norm(
            self.take(f"{weight}.weight"),
            *(self.take(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")),
        )
        size = kernel.shape[-1]
        tensor = self.builder.node(
            "Conv",
            tensor,
            self.builder.constant(kernel),
            self.builder.constant(bias),
            kernel_shape=[size, size],
            strides=[stride, stride],
            auto_pad="SAME_UPPER",  # as TensorFlow pads: at stride 2 it depends on the size of the input
            group=groups,
        )
        if clip:
            tensor = self.builder.node("Clip", tensor, self.builder.constant(0.0), self.builder.constant(6.0))
        return tensor

    def block(self, tensor: str, name: str, stage: Stage, channels: int, stride: int) -> str:
        """An inverted residual block: expand, convolve each channel on its own, project, add the input."""
        inner, width = tensor, channels * stage.expansion
        if stage.expansion != 1:
            inner = self.convolution(inner, f"{name}._expand_conv", f"{name}._bn0")
        inner = self.convolution(
            inner, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, groups=width
        )
        inner = self.convolution(inner, f"{name}._project_conv", f"{name}._bn2", clip=False)
        if stride == 1 and channels == stage.channels:
            inner = self.builder.node("Add", inner, tensor)
        return inner


def fold_batch_norm(
    kernel: Array, weight: Array, bias: Array, mean: Array, variance: Array
) -> tuple[Array, Array]:
    """Fold a batch normalisation into the convolution before it, in float64: its kernel and bias, float32."""
    factor = weight.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
    folded = kernel.astype(np.float64) * factor[:, None, None, None]
    return folded.astype(np.float32), (bias - mean * factor).astype(np.float32)


def prepare_efficientnet_lite0(source_file: Path, preparation: Preparation) -> Prepared:
    """Make a backbone of the published checkpoint, and measure it against the PyTorch network's logits.

    Raises SettingsError where a size is asked for, and BundleError where the file is no checkpoint of
    EfficientNet-lite0, or the result differs from it.
    """
    if preparation.size is not None:
        raise SettingsError("The recipe efficientnet-lite0 takes no size: the graph runs at every size")
    with source_file.open("rb") as file:
        weights = read_checkpoint(file, "The source of EfficientNet-lite0")
    model = serialise(build_efficientnet_lite0(weights))
    golden = json.loads(resources.files("fgdd_export.catalogue").joinpath(GOLDEN).read_text(encoding="utf-8"))
    found = run_model(model, {"images": drawn_images(SIZE, SIZE)})["logits"]
    parity = {"max_logit_difference": float(np.abs(found - np.array(golden["logits"])).max())}
    check_parity("efficientnet-lite0", parity, TOLERANCES)
    preprocessing = Preprocessing(SIZE, SIZE, "(value - 127) / 128", (127, 127, 127))
    return Prepared(model, "backbone", preprocessing, parity)


def build_efficientnet_lite0(weights: Mapping[str, Array]) -> onnx.ModelProto:
    """Build the network for inference from the checkpoint's tensors by name.

    The model takes `images` uint8 [batch, height, width, 3], RGB, to `features` float32 [batch, 1280] (after
    the pooling) and `logits` float32 [batch, 1000] (ImageNet-1K), at every height and width.

    Padding is TensorFlow's `SAME` for the size at hand. The PyTorch port, left at its default settings, pads
    as for 224 at every size: that agrees at multiples of 32 only. At 112 the last stage sees 7 rows, not 14.
    """
    try:
        return _build(_Network(weights))
    except KeyError as error:
        raise BundleError(f"The checkpoint of EfficientNet-lite0 has no tensor {error}") from error


def _build(network: _Network) -> onnx.ModelProto:
    builder = network.builder
    tensor = builder.images_to_planes("images")
    tensor = builder.node("Sub", tensor, builder.constant(MEAN))
    tensor = builder.node("Mul", tensor, builder.constant(1 / SCALE))
    tensor = network.convolution(tensor, "_conv_stem", "_bn0", stride=2)
    channels, index = 32, 0
    for stage in LITE0:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            tensor = network.block(tensor, f"_blocks.{index}", stage, channels, stride)
            channels, index = stage.channels, index + 1
    tensor = network.convolution(tensor, "_conv_head", "_bn1")
    features = builder.node("ReduceMean", tensor, axes=[2, 3], keepdims=0, output="features")
    head, bias = network.take("_fc.weight"), network.take("_fc.bias")
    builder.node("Gemm", features, builder.constant(head), builder.constant(bias), output="logits", transB=1)
    if network.unused:
        raise BundleError(
            f"The checkpoint is not EfficientNet-lite0: it also holds {sorted(network.unused)[:3]}"
        )
    return builder.model(
        "efficientnet_lite0",
        [TensorSpec("images", "uint8", ("batch", "height", "width", 3))],
        [
            TensorSpec("features", "float32", ("batch", head.shape[1])),
            TensorSpec("logits", "float32", ("batch", head.shape[0])),
        ],
    )
