"""ONNX Runtime on the CPU: runs everywhere, and in float32 it is the reference for parity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fgdd_engines.base import Array, Engine
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_engines.onnxruntime_backend.optimised_graphs import optimised_graph
from fgdd_engines.onnxruntime_backend.session import CPU_PROVIDER, check_session, session_options
from fgdd_engines.optional_imports import import_onnxruntime
from fgdd_engines.pool import Pool
from fgdd_engines.shapes import fix_axes

# Where the provider has no fp16 kernel, which on x86-64 is almost everywhere, it casts and computes in fp32.
_FP16 = "fp16, or fp32 where it has no kernel"


class OnnxRuntimeEngine(Engine):
    """A bundle's graph in ONNX Runtime's CPU provider.

    Each call of `run` works in its caller's thread alone; `threads` calls may be in flight, others wait. Or,
    in one stream, all threads work for one call; what it gives is the same.

    Every variant whose operators the provider has runs: `int8-u8` is fast, `int8` and `fp16` are slower than
    the fp32 graph, and `bf16` does not load. The optimised graph of a large model is kept in the cache
    folder: see `optimised_graphs`.
    """

    def __init__(
        self, bundle: Bundle, axes: Mapping[str, int], threads: int, *, one_stream: bool = False
    ) -> None:
        self.inputs, self.outputs = fix_axes(bundle, axes)
        self.streams = 1 if one_stream else threads
        runtime = import_onnxruntime()
        options = session_options(runtime, axes, threads if one_stream else 1)
        with wrapped_as_engine_error(f"ONNX Runtime cannot load '{bundle.name}'"):
            optimised = optimised_graph(runtime, bundle, axes)
            if optimised is not None:
                options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            session = runtime.InferenceSession(
                str(optimised or bundle.onnx), sess_options=options, providers=[CPU_PROVIDER]
            )
        check_session(bundle, self.inputs, self.outputs, session)
        self._problem = f"ONNX Runtime cannot run '{bundle.name}'"
        self._sessions = Pool([session] * self.streams)
        computed = _FP16 if bundle.precision == "fp16" else bundle.precision
        self.arithmetic = f"ONNX Runtime {runtime.__version__}, CPU, {computed}"

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        contiguous = {name: np.ascontiguousarray(feed) for name, feed in feeds.items()}
        with self._sessions.borrow() as session, wrapped_as_engine_error(self._problem):
            arrays = session.run(list(outputs), contiguous)
        return dict(zip(outputs, arrays, strict=True))

    def close(self) -> None:
        """Wait for the calls in flight, then free the session."""
        self._sessions.close()
