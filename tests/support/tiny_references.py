"""Small convolutional models and a data set of squares, which every implementation of a benchmark can run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import tiny_pipeline as tiny
from tiny_bundles import write

from fgdd_bench.harness.subject import Subject, Task
from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, Role
from fgdd_export.classifier.teacher import add_loss
from fgdd_export.graphs.graph import GraphBuilder
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import DataSet, scan
from fgdd_fast.images.decode import read_file
from fgdd_fast.models.foreground import ForegroundChoice
from fgdd_fast.models.network import Runtime
from fgdd_fast.output.mosaic import Format, arrange
from fgdd_fast.planning import ClassPlan, MosaicSettings, Plan
from fgdd_fast.selection.records import Tile
from fgdd_fast.selection.select import Selection
from fgdd_fast.selection.thresholds import parse_rule

SIDE, CHANNELS = 48, 8
PAD = (127, 119, 103)  # becomes zero exactly
TASK = Task(crops=3, size=48, threads=2, batch=2)


def teacher(folder: Path, *, brightest: bool = False) -> Bundle:
    """A teacher of the squares' classes.

    Args:
        brightest: whether its images are divided by their highest value as well, which depends on the image.
    """
    builder, rng = GraphBuilder(), np.random.default_rng(0)
    planes = _planes(builder)
    if brightest:
        planes = builder.node("Div", planes, builder.node("ReduceMax", planes, axes=[1, 2, 3], keepdims=1))
    features = builder.node("ReduceMean", _layers(builder, rng, planes), axes=[2, 3], keepdims=0)
    weight = builder.constant(rng.normal(0, 4, (CHANNELS, len(tiny.CLASSES))))
    builder.node("Gemm", features, weight, builder.constant(np.zeros(3)), output="logits")
    model = builder.model(
        "teacher",
        [TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))],
        [TensorSpec("logits", "float32", ("batch", len(tiny.CLASSES)))],
    )
    return _write(folder, "teacher", add_loss(model, len(tiny.CLASSES)), tiny.CLASSES)


def saliency(folder: Path) -> Bundle:
    """A saliency model whose occupancy is its mask's mean."""
    builder, rng = GraphBuilder(), np.random.default_rng(1)
    features = _layers(builder, rng, _planes(builder))
    weight = builder.constant(rng.normal(0, 2, (1, CHANNELS, 1, 1)))
    likely = builder.node("Sigmoid", builder.node("Conv", features, weight, builder.constant([0.0])))
    builder.node("ReduceMean", likely, axes=[1, 2, 3], keepdims=0, output="occupancy")
    levels = builder.node("Round", builder.node("Mul", likely, builder.constant(255.0)))
    builder.cast(builder.node("Squeeze", levels, builder.constant([1], np.int64)), np.uint8, output="mask")
    model = builder.model(
        "saliency",
        [TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))],
        [
            TensorSpec("occupancy", "float32", ("batch",)),
            TensorSpec("mask", "uint8", ("batch", SIDE // 2, SIDE // 2)),
        ],
    )
    return _write(folder, "foreground", model)


def squares(folder: Path, images: int = 4) -> DataSet:
    """A data set with so many images of each class."""
    return scan(tiny.write_squares(folder / "data", images))


def subject(folder: Path, **changes: Any) -> Subject:
    """Both models, which this project runs in ONNX Runtime, in fp32."""
    choice = ForegroundChoice(saliency(folder), tiny.CLASSES)
    parts = {"foreground": choice, "teacher": teacher(folder), **changes}
    return Subject(classes=tiny.CLASSES, runtime=lambda _: Runtime("cpu", "fp32", 2), **parts)


def plan(data: DataSet, format: Format = "png") -> Plan:
    """Two mosaics of each class, of whole images and of crops by turns."""
    settings = MosaicSettings(2, 2, 32, parse_rule("mean"), 0, "area", format)
    plans: list[ClassPlan] = []
    for name in data.classes:
        images = [image for image in data.images if image.class_name == name]
        boxes = (Box(0, 0, 50, 50), Box(3, 7, 40, 40))
        tiles = [
            Tile(image.source, read_file(image.path).sha256, box, "crop", 0.5, 0.5, 1.0)
            for image in images
            for box in boxes
        ]
        mosaics = arrange(tiles[:8], settings.ipc, settings.factor)
        plans.append(ClassPlan(name, (), (), (), Selection(0.5, tuple(tiles), 0, {}, 0), mosaics))
    return Plan(settings, tuple(plans), ())


def _planes(builder: GraphBuilder) -> str:
    planes = builder.images_to_planes("images")
    centred = builder.node("Sub", planes, builder.constant(np.reshape(PAD, (3, 1, 1))))
    return builder.node("Div", centred, builder.constant(np.reshape((64, 60, 56), (3, 1, 1))))


def _layers(builder: GraphBuilder, rng: np.random.Generator, planes: str) -> str:
    """Two convolutions, of which the first halves the size."""
    tensor = planes
    for inputs, kernel, stride in ((3, 3, 2), (CHANNELS, 1, 1)):
        weight = builder.constant(
            rng.normal(0, (inputs * kernel**2) ** -0.5, (CHANNELS, inputs, kernel, kernel))
        )
        bias = builder.constant(rng.normal(0, 0.2, CHANNELS))
        pads = [kernel // 2] * 4
        tensor = builder.node("Conv", tensor, weight, bias, pads=pads, strides=[stride, stride])
        tensor = builder.node("Relu", tensor)
    return tensor


def _write(folder: Path, role: Role, model: Any, classes: tuple[str, ...] | None = None) -> Bundle:
    preprocessing = Preprocessing(SIDE, SIDE, "less the pad value, over about 60", PAD)
    return write(model, folder / f"convolutional-{role}.onnx", role, preprocessing, classes=classes)


def die(*_: object) -> None:
    """End the process at once, as a system that is short of memory does."""
    os._exit(1)
