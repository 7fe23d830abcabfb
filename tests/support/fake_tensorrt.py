"""A stand-in for TensorRT's runtime, on the stand-in for CUDA: exactly the calls that the project makes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda import FakeCuda

from fgdd_engines.base import Array, TensorSpec

Compute = Callable[[dict[str, Array]], dict[str, Array]]


class FakeTensorRt(ModuleType):
    """TensorRT's runtime: a plan is the tensors of an engine in JSON, as `fake_plan` writes it.

    Attributes:
        cuda: the device on which engines run.
        compute: what every engine computes.
        contexts: the execution contexts that were made.
        configurations: the runtime configurations that contexts were made with.
        kernels: what is compiled, as TensorRT for RTX does when a context is made; and how often it was.
        refuses: a method of the contexts that says no.
        capturable: whether an execution can be recorded.
    """

    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    class ILogger:
        """Severities, and what a logger is derived from."""

        ERROR, INTERNAL_ERROR, WARNING = "error", "internal", "warning"

    def __init__(self, cuda: FakeCuda, compute: Compute) -> None:
        super().__init__("tensorrt")
        self.cuda, self.compute = cuda, compute
        self.contexts: list[FakeContext | None] = []
        self.configurations: list[Any] = []
        self.kernels, self.compiled = b"kernels", 0
        self.refuses = ""
        self.capturable = True

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        def deserialize_cuda_engine(plan: bytes) -> FakeEngine | None:
            try:
                return FakeEngine(self, json.loads(plan), logger)
            except ValueError:
                logger.log(
                    self.ILogger.ERROR, "[runtime.cpp::parse::7] Error Code 1: Magic tag does not match"
                )
                return None

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)


def fake_plan(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], batches: tuple[int, int, int]
) -> bytes:
    """A plan that takes the first to the last of `batches`; the tensors have no other named axis."""
    open_batch = -1 if batches[0] != batches[2] else batches[0]
    rows = [
        {
            "name": spec.name,
            "dtype": spec.dtype,
            "mode": mode,
            "shape": [open_batch if axis == "batch" else axis for axis in spec.shape],
            "profile": [[batch if axis == "batch" else axis for axis in spec.shape] for batch in batches],
        }
        for mode, specs in (("input", inputs), ("output", outputs))
        for spec in specs
    ]
    return json.dumps(rows).encode()


class FakeEngine:
    """An ICudaEngine."""

    def __init__(self, module: FakeTensorRt, rows: list[dict[str, Any]], logger: Any) -> None:
        self.module, self.logger = module, logger
        self.rows: Mapping[str, dict[str, Any]] = {row["name"]: row for row in rows}
        self.num_io_tensors = len(rows)

    def get_tensor_name(self, index: int) -> str:
        return list(self.rows)[index]

    def get_tensor_mode(self, name: str) -> str:
        return str(self.rows[name]["mode"])

    def get_tensor_dtype(self, name: str) -> Any:
        names = {"float32": "FLOAT", "float16": "HALF"}
        return SimpleNamespace(name=names.get(self.rows[name]["dtype"], self.rows[name]["dtype"].upper()))

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.rows[name]["shape"])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        assert profile == 0
        return [list(shape) for shape in self.rows[name]["profile"]]

    def create_runtime_config(self) -> Any:
        config = SimpleNamespace(create_runtime_cache=lambda: FakeRuntimeCache(self.module))
        config.set_runtime_cache = functools.partial(setattr, config, "kernels")
        self.module.configurations.append(config)
        return config

    def create_execution_context(self, config: Any = None) -> FakeContext | None:
        if config is not None:
            config.kernels.compile()
        if self.module.refuses == "create_execution_context":
            self.logger.log(
                self.module.ILogger.ERROR, "Error Code 2: OutOfMemory (Requested size was 9 bytes)"
            )
            return None
        context = FakeContext(self)
        self.module.contexts.append(context)
        return context


class FakeRuntimeCache:
    """An IRuntimeCache: kernels of one machine, which refuses those of another."""

    def __init__(self, module: FakeTensorRt) -> None:
        self._module, self._kernels = module, b""

    def compile(self) -> None:
        if self._kernels != self._module.kernels:
            self._kernels = self._module.kernels
            self._module.compiled += 1

    def serialize(self) -> bytes:
        return self._kernels

    def deserialize(self, blob: bytes) -> bool:
        if blob == self._module.kernels:
            self._kernels = blob
        return blob == self._module.kernels


class FakeContext:
    """An IExecutionContext."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine, self._module = engine, engine.module
        self._device = engine.module.cuda.here
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return self._module.refuses != "set_input_shape"

    def get_tensor_shape(self, name: str) -> list[int]:
        batch = next(iter(self._shapes.values()))[0]
        return [batch if axis == -1 else axis for axis in self._engine.rows[name]["shape"]]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address in self._module.cuda.device
        self._addresses[name] = address
        return self._module.refuses != "set_tensor_address"

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self._module.cuda
        assert self._device == cuda.here
        recording = stream in cuda._recording
        if self._module.refuses == "execute_async_v3" or (recording and not self._module.capturable):
            self._engine.logger.log(
                self._module.ILogger.ERROR, "Error Code 1: Cask (Cask convolution execution)"
            )
            return False
        cuda.enqueue(stream, self._execute)
        return True

    def _execute(self) -> None:
        self._module.cuda.events.append("execute")
        results = self._module.compute(
            {name: self._tensor(name) for name, row in self._engine.rows.items() if row["mode"] == "input"}
        )
        for name, result in results.items():
            self._tensor(name)[...] = result

    def _tensor(self, name: str) -> Array:
        memory = self._module.cuda.device[self._addresses[name]]
        dtype = self._engine.rows[name]["dtype"]
        return np.frombuffer(memoryview(memory).cast("B"), dtype).reshape(self.get_tensor_shape(name))
