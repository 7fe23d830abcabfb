"""Stand-ins for `cuda.bindings.runtime` and TensorRT's runtime: exactly the calls that the project makes.

The GPU's memory is memory of the host, and a stream does its work only when it is waited for: a copy that is
missing, too early or of the wrong size, or a wait that was forgotten, gives a wrong result here as on a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import json
import threading
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from fgdd_engines.base import Array, TensorSpec

Work = Callable[[], None]
Compute = Callable[[dict[str, Array]], dict[str, Array]]


class Error(IntEnum):
    """CUDA's own numbers."""

    cudaSuccess = 0  # noqa: N815
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815
    cudaErrorIllegalAddress = 700  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815


_WORDS = {Error.cudaErrorMemoryAllocation: b"out of memory", Error.cudaErrorNoDevice: b"no device found"}


class FakeCuda(ModuleType):
    """The CUDA runtime's bindings. Each thread is turned to a device, and works with what is on that alone.

    Attributes:
        device, pinned: what is allocated, by address.
        streams: the work that waits on each stream, by handle.
        graphs: the executable graphs that exist.
        events: what was done, in order: copies, executions and launches as they happen.
        failures: the code that a function gives from now on, by its name.
        driver, devices: CUDA's number of the driver (0 for none), and how many devices there are: an Orin and
            a Thor.
        waits: the stream that each event stands in, by the event's handle.
        places: the device on which a stream or a piece of memory is.
    """

    cudaHostAllocDefault = 0  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaEventBlockingSync, cudaEventDisableTiming = 1, 2  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.device: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.events: list[str] = []
        self.failures: dict[str, Error] = {}
        self.driver, self.devices = 13000, 1
        self.waits: dict[int, int] = {}
        self.places: dict[int, int] = {}
        self.turned = threading.local()
        self._recorded: dict[int, list[Work]] = {}
        self._recording: dict[int, list[Work]] = {}
        self._handles = iter(range(1, 1_000_000))
        self._lock = threading.Lock()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("cuda") and callable(found) and name in self.failures:
            code = self.failures[name]

            def fail(*_: object) -> tuple[Error, ...]:
                if name == "cudaStreamEndCapture":
                    self._recording.clear()
                return (code, None) if name.endswith(("Malloc", "Alloc", "EndCapture")) else (code,)

            fail.__name__ = name
            return fail
        return found

    @property
    def is_empty(self) -> bool:
        """Whether everything has been freed."""
        return not (self.device or self.pinned or self.streams or self.graphs or self._recorded or self.waits)

    @property
    def here(self) -> int:
        """The device to which this thread is turned."""
        return int(getattr(self.turned, "device", 0))

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work on a stream, or into what is being recorded of it."""
        assert self.places[stream] == self.here, "this thread is turned to another device"
        self._recording.get(stream, self.streams[stream]).append(work)

    # What follows has CUDA's names, arguments and results.

    def cudaDriverGetVersion(self) -> tuple[Error, int]:  # noqa: N802
        return Error.cudaSuccess, self.driver

    def cudaRuntimeGetVersion(self) -> tuple[Error, int]:  # noqa: N802
        return Error.cudaSuccess, 13050

    def cudaGetDeviceCount(self) -> tuple[Error, int | None]:  # noqa: N802
        return (Error.cudaSuccess, self.devices) if self.devices else (Error.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Error, Any]:  # noqa: N802
        name, major, minor = ((b"Orin", 8, 7), (b"Thor", 11, 0))[device]
        found = SimpleNamespace(name=name + bytes(252), major=major, minor=minor, totalGlobalMem=8 << 30)
        return Error.cudaSuccess, found

    def cudaGetDevice(self) -> tuple[Error, int]:  # noqa: N802
        return Error.cudaSuccess, self.here

    def cudaSetDevice(self, device: int) -> tuple[Error]:  # noqa: N802
        assert device < self.devices
        self.turned.device = device
        return (Error.cudaSuccess,)

    def cudaGetErrorName(self, code: Error) -> tuple[Error, bytes]:  # noqa: N802
        return Error.cudaSuccess, code.name.encode()

    def cudaGetErrorString(self, code: Error) -> tuple[Error, bytes]:  # noqa: N802
        return Error.cudaSuccess, _WORDS.get(code, b"it went wrong")

    def cudaGetLastError(self) -> tuple[Error]:  # noqa: N802
        self.events.append("error cleared")
        return (Error.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Error, int]:  # noqa: N802
        return Error.cudaSuccess, self._allocate(self.device, size)

    def cudaFree(self, address: int) -> tuple[Error]:  # noqa: N802
        return self._free(self.device, address)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Error, int]:  # noqa: N802
        return Error.cudaSuccess, self._allocate(self.pinned, size)

    def cudaFreeHost(self, address: int) -> tuple[Error]:  # noqa: N802
        return self._free(self.pinned, address)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, int]:  # noqa: N802
        assert flags == self.cudaStreamNonBlocking
        handle = next(self._handles)
        self.streams[handle] = []
        self.places[handle] = self.here
        return Error.cudaSuccess, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Error]:  # noqa: N802
        return self._free(self.streams, stream)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Error, int]:  # noqa: N802
        assert flags == 3  # the thread that waits for it sleeps
        handle = next(self._handles)
        self.waits[handle] = 0
        return Error.cudaSuccess, handle

    def cudaEventDestroy(self, event: int) -> tuple[Error]:  # noqa: N802
        return self._free(self.waits, event)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Error]:  # noqa: N802
        assert stream not in self._recording
        self.waits[event] = stream
        return (Error.cudaSuccess,)

    def cudaEventSynchronize(self, event: int) -> tuple[Error]:  # noqa: N802
        stream = self.waits[event]
        while self.streams[stream]:
            self.streams[stream].pop(0)()
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, size: int, kind: str, stream: int
    ) -> tuple[Error]:
        into, of = (self.device, self.pinned) if kind == "in" else (self.pinned, self.device)
        if target not in into or source not in of or size != len(into[target]) or size != len(of[source]):
            return (Error.cudaErrorInvalidValue,)
        assert self.places[target if kind == "in" else source] == self.places[stream]

        def copy() -> None:
            self.events.append(f"copy {kind} {size}")
            ctypes.memmove(target, source, size)

        self.enqueue(stream, copy)
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Error]:  # noqa: N802
        self._recording[stream] = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Error, int]:  # noqa: N802
        graph = next(self._handles)
        self._recorded[graph] = self._recording.pop(stream)
        return Error.cudaSuccess, graph

    def cudaGraphInstantiateWithFlags(self, graph: int, flags: int) -> tuple[Error, int]:  # noqa: N802
        executable = next(self._handles)
        self.graphs[executable] = list(self._recorded[graph])
        return Error.cudaSuccess, executable

    def cudaGraphDestroy(self, graph: int) -> tuple[Error]:  # noqa: N802
        return self._free(self._recorded, graph)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Error]:  # noqa: N802
        return self._free(self.graphs, graph)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Error]:  # noqa: N802
        self.enqueue(stream, lambda: self.events.append("launch"))
        for work in self.graphs[graph]:
            self.enqueue(stream, work)
        return (Error.cudaSuccess,)

    def _allocate(self, kind: dict[int, Any], size: int) -> int:
        memory = ctypes.create_string_buffer(b"\xaa" * size, size)
        kind[ctypes.addressof(memory)] = memory
        self.places[ctypes.addressof(memory)] = self.here
        return ctypes.addressof(memory)

    def _free(self, kind: dict[int, Any], key: int) -> tuple[Error]:
        with self._lock:
            self.places.pop(key, None)
            return (Error.cudaSuccess if kind.pop(key, None) is not None else Error.cudaErrorInvalidValue,)


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
