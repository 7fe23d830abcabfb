"""Building blocks for ONNX graphs: add nodes by hand, cut, slim, check and describe a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, Role
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_engines.optional_imports import disable_onnxruntime_telemetry, import_onnxruntime, import_optional
from fgdd_export.graphs.late_onnx import onnx
from fgdd_fast.errors import BundleError, FgddError

Array = NDArray[Any]

OPSET = 17  # LayerNorm is one operator from here on, and GridSample still means what TensorRT takes it for
IR_VERSION = 8  # the one that came with opset 17: every runtime that knows the operators reads the file
EXTRA = "models"


class GraphBuilder:
    """Collects the nodes and constants of a graph; each tensor is known by its name.

    `prefix` begins every name that the builder makes up, so that it can add to an existing graph.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: object, dtype: type[np.generic] = np.float32) -> str:
        """Add a constant tensor and return its name."""
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add an operator with one output and return the name of that output."""
        name = f"{self.prefix}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, inputs, [output or name], name, **attributes))
        return output or name

    def cast(self, tensor: str, dtype: type[np.generic], output: str | None = None) -> str:
        """Add a conversion to another type and return the name of its output."""
        to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.node("Cast", tensor, output=output, to=to)

    def images_to_planes(self, images: str) -> str:
        """Turn uint8 [batch, height, width, 3] into float32 [batch, 3, height, width] of the same values.

        TensorRT takes uint8 only as a network input whose one reader is a Cast: so the Cast comes first.
        """
        return self.node("Transpose", self.cast(images, np.float32), perm=[0, 3, 1, 2])

    def model(
        self, name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> onnx.ModelProto:
        """Assemble what was added into a checked model."""
        takes, gives = ([_value(spec) for spec in specs] for specs in (inputs, outputs))
        graph = onnx.helper.make_graph(self.nodes, name, takes, gives, self.constants)
        opset = onnx.helper.make_opsetid("", OPSET)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        model.producer_name = "fgdd-fast"
        check_model(model)
        return model


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return onnx.helper.make_tensor_value_info(spec.name, dtype, spec.shape)


def serialise(model: onnx.ModelProto) -> bytes:
    """A model's bytes: the same for the same model, so that its hash can name it."""
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def read_model(data: bytes, what: str) -> onnx.ModelProto:
    """Parse a serialised model; BundleError, which calls it `what`, where it is none."""
    try:
        model = onnx.load_model_from_string(data)
        check_model(model)
    except FgddError:
        raise
    except Exception as error:  # protobuf's own errors, whose type differs between its versions
        raise BundleError(f"{what} is no ONNX model: {error}") from error
    return model


def check_model(model: onnx.ModelProto) -> None:
    """Check structure, types and shapes; BundleError where a rule of ONNX is broken."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"The ONNX graph '{model.graph.name}' is not valid: {error}") from error


def slim_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and remove redundant nodes, with onnxslim."""
    disable_onnxruntime_telemetry()  # onnxslim imports it
    onnxslim = import_optional("onnxslim", EXTRA)
    logger = logging.getLogger("onnxslim")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return onnxslim.slim(model)  # type: ignore[no-any-return]
    finally:
        logger.setLevel(level)


def cut_model(
    model: onnx.ModelProto, outputs: Sequence[str]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Find the nodes and constants that a model needs to compute some of its tensors, in its order."""
    needed = set(outputs)
    nodes = []
    for node in reversed(model.graph.node):  # sorted topologically, as ONNX demands
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    missing = set(outputs) - {name for node in nodes for name in node.output}
    if missing:
        raise BundleError(f"The ONNX graph '{model.graph.name}' has no tensor {sorted(missing)}")
    return nodes[::-1], [constant for constant in model.graph.initializer if constant.name in needed]


def tensor_specs(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    """Describe a model's inputs or outputs."""
    return tuple(
        TensorSpec(
            value.name,
            np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name,
            tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def bundle_of(
    model: onnx.ModelProto,
    onnx: Path,
    role: Role,
    *,
    preprocessing: Preprocessing,
    source: Mapping[str, Any],
    licence: str,
    **more: Any,
) -> Bundle:
    """Describe a model as a bundle of the name of its file, ready to be written; see `Bundle`."""
    return Bundle(
        onnx=onnx,
        name=onnx.stem,
        role=role,
        sha256="",
        inputs=tensor_specs(model.graph.input),
        outputs=tensor_specs(model.graph.output),
        preprocessing=preprocessing,
        source=source,
        licence=licence,
        **{"classes": None, **more},
    )


def load_model(model: bytes, threads: int = 0) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """Load a serialised model into ONNX Runtime on the CPU, as the reference for parity.

    Bundles run through `fgdd_engines`; this serves the networks that bundles are made from, and models
    that are not yet allowed to become bundles. With 0 threads it takes one for each processor.

    Returns:
        A function from inputs to outputs, both by name.

    Raises:
        EngineError: ONNX Runtime cannot load the model, or later cannot run it.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    problem = "ONNX Runtime cannot run the model that is being prepared"
    with wrapped_as_engine_error(problem):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with wrapped_as_engine_error(problem):
            return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return run


def run_model(model: bytes, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Load a serialised model and run it once; see `load_model`."""
    return load_model(model)(feeds)
