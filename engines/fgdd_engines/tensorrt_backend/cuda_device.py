"""The GPU of this machine through `cuda-bindings`: what it is, its memory, its streams and graphs.

All of it is for the first device. What is opened closes with the stack that it is given to: nothing waits for
the garbage collector. Only what CUDA 12 and 13 share is used: https://docs.nvidia.com/cuda/cuda-runtime-api.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from fgdd_engines.base import Array, TensorSpec
from fgdd_engines.errors import EngineError, MissingExtraError
from fgdd_engines.optional_imports import import_optional

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation


@dataclass(frozen=True)
class CudaDevice:
    """The first CUDA device.

    Attributes:
        name: as its driver calls it, such as `Orin`.
        compute_capability: major and minor number.
        memory: all of its memory in bytes; on a board the memory that it shares with the CPU.
        driver: the newest CUDA version that the driver supports, such as `13.0`.
        runtime: the CUDA version of `cuda-bindings`.
    """

    name: str
    compute_capability: tuple[int, int]
    memory: int
    driver: str
    runtime: str


def find_cuda_device() -> CudaDevice | None:
    """Return the first CUDA device; None where none can be used, and `why_no_cuda` says why."""
    found = _ask()
    return found if isinstance(found, CudaDevice) else None


def why_no_cuda() -> str:
    """Return why there is no CUDA device, as a sentence without a final stop; empty where there is one."""
    found = _ask()
    return found if isinstance(found, str) else ""


def _ask() -> CudaDevice | str:
    try:
        cuda = _import_cuda()
    except MissingExtraError as error:
        return str(error)
    except ImportError as error:
        return f"The Python package 'cuda-bindings' cannot be loaded: {error}"
    try:
        driver, runtime = _call(cuda.cudaDriverGetVersion), _call(cuda.cudaRuntimeGetVersion)
        return _no_driver_for(driver, runtime) or _first_device(cuda, _version(driver), _version(runtime))
    except EngineError as error:
        return error.problem
    except RuntimeError as error:  # bindings before 12.9 do not give a code where there is no driver
        return f"There is no NVIDIA driver: {error}"


def _no_driver_for(driver: int, runtime: int) -> str:
    """Why this driver cannot serve these bindings; empty where it can."""
    if driver == 0:
        return "There is no NVIDIA driver"
    if driver // 1000 < runtime // 1000:  # within one major version, an older driver serves newer bindings
        return (
            f"The NVIDIA driver supports CUDA {_version(driver)}, but the package 'cuda-bindings' is for "
            f"CUDA {_version(runtime)}; run: pip install 'cuda-bindings=={driver // 1000}.*'"
        )
    return ""


def _first_device(cuda: ModuleType, driver: str, runtime: str) -> CudaDevice | str:
    if _call(cuda.cudaGetDeviceCount) == 0:
        return "There is no CUDA device"
    properties = _call(cuda.cudaGetDeviceProperties, 0)
    name = properties.name.partition(b"\0")[0].decode()
    capability = (properties.major, properties.minor)
    return CudaDevice(name, capability, properties.totalGlobalMem, driver, runtime)


def _version(number: int) -> str:
    """CUDA writes 12.6 as 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _import_cuda() -> ModuleType:
    return import_optional("cuda.bindings.runtime", "rtx")


def _call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """The result of a function of the CUDA runtime, if it has one; EngineError for an error code."""
    code, *results = function(*arguments)
    if int(code) == 0:
        return results[0] if results else None
    cuda = _import_cuda()
    name, description = (text(code)[1].decode() for text in (cuda.cudaGetErrorName, cuda.cudaGetErrorString))
    advice = "Use a smaller batch, or close other programs." if int(code) == _OUT_OF_MEMORY else ""
    raise EngineError(f"The GPU failed in {function.__name__}: {description} ({name})", advice)


def device_memory(size: int, opened: ExitStack) -> int:
    """Allocate bytes of the GPU's memory until the stack closes, and return their address."""
    cuda = _import_cuda()
    address = int(_call(cuda.cudaMalloc, size))
    opened.callback(_call, cuda.cudaFree, address)
    return address


def pinned_array(spec: TensorSpec, opened: ExitStack) -> Array:
    """Allocate a tensor in memory of the host that stays where it is, so that the GPU copies by itself.

    The array must not be used once the stack has closed.
    """
    cuda = _import_cuda()
    shape = [int(axis) for axis in spec.shape]
    size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
    address = int(_call(cuda.cudaHostAlloc, size, cuda.cudaHostAllocDefault))
    opened.callback(_call, cuda.cudaFreeHost, address)
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memoryview(memory), spec.dtype).reshape(shape)


class Stream:
    """A queue of work of the GPU, which runs in order, beside other queues, until the stack closes."""

    def __init__(self, opened: ExitStack) -> None:
        self._cuda = _import_cuda()
        # Non-blocking: it does not wait for the default stream, which other code of the process may use.
        self.handle = int(_call(self._cuda.cudaStreamCreateWithFlags, self._cuda.cudaStreamNonBlocking))
        opened.callback(_call, self._cuda.cudaStreamDestroy, self.handle)

    def copy_in(self, address: int, host: Array) -> None:
        """Enqueue a copy from a pinned array to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _call(self._cuda.cudaMemcpyAsync, address, host.ctypes.data, host.nbytes, kind, self.handle)

    def copy_out(self, host: Array, address: int) -> None:
        """Enqueue a copy from the GPU to a pinned array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _call(self._cuda.cudaMemcpyAsync, host.ctypes.data, address, host.nbytes, kind, self.handle)

    def synchronise(self) -> None:
        """Wait until all of its work is done."""
        _call(self._cuda.cudaStreamSynchronize, self.handle)

    def capture(self, enqueue: Callable[[], None], opened: ExitStack) -> Callable[[], None]:
        """Record the work that `enqueue` would put on this stream, and return what enqueues it all at once.

        Nothing of it runs yet. Raises EngineError where some of the work cannot be recorded; the stream can
        still be used.
        """
        # Thread-local: what other threads do meanwhile, such as allocating, does not end the recording.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call(self._cuda.cudaStreamBeginCapture, self.handle, mode)
        try:
            with ExitStack() as ending:
                try:
                    enqueue()
                finally:
                    recorded = _call(self._cuda.cudaStreamEndCapture, self.handle)
                    ending.callback(_call, self._cuda.cudaGraphDestroy, recorded)
                graph = _call(self._cuda.cudaGraphInstantiateWithFlags, recorded, 0)
                opened.callback(_call, self._cuda.cudaGraphExecDestroy, graph)
        except EngineError:
            self._cuda.cudaGetLastError()  # it has been told, and must not come up in a later call
            raise
        return lambda: _call(self._cuda.cudaGraphLaunch, graph, self.handle)
