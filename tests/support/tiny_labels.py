"""A small distilled data set with its teacher, and the command that labels it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from onnx import numpy_helper
from tiny_distillation import distill

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, load_bundle, write_bundle
from fgdd_fast.cli import main

IMAGES = 6  # three classes, two mosaics of each
SIZE = 16


def make_out(folder: Path, **options: Any) -> Path:
    """Distil coloured squares into `folder/out`; the bundles lie in `folder`."""
    tiny.write_squares(folder / "data", 8)
    tiny.foreground_bundle(folder)
    tiny.teacher_bundle(folder)
    result = distill(folder, ipc=2, size=SIZE, **options)
    assert result.exit_code == 0, result.output
    return folder / "out"


def wide_teacher_bundle(folder: Path, name: str = "wide") -> Bundle:
    """The tiny teacher with a class more, which it never names, and its classes in another order."""
    narrow = load_bundle(folder / "tiny-teacher.onnx")
    model = onnx.load(narrow.onnx)
    channels = {"red": (0.1, 0, 0), "grey": (0, 0, 0), "blue": (0, 0, 0.1), "green": (0, 0.1, 0)}
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(np.array(list(channels.values()), np.float32).T, "weight"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(channels)
    logits = TensorSpec("logits", "float32", ("batch", len(channels)))
    wide = replace(
        narrow,
        onnx=folder / f"{name}.onnx",
        name=name,
        classes=tuple(channels),
        outputs=(logits, *narrow.outputs[1:]),
    )
    return write_bundle(wide, model.SerializeToString())


def arguments(out: Path, teacher: str | None = "tiny-teacher", **options: Any) -> list[str]:
    """The command line of a small labelling; options are added or replaced, True is a flag."""
    chosen: dict[str, Any] = {
        "teacher": None if teacher is None else out.parent / f"{teacher}.onnx",
        "epochs": 3,
        "student_batch": 4,
        "device": "cpu",
        "threads": 2,
        **options,
    }
    words = ["label", str(out)]
    for name, value in chosen.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def label(out: Path, teacher: str | None = "tiny-teacher", **options: Any) -> Result:
    return CliRunner().invoke(main, arguments(out, teacher, **options))


def edit_index(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change `labels.json`."""
    path = out / "labels" / "labels.json"
    data = json.loads(path.read_bytes())
    change(data)
    path.write_text(json.dumps(data))
