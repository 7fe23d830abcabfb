"""The Python packages of TensorRT: `tensorrt` 10.3 to 11.x and `tensorrt_rtx`, which share one interface."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

from fgdd_engines.errors import EngineError
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice

Flavour = Literal["tensorrt", "tensorrt-rtx"]
PACKAGES: dict[Flavour, tuple[str, str]] = {
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt-rtx": ("tensorrt_rtx", "rtx"),
}
_LABELS: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_OLDEST = (10, 3)  # JetPack 6.2's, and the first with all that is used here
# The GPUs for which TensorRT for RTX has kernels: https://docs.nvidia.com/deeplearning/tensorrt-rtx.
_RTX_CAPABILITIES = frozenset({(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)})
_KEPT_MESSAGES = 4
# Where in its own source TensorRT gave up.
_POSITION = re.compile(
    r"\[\S+::\d+\]|\S+\.(?:cpp|h|hpp|cu):\d+:?|In function \w+:|In \w+ at [^\s)]*|Assertion failed: \S.*?: "
)
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}  # other names differ in case alone


@dataclass(frozen=True)
class TensorRt:
    """An imported TensorRT.

    Attributes:
        module: the package; both flavours have the same classes.
        flavour: which of the two it is; a plan of one never runs in the other.
        version: the package's version, such as `10.3.0`.
    """

    module: ModuleType
    flavour: Flavour
    version: str

    def __str__(self) -> str:
        return f"{_LABELS[self.flavour]} {self.version}"


def import_tensorrt(flavour: Flavour) -> TensorRt:
    """Import TensorRT.

    Raises:
        MissingExtraError: the package is not installed.
        EngineError: its libraries cannot be loaded, or it is older than any that this package can use.
    """
    package, extra = PACKAGES[flavour]
    try:
        module = import_optional(package, extra)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{_LABELS[flavour]} is installed, but cannot be loaded: {clean(str(error))}",
            "Install it again, with the libraries that it names.",
        ) from error
    found = TensorRt(module, flavour, str(module.__version__))
    numbers = tuple(int(number) for number in re.findall(r"\d+", found.version)[:2])
    if flavour == "tensorrt" and numbers < _OLDEST:
        raise EngineError(
            f"{found} is too old", "Install TensorRT 10.3 or newer; JetPack 6.2 is the first that has it."
        )
    return found


def check_kernels(tensorrt: TensorRt, device: CudaDevice) -> None:
    """Raise EngineError where a TensorRT has no kernels for a GPU, such as that for RTX for H100 and Orin."""
    if tensorrt.flavour == "tensorrt-rtx" and device.compute_capability not in _RTX_CAPABILITIES:
        capability = ".".join(map(str, device.compute_capability))
        raise EngineError(
            f"{tensorrt} has no kernels for {device.name}, of compute capability {capability}",
            "Use the device tensorrt.",
        )


def dtype_name(data_type: Any) -> str:
    """NumPy's name of a TensorRT DataType; TensorRT's own for a type that NumPy does not have."""
    name = str(data_type.name)
    return _DTYPES.get(name, name.lower())


def clean(message: str) -> str:
    """Return a message of TensorRT in one line, without positions in its source."""
    return " ".join(_POSITION.sub(" ", message).split()).rstrip(".")


class MessageLog:
    """Takes what TensorRT says, so that it does not go to the terminal, and keeps the last errors.

    TensorRT goes on using the first logger of a process in some places: use `message_log`, not this class.

    Attributes:
        logger: the ILogger for TensorRT.
    """

    def __init__(self, module: ModuleType) -> None:
        errors: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        class Logger(module.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                module.ILogger.__init__(self)  # pybind11 asks for it by name

            def log(self, severity: Any, message: str) -> None:
                if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                    errors.append(message)

        self.logger = Logger()
        self._errors = errors

    def clear(self) -> None:
        """Forget all errors so far."""
        self._errors.clear()

    def reasons(self) -> str:
        """Return the last errors since `clear`, oldest first, in one line; empty where there were none."""
        return "; ".join(dict.fromkeys(clean(error) for error in self._errors))


@cache
def message_log(module: ModuleType) -> MessageLog:
    """Return the one log of a TensorRT package in this process; two builds at a time share it."""
    return MessageLog(module)
