"""ONNX Runtime on the CPU: runs everywhere, in float32, and is the reference for parity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgdd_fast.engines.axes import check_graph, fix_axes
from fgdd_fast.engines.base import Array, Engine, TensorSpec
from fgdd_fast.engines.bundle import Bundle
from fgdd_fast.engines.failures import told_as_engine_error
from fgdd_fast.engines.pool import Pool
from fgdd_fast.engines.runtimes import import_onnxruntime

_FATAL = 4  # ONNX Runtime's severities: what it would log is raised as well
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
}


class OnnxRuntimeEngine(Engine):
    """A bundle's graph in ONNX Runtime's CPU provider.

    Each call of `run` works in its caller's thread alone; `threads` calls may be in flight, others wait.
    """

    def __init__(self, bundle: Bundle, axes: Mapping[str, int], threads: int) -> None:
        self.inputs, self.outputs = fix_axes(bundle, axes)
        self.streams = threads
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        # Planning all activations as one block saves no time here, and takes up to 1.7 times the memory.
        options.enable_mem_pattern = False
        for axis, length in axes.items():
            options.add_free_dimension_override_by_name(axis, length)
        with told_as_engine_error(f"ONNX Runtime cannot load '{bundle.name}'"):
            session = runtime.InferenceSession(
                str(bundle.onnx), sess_options=options, providers=["CPUExecutionProvider"]
            )
        check_graph(bundle, self.inputs, [_spec(node) for node in session.get_inputs()])
        check_graph(bundle, self.outputs, [_spec(node) for node in session.get_outputs()])
        self._name = bundle.name
        self._sessions = Pool([session] * threads)
        self.arithmetic = f"ONNX Runtime {runtime.__version__}, CPU, fp32"

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        with (
            self._sessions.borrow() as session,
            told_as_engine_error(f"ONNX Runtime cannot run '{self._name}'"),
        ):
            arrays = session.run(
                list(outputs), {name: np.ascontiguousarray(feed) for name, feed in feeds.items()}
            )
        return dict(zip(outputs, arrays, strict=True))

    def close(self) -> None:
        """Wait for the calls in flight, then free the session."""
        self._sessions.close()


def _spec(node: Any) -> TensorSpec:
    shape = tuple(axis if isinstance(axis, int) else str(axis) for axis in node.shape)
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), shape)
