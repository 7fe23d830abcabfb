"""A stand-in for `cuda.bindings.runtime`: exactly the calls that the project makes.

The GPU's memory is memory of the host, and a stream does its work only when it is waited for: a copy that is
missing, too early or of the wrong size, or a wait that was forgotten, gives a wrong result here as on a GPU.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

Work = Callable[[], None]


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
