"""The GPUs of this machine through `cuda-bindings`: what they are, their memory, streams and graphs.

GPUs are counted as CUDA does, from 0, without those that CUDA_VISIBLE_DEVICES hides. What is allocated or
enqueued goes to the one to which `on_device` has turned the calling thread. What is opened closes with the
stack that it is given to: nothing waits for the garbage collector. Only what CUDA 12 and 13 share is used:
https://docs.nvidia.com/cuda/cuda-runtime-api.
"""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np

from fgdd_engines.base import Array, TensorSpec
from fgdd_engines.errors import EngineError, MissingExtraError, SettingsError
from fgdd_engines.optional_imports import import_optional

STREAMS = 2  # calls in flight on a GPU: one's copies overlap with what another computes; more hardly gain
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_FREES_LOCK = (12, 9, 1)  # the first cuda-bindings that let other threads run Python while a call lasts
_TF32 = (8, 0)  # the first compute capability with such products
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CudaDevice:
    """A CUDA device.

    Attributes:
        name: as its driver calls it, such as `Orin`.
        compute_capability: major and minor number.
        memory: all of its memory in bytes; on a board the memory that it shares with the CPU.
        driver: the newest CUDA version that the driver supports, such as `13.0`.
        runtime: the CUDA version of `cuda-bindings`.
        index: its number, on which no result depends.
    """

    name: str
    compute_capability: tuple[int, int]
    memory: int
    driver: str
    runtime: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({'.'.join(map(str, self.compute_capability))})"


def find_cuda_device(index: int = 0) -> CudaDevice | None:
    """Return the CUDA device of a number; None where it cannot be used, and `why_no_cuda` says why."""
    found = _ask(index)
    return found if isinstance(found, CudaDevice) else None


def find_cuda_devices() -> tuple[CudaDevice, ...]:
    """Return all CUDA devices in the order of their numbers; none where none can be used."""
    devices: list[CudaDevice] = []
    while (device := find_cuda_device(len(devices))) is not None:
        devices.append(device)
    return tuple(devices)


def why_no_cuda(index: int = 0) -> str:
    """Return why there is no such CUDA device, as a sentence without a final stop; empty if there is one."""
    found = _ask(index)
    return found if isinstance(found, str) else ""


def check_tf32(device: CudaDevice) -> None:
    """Raise SettingsError where a GPU has no products in TF32."""
    if device.compute_capability < _TF32:
        raise SettingsError(f"{device} does not compute in tf32", "Use the precision fp32 or fp16.")


@cache
def warn_of_old_bindings() -> None:
    """Say once where `cuda-bindings` keep Python's other threads waiting while they wait for the GPU."""
    try:
        found = version("cuda-bindings")
    except PackageNotFoundError:
        return
    if tuple(int(number) for number in re.findall(r"\d+", found)[:3]) < _FREES_LOCK:
        _log.warning(
            "cuda-bindings %s let nothing else run while they wait for the GPU. "
            "Run: pip install 'cuda-bindings>=12.9.1,<%d'",
            found,
            int(found.partition(".")[0]) + 1,
        )


def _ask(index: int) -> CudaDevice | str:
    try:
        cuda = _import_cuda()
    except MissingExtraError as error:
        return str(error)
    except ImportError as error:
        return f"The Python package 'cuda-bindings' cannot be loaded: {error}"
    try:
        driver, runtime = _call(cuda.cudaDriverGetVersion), _call(cuda.cudaRuntimeGetVersion)
        return _no_driver_for(driver, runtime) or _device(cuda, index, _version(driver), _version(runtime))
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


def _device(cuda: ModuleType, index: int, driver: str, runtime: str) -> CudaDevice | str:
    count = _call(cuda.cudaGetDeviceCount)
    if count == 0:
        return "There is no CUDA device"
    if index >= count:
        return no_such_gpu(index, count)
    properties = _call(cuda.cudaGetDeviceProperties, index)
    name = properties.name.partition(b"\0")[0].decode()
    capability = (properties.major, properties.minor)
    return CudaDevice(name, capability, properties.totalGlobalMem, driver, runtime, index)


def no_such_gpu(index: int, count: int) -> str:
    """Return what to say of a GPU's number where there are fewer."""
    return f"There is no GPU {index}: " + (
        "the only one is number 0" if count == 1 else f"there are {count}, counted from 0"
    )


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


@contextmanager
def on_device(index: int) -> Iterator[None]:
    """Within the block, turn this thread's CUDA calls to a GPU; then back to where they went before."""
    cuda = _import_cuda()
    before = _call(cuda.cudaGetDevice)
    if before == index:
        yield
        return
    _call(cuda.cudaSetDevice, index)
    try:
        yield
    finally:
        _call(cuda.cudaSetDevice, before)


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
        # A thread that waits for it sleeps. By default it would ask again and again, and keep a core busy.
        flags = self._cuda.cudaEventBlockingSync | self._cuda.cudaEventDisableTiming
        self._done = _call(self._cuda.cudaEventCreateWithFlags, flags)
        opened.callback(_call, self._cuda.cudaEventDestroy, self._done)

    def copy_in(self, address: int, host: Array) -> None:
        """Enqueue a copy from a pinned array to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _call(self._cuda.cudaMemcpyAsync, address, host.ctypes.data, host.nbytes, kind, self.handle)

    def copy_out(self, host: Array, address: int) -> None:
        """Enqueue a copy from the GPU to a pinned array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _call(self._cuda.cudaMemcpyAsync, host.ctypes.data, address, host.nbytes, kind, self.handle)

    def synchronise(self) -> None:
        """Wait until all of its work is done, and leave the processor to others meanwhile."""
        _call(self._cuda.cudaEventRecord, self._done, self.handle)
        _call(self._cuda.cudaEventSynchronize, self._done)

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
