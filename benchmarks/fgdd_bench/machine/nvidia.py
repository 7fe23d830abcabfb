"""What NVIDIA's driver tells of the first GPU: its state through `nvidia-smi`, its counters through NVML."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

_TIME_LIMIT = 20  # seconds
# nvidia-smi's names, and those of the result.
STATE: Mapping[str, str] = {
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_mib",
    "pstate": "performance_state",
    "clocks.sm": "clock_mhz",
    "clocks.max.sm": "highest_clock_mhz",
    "clocks.mem": "memory_clock_mhz",
    "power.draw": "power_watts",
    "power.limit": "power_limit_watts",
    "temperature.gpu": "temperature_celsius",
}


def read_gpus() -> list[dict[str, str]]:
    """Name, driver, clocks and power of each GPU, as found; none where there is no `nvidia-smi`."""
    command = ["nvidia-smi", f"--query-gpu={','.join(STATE)}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIME_LIMIT, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(result.stdout)


def parse_gpus(text: str) -> list[dict[str, str]]:
    """GPUs of nvidia-smi's lines; what it does not know of one is left out."""
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines()]
    return [
        {name: field for name, field in zip(STATE.values(), row, strict=True) if not field.startswith("[")}
        for row in rows
        if len(row) == len(STATE)
    ]


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Management:
    """The first GPU in NVIDIA's management library (NVML API reference).

    Args:
        library: `libnvidia-ml.so.1`.

    Raises:
        OSError: it has no GPU.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._device = ctypes.c_void_p()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device)):
            raise OSError("NVML has no GPU")

    def joules(self) -> float | None:
        """Energy that the GPU has used since its driver was loaded; None where it does not count."""
        millijoules = ctypes.c_ulonglong()
        failed = self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(millijoules))
        return None if failed else millijoules.value / 1000

    def memory_used(self) -> int | None:
        """Bytes in use on the GPU; None where it does not tell."""
        memory = _Memory()
        failed = self._library.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory))
        return None if failed else int(memory.used)


@cache
def management() -> Management | None:
    """NVML, loaded once; None where there is no driver or no GPU."""
    try:
        return Management(ctypes.CDLL("libnvidia-ml.so.1"))
    except OSError:
        return None
