"""What a figure was measured on."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

from fgdd_fast.machine import read_machine

PACKAGES = ("fgdd-fast", "numpy", "opencv-python", "onnxruntime", "openvino")


def environment() -> dict[str, object]:
    """Processor, its vector units, cores given, load, memory and versions; nothing that names the machine."""
    packages = {}
    for package in PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "absent"
    machine = read_machine()
    return {
        "processor": machine.processor,
        "vector_units": list(machine.vector_units),
        "cores": machine.cores,
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "memory_gib": round(machine.memory / 2**30, 1),
        "system": machine.system,
        "python": machine.python,
        "packages": packages,
    }
