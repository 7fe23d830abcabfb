"""Bundles of graphs that tests make of nodes and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, Role, write_bundle
from fgdd_export.graphs.graph import Array, GraphBuilder, bundle_of, serialise


def make_model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> onnx.ModelProto:
    builder = GraphBuilder()
    builder.nodes += nodes
    builder.constants += [numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items()]
    return builder.model(name, inputs, outputs)


def write(
    model: onnx.ModelProto, path: Path, role: Role, preprocessing: Preprocessing, **more: Any
) -> Bundle:
    made = {"source": {"made": "by the tests"}, "licence": "Apache-2.0", **more}
    described = bundle_of(model, path, role, preprocessing=preprocessing, **made)
    return write_bundle(described, serialise(model))
