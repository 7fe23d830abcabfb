"""The GPU of this machine, asked through `cuda-bindings`."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from fgdd_engines.errors import EngineError, MissingExtraError
from fgdd_engines.tensorrt_backend.cuda_memory import call, import_cuda


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
        cuda = import_cuda()
    except MissingExtraError as error:
        return str(error)
    except ImportError as error:
        return f"The Python package 'cuda-bindings' cannot be loaded: {error}"
    try:
        driver, runtime = call(cuda.cudaDriverGetVersion), call(cuda.cudaRuntimeGetVersion)
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
    if call(cuda.cudaGetDeviceCount) == 0:
        return "There is no CUDA device"
    properties = call(cuda.cudaGetDeviceProperties, 0)
    return CudaDevice(
        name=properties.name.partition(b"\0")[0].decode(),
        compute_capability=(properties.major, properties.minor),
        memory=properties.totalGlobalMem,
        driver=driver,
        runtime=runtime,
    )


def _version(number: int) -> str:
    """CUDA writes 12.6 as 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"
