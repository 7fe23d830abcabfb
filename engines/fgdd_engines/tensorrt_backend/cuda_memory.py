"""Memory, streams and graphs of CUDA through `cuda-bindings`, with errors as exceptions.

All of it is for the first device, and what is opened here is closed by its owner: nothing waits for the
garbage collector. Only what CUDA 12 and 13 share is used: https://docs.nvidia.com/cuda/cuda-runtime-api.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType, TracebackType
from typing import Any, TypeVar

import numpy as np

from fgdd_engines.base import Array, TensorSpec
from fgdd_engines.errors import EngineError
from fgdd_engines.optional_imports import import_optional

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
Self = TypeVar("Self", bound="_Closing")


def import_cuda() -> ModuleType:
    """Import the CUDA runtime's bindings.

    Raises:
        MissingExtraError: the package is not installed.
    """
    return import_optional("cuda.bindings.runtime", "rtx")


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Call a function of the CUDA runtime.

    Returns:
        Its result; None for one that gives nothing but its error code.

    Raises:
        EngineError: it gave an error code, told by its name and description.
    """
    code, *results = function(*arguments)
    if int(code) == 0:
        return results[0] if results else None
    cuda = import_cuda()
    name, description = (text(code)[1].decode() for text in (cuda.cudaGetErrorName, cuda.cudaGetErrorString))
    advice = "Use a smaller batch, or close other programs." if int(code) == _OUT_OF_MEMORY else ""
    raise EngineError(f"The GPU failed in {function.__name__}: {description} ({name})", advice)


class _Closing(ABC):
    """Something that is closed once, by `close` or at the end of a `with` block."""

    _closed = False

    def close(self) -> None:
        """Free it; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._free()

    @abstractmethod
    def _free(self) -> None:
        """Give it back to CUDA."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class DeviceBuffer(_Closing):
    """Memory of the GPU.

    Attributes:
        address: for TensorRT.
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._cuda = import_cuda()
        self.size = size
        self.address = int(call(self._cuda.cudaMalloc, size))

    def _free(self) -> None:
        call(self._cuda.cudaFree, self.address)


class PinnedBuffer(_Closing):
    """Memory of the host that stays where it is, so that the GPU copies from it and to it by itself.

    Attributes:
        array: the memory as the tensor; gone once this is closed.
        address: of the first byte.
        size: bytes.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self._cuda = import_cuda()
        shape = tuple(int(axis) for axis in spec.shape)
        self.size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
        self.address = int(call(self._cuda.cudaHostAlloc, self.size, self._cuda.cudaHostAllocDefault))
        memory = (ctypes.c_uint8 * self.size).from_address(self.address)
        self.array: Array = np.frombuffer(memoryview(memory), spec.dtype).reshape(shape)

    def _free(self) -> None:
        self.array = np.empty(0, self.array.dtype)
        call(self._cuda.cudaFreeHost, self.address)


class Graph(_Closing):
    """Work that was recorded on a stream once, and is launched whole."""

    def __init__(self, executable: Any) -> None:
        self._cuda = import_cuda()
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """Enqueue all of the work on a stream."""
        call(self._cuda.cudaGraphLaunch, self._executable, stream.handle)

    def _free(self) -> None:
        call(self._cuda.cudaGraphExecDestroy, self._executable)


class Stream(_Closing):
    """A queue of work of the GPU, which runs in order, beside other queues.

    Attributes:
        handle: CUDA's own, an integer for TensorRT.
    """

    def __init__(self) -> None:
        self._cuda = import_cuda()
        # Non-blocking: it does not wait for the default stream, which other code of the process may use.
        self.handle = int(call(self._cuda.cudaStreamCreateWithFlags, self._cuda.cudaStreamNonBlocking))

    def copy_in(self, device: DeviceBuffer, host: PinnedBuffer) -> None:
        """Enqueue a copy from the host to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        call(self._cuda.cudaMemcpyAsync, device.address, host.address, host.size, kind, self.handle)

    def copy_out(self, host: PinnedBuffer, device: DeviceBuffer) -> None:
        """Enqueue a copy from the GPU to the host."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(self._cuda.cudaMemcpyAsync, host.address, device.address, host.size, kind, self.handle)

    def synchronise(self) -> None:
        """Wait until all of its work is done."""
        call(self._cuda.cudaStreamSynchronize, self.handle)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Record the work that `enqueue` would put on this stream; nothing of it runs.

        Raises:
            EngineError: some of the work cannot be recorded; the stream itself can still be used.
        """
        # Thread-local: what other threads do meanwhile, such as allocating, does not end the recording.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(self._cuda.cudaStreamBeginCapture, self.handle, mode)
        try:
            with ExitStack() as ending:
                try:
                    enqueue()
                finally:
                    recorded = call(self._cuda.cudaStreamEndCapture, self.handle)
                    ending.callback(call, self._cuda.cudaGraphDestroy, recorded)
                return Graph(call(self._cuda.cudaGraphInstantiateWithFlags, recorded, 0))
        except EngineError:
            self._cuda.cudaGetLastError()  # it has been told, and must not come up in a later call
            raise

    def _free(self) -> None:
        call(self._cuda.cudaStreamDestroy, self.handle)
