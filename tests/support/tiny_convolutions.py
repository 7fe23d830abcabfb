"""Small convolutional teachers with random weights, in the manner of EfficientNet and of ResNet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny_bundles import write
from tiny_pipeline import CLASSES as SQUARES

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, write_bundle
from fgdd_export.classifier.teacher import add_head
from fgdd_export.graphs.graph import GraphBuilder

SIDE, CLASSES = 96, ("hat", "sock", "tie")
PAD = (127, 119, 103)
WIDE = 16  # channels


class Layers:
    """Adds convolutions with random weights to a graph."""

    def __init__(self, seed: int) -> None:
        self.builder = GraphBuilder()
        self._rng = np.random.default_rng(seed)

    def convolution(self, tensor: str, inputs: int, outputs: int, kernel: int, **attributes: Any) -> str:
        """A convolution whose outputs are about as large as its inputs, with a bias."""
        fan_in = inputs // attributes.get("group", 1) * kernel**2
        shape = (outputs, inputs // attributes.get("group", 1), kernel, kernel)
        weight = self._rng.normal(0, fan_in**-0.5, shape)
        bias = self._rng.normal(0, 0.3, outputs)
        return self.builder.node(
            "Conv",
            tensor,
            self.builder.constant(weight),
            self.builder.constant(bias),
            kernel_shape=[kernel, kernel],
            **attributes,
        )

    def clip(self, tensor: str) -> str:
        """ReLU6."""
        return self.builder.node("Clip", tensor, self.builder.constant(0.0), self.builder.constant(6.0))

    def planes(self) -> str:
        """The images, normalised for each channel: `PAD` becomes 0, or nearly."""
        tensor = self.builder.images_to_planes("images")
        tensor = self.builder.node("Sub", tensor, self.builder.constant(np.array(PAD)[:, None, None] + 0.3))
        return self.builder.node("Mul", tensor, self.builder.constant(1 / 64))

    def bundle(self, folder: Path, features: str, channels: int) -> Bundle:
        """Pool the features, classify them, and write the teacher."""
        self.builder.node("ReduceMean", features, output="features", axes=[2, 3], keepdims=0)
        backbone = self.builder.model(
            "tiny",
            [TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))],
            [TensorSpec("features", "float32", ("batch", channels))],
        )
        weight = self._rng.normal(0, 1, (channels, len(CLASSES))).T
        model = add_head(backbone, weight.astype(np.float32), np.zeros(len(CLASSES), np.float32))
        preprocessing = Preprocessing(SIDE, SIDE, "less the pad value, over 64", PAD)
        return write(model, folder / "teacher.onnx", "teacher", preprocessing, classes=CLASSES)


def inverted_residuals(folder: Path) -> Bundle:
    """Expansion, depthwise convolution and projection, padded as TensorFlow pads, with a residual."""
    layers = Layers(0)
    same = {"auto_pad": "SAME_UPPER"}
    tensor = layers.clip(layers.convolution(layers.planes(), 3, 8, 3, strides=[2, 2], **same))
    tensor = layers.clip(layers.convolution(tensor, 8, 8, 3, group=8, **same))
    tensor = before = layers.convolution(tensor, 8, 4, 1)
    for stride, kernel, group in ((1, 3, 12), (2, 5, 12)):
        tensor = layers.clip(layers.convolution(tensor, 4, 12, 1))
        tensor = layers.convolution(tensor, 12, 12, kernel, group=group, strides=[stride, stride], **same)
        tensor = layers.convolution(layers.clip(tensor), 12, 4, 1)
        if stride == 1:
            tensor = layers.builder.node("Add", tensor, before)
    for _ in range(3):  # until the tile is seen everywhere
        tensor = layers.clip(layers.convolution(tensor, 4, 4, 5, strides=[2, 2], **same))
    return layers.bundle(folder, tensor, 4)


def basic_blocks(folder: Path) -> Bundle:
    """A wide first convolution, a pooling, and two blocks, of which one strides and projects its residual."""
    layers, relu = Layers(1), "Relu"
    tensor = layers.convolution(layers.planes(), 3, 6, 7, strides=[2, 2], pads=[3, 3, 3, 3])
    tensor = layers.builder.node(relu, tensor)
    tensor = layers.builder.node("MaxPool", tensor, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stride in (1, 2):
        short = tensor if stride == 1 else layers.convolution(tensor, 6, 6, 1, strides=[2, 2])
        inner = layers.convolution(tensor, 6, 6, 3, strides=[stride, stride], pads=[1, 1, 1, 1])
        inner = layers.builder.node(relu, inner)
        inner = layers.convolution(inner, 6, 6, 3, pads=[1, 1, 1, 1])
        tensor = layers.builder.node(relu, layers.builder.node("Add", inner, short))
    return layers.bundle(folder, tensor, 6)


def mixing(folder: Path) -> Bundle:
    """Every place sees its whole row at once: nothing can be computed on a part."""
    layers = Layers(2)
    mixed = layers.builder.node("Softmax", layers.planes(), axis=-1)
    return layers.bundle(folder, layers.convolution(mixed, 3, 4, 8, strides=[8, 8]), 4)


def convolutional_teacher(folder: Path, loudness: float = 1.0) -> Bundle:
    """A teacher of three convolutions with random weights; the second gives `loudness` times more."""
    rng, layers = np.random.default_rng(0), Layers(0)
    tensor = layers.planes()
    for name, inputs, stride, gain in (
        ("first", 3, 2, 1.0),
        ("loud", WIDE, 1, loudness),
        ("quiet", WIDE, 1, 1 / loudness),
    ):
        filters = rng.normal(0, (2 / inputs / 9) ** 0.5, (WIDE, inputs, 3, 3)) * gain
        constant = layers.builder.constant(filters)
        tensor = layers.builder.node("Conv", tensor, constant, pads=[1] * 4, strides=[stride] * 2)
        layers.builder.nodes[-1].name = name
        tensor = layers.builder.node("Relu", tensor)
    bundle = layers.bundle(folder, tensor, WIDE)
    return write_bundle(replace(bundle, classes=SQUARES), bundle.graph())
