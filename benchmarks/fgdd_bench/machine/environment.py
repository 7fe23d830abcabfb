"""What a figure was measured on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fgdd_fast.runtime.machine import ROOT, read_jetson, read_machine

PACKAGES = (
    "fgdd-fast",
    "numpy",
    "opencv-python",
    "pillow",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
    "torch",
    "transformers",
    "tokenizers",
)
# What is asked of each GPU: nvidia-smi's names, and those of the result.
GPU: Mapping[str, str] = {
    "name": "name",
    "driver_version": "driver",
    "memory.total": "memory_mib",
    "memory.used": "memory_used_mib",
    "pstate": "performance_state",
    "clocks.sm": "clock_mhz",
    "clocks.max.sm": "highest_clock_mhz",
    "clocks.mem": "memory_clock_mhz",
    "power.draw": "power_watts",
    "power.limit": "power_limit_watts",
    "temperature.gpu": "temperature_celsius",
}
_TIME_LIMIT = 20  # seconds, of nvidia-smi
# What sets the number of threads of libraries, where it is set.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ONEDNN_MAX_CPU_ISA")


def environment(root: Path = ROOT) -> dict[str, object]:
    """Processor, memory, clocks, GPU, versions, threads and load; nothing that names the machine.

    Args:
        root: the root of the file system that is read.
    """
    machine = read_machine(root)
    jetson = read_jetson(root)
    return {
        "processor": machine.processor,
        "vector_units": list(machine.vector_units),
        "cores": machine.cores,
        "clocks": _clocks(root),
        "load_average": load_average(),
        "memory_gib": round(machine.memory / 2**30, 1),
        "gpus": read_gpus(),
        "jetson": None if jetson is None else asdict(jetson),
        "system": machine.system,
        "python": machine.python,
        "packages": {package: _version(package) for package in PACKAGES},
        "threads": thread_settings(),
    }


def read_gpus() -> list[dict[str, str]]:
    """Name, driver, clocks and power of each GPU, as found; what is not known of one is left out."""
    command = ["nvidia-smi", f"--query-gpu={','.join(GPU)}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIME_LIMIT, check=True)
    except (OSError, subprocess.SubprocessError):  # there is no `nvidia-smi`, or no GPU
        return []
    rows = [[field.strip() for field in line.split(",")] for line in result.stdout.splitlines()]
    return [
        {name: field for name, field in zip(GPU.values(), row, strict=True) if not field.startswith("[")}
        for row in rows
        if len(row) == len(GPU)
    ]


def load_average() -> list[float]:
    """Processes that ran or waited to run: means of the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _clocks(root: Path) -> dict[str, object]:
    """The cores' clocks as found, and what governs them where that can be read."""
    found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text(root / "proc/cpuinfo"), re.MULTILINE)
    governors = {
        _text(file).strip() for file in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    }
    return {"mhz": [round(float(value)) for value in found], "governors": sorted(governors)}


def _text(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def thread_settings() -> dict[str, object]:
    """What says how many threads libraries may start: those of libraries that are loaded, and variables."""
    settings: dict[str, object] = {"affinity": len(os.sched_getaffinity(0))}
    for name, ask in (("cv2", "getNumThreads"), ("torch", "get_num_threads")):
        if name in sys.modules:
            settings[name] = getattr(sys.modules[name], ask)()
    return settings | {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}


def command_line(words: Sequence[str]) -> str:
    """A command as it was given, every path by its last part alone."""
    return " ".join(re.sub(r"[^=:,\s]*/", "", word.rstrip("/")) or "/" for word in words)
