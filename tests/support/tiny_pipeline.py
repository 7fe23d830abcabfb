"""A data set of coloured squares, and networks small enough to see through that measure it.

The foreground is what is not grey, so occupancies are known; the teacher compares the mean of each colour
channel, so losses are known too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper
from tiny_bundles import make_model, write

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, Role

SIDE = 16
CLASSES = ("blue", "green", "red")
GREY = 127
_COLOURS = {"red": (230, 40, 40), "green": (40, 230, 40), "blue": (40, 40, 230)}


def square(class_name: str, occupancy: float, size: tuple[int, int] = (60, 80), seed: int = 0) -> np.ndarray:
    """uint8 RGB [height, width, 3]: a coloured patch covering `occupancy` of a grey, faintly noisy ground."""
    rng = np.random.default_rng(seed)
    height, width = size
    pixels = np.full((height, width, 3), GREY, np.uint8)
    rows, columns = round(height * occupancy**0.5), round(width * occupancy**0.5)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    colour = np.array(_COLOURS[class_name]) + rng.integers(-25, 26, 3)
    pixels[top : top + rows, left : left + columns] = colour
    return pixels


def write_squares(folder: Path, images_per_class: int, classes: Sequence[str] = CLASSES) -> Path:
    """Write a data set of PNG files, `folder/<class>/<nn>.png`, of occupancies from 0.1 to 0.9."""
    for class_name in classes:
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        for index in range(images_per_class):
            occupancy = 0.1 + 0.8 * index / max(images_per_class - 1, 1)
            pixels = square(class_name, occupancy, (50 + index % 7, 60 + index % 5), seed=index)
            file = folder / class_name / f"{index:02d}.png"
            assert cv2.imwrite(str(file), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return folder


def coloured(file: Path) -> np.ndarray:
    """Where the square of a drawn file is, bool [height, width]: it is what is not grey."""
    return np.asarray(np.ptp(cv2.imread(str(file)).astype(int), axis=2) > 60)


def write_masks(folder: Path, data: str = "data") -> Path:
    """Write exact masks of the squares in `folder/data` below `folder/masks`."""
    for file in (folder / data).rglob("*.png"):
        mask = folder / "masks" / file.relative_to(folder / data)
        mask.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(mask), coloured(file).astype(np.uint8) * 255)
    return folder / "masks"


def foreground_bundle(folder: Path, name: str = "tiny-foreground", **options: Any) -> Bundle:
    """A foreground model: a pixel belongs to the foreground if its channels differ by more than 60.

    `options` are `side`, of its canvas, and `source`, from which it was made.
    """
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["pixels"], ["highest"], axes=[3], keepdims=0),
        helper.make_node("ReduceMin", ["pixels"], ["lowest"], axes=[3], keepdims=0),
        helper.make_node("Sub", ["highest", "lowest"], ["colour"]),
        helper.make_node("Greater", ["colour", "limit"], ["coloured"]),
        helper.make_node("Cast", ["coloured"], ["share"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["share"], ["occupancy"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["share", "white"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["mask"], to=TensorProto.UINT8),
    ]
    outputs = [
        TensorSpec("occupancy", "float32", ("batch",)),
        TensorSpec("mask", "uint8", ("batch", *[options.get("side", SIDE)] * 2)),
    ]
    constants = {"limit": np.float32(60), "white": np.float32(255)}
    return _write(folder / f"{name}.onnx", "foreground", nodes, constants, outputs, **options)


def teacher_bundle(
    folder: Path, classes: Sequence[str] = CLASSES, name: str = "tiny-teacher", *, features: bool = False
) -> Bundle:
    """A teacher whose logits are the mean blue, green and red of the view, under the names given.

    Its features, if it is to give them, are the mean red, green and blue.
    """
    weight = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float32).T * 0.1
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["features"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["features", "weight"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["scores"], axis=1),
        helper.make_node("Unsqueeze", ["labels", "one"], ["columns"]),
        helper.make_node("GatherElements", ["scores", "columns"], ["score"], axis=1),
        helper.make_node("Neg", ["score"], ["losses"]),
        helper.make_node("Squeeze", ["losses", "one"], ["loss"]),
    ]
    outputs = [
        TensorSpec("logits", "float32", ("batch", len(CLASSES))),
        TensorSpec("loss", "float32", ("batch",)),
    ]
    if features:
        outputs.append(TensorSpec("features", "float32", ("batch", 3)))
    constants = {"weight": weight, "one": np.array([1], np.int64)}
    return _write(folder / f"{name}.onnx", "teacher", nodes, constants, outputs, tuple(classes))


def backbone_bundle(folder: Path) -> Bundle:
    """A backbone whose features are the mean red, green and blue of the view."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["features"], axes=[1, 2], keepdims=0),
    ]
    outputs = [TensorSpec("features", "float32", ("batch", 3))]
    return _write(folder / "tiny-backbone.onnx", "backbone", nodes, {}, outputs)


def _write(
    path: Path,
    role: Role,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    outputs: Sequence[TensorSpec],
    classes: tuple[str, ...] | None = None,
    *,
    side: int | None = None,
    source: Mapping[str, Any] | None = None,
) -> Bundle:
    side = side or SIDE
    inputs = [TensorSpec("images", "uint8", ("batch", side, side, 3))]
    if role == "teacher":
        inputs.append(TensorSpec("labels", "int32", ("batch",)))
    model = make_model(path.stem, nodes, constants, inputs, outputs)
    described = Preprocessing(side, side, "none", pad_value=(0, 0, 0))
    more = {} if source is None else {"source": source}
    return write(model, path, role, described, classes=classes, **more)
