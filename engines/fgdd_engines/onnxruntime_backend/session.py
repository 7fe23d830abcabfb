"""What the sessions of ONNX Runtime have in common, whichever provider runs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.shapes import Specs, check_graph

FATAL = 4  # ONNX Runtime's severities: what it would log is raised as well
CPU_PROVIDER = "CPUExecutionProvider"
GRAPH_FILE = "graph.onnx"
_SAVING = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}
_DTYPES = {"float": "float32", "double": "float64"}  # other names are NumPy's


def session_options(runtime: ModuleType, axes: Mapping[str, int], threads: int = 1) -> Any:
    """Options for a silent session whose calls each work in so many threads: the caller's, and others."""
    options = runtime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = threads
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    # Planning all activations as one block saves no time here, and takes up to 1.7 times the memory.
    options.enable_mem_pattern = False
    for axis, length in axes.items():
        options.add_free_dimension_override_by_name(axis, length)
    return options


def save_optimised(options: Any, folder: Path) -> Path:
    """Let a session save its optimised graph in an empty folder, the weights beside it; returns the graph."""
    graph = folder / GRAPH_FILE
    options.optimized_model_filepath = str(graph)
    for name, value in _SAVING.items():
        options.add_session_config_entry(name, value)
    return graph


def check_session(bundle: Bundle, inputs: Specs, outputs: Specs, session: Any) -> None:
    """Check the tensors of a session against those of its bundle; see `check_graph`."""
    check_graph(bundle, inputs, [_spec(node) for node in session.get_inputs()])
    check_graph(bundle, outputs, [_spec(node) for node in session.get_outputs()])


def _spec(node: Any) -> TensorSpec:
    shape = tuple(axis if isinstance(axis, int) else str(axis) for axis in node.shape)
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(node.name, _DTYPES.get(dtype, dtype), shape)
