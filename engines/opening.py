"""Which runtimes are here, and a bundle opened in one of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from fgdd_fast.engines.base import Device, Engine, Precision
from fgdd_fast.engines.bundle import Bundle
from fgdd_fast.engines.onnxruntime_cpu import OnnxRuntimeEngine
from fgdd_fast.engines.openvino_cpu import OpenVinoEngine
from fgdd_fast.errors import SettingsError

__all__ = ["available_devices", "open_engine"]

_PACKAGES: dict[Device, str] = {"cpu": "onnxruntime", "openvino": "openvino"}


def available_devices() -> tuple[Device, ...]:
    """The devices whose runtime is installed; nothing is imported."""
    return tuple(device for device, package in _PACKAGES.items() if find_spec(package) is not None)


def open_engine(
    bundle: Bundle,
    *,
    device: Device,
    precision: Precision = "auto",
    axes: Mapping[str, int],
    threads: int,
) -> Engine:
    """Load a bundle's graph into a runtime, for fixed shapes.

    Args:
        bundle: the model, whose file has been checked against its hash.
        device: `cpu` is ONNX Runtime, in fp32; `openvino` is OpenVINO on the CPU, in fp32 or bf16.
        precision: `auto` is bf16 where the runtime and the CPU compute in it natively, fp32 elsewhere.
        axes: a length for each named axis of the inputs, such as `batch`.
        threads: threads to compute with; each serves one call of `run` at a time.

    Raises:
        SettingsError: this device cannot compute in this precision, or has no such number of threads.
        MissingExtraError: the runtime is not installed.
        EngineError: `axes` are not the inputs' axes, or the runtime cannot load the graph.
    """
    if threads < 1:
        raise SettingsError(f"An engine needs at least one thread, not {threads}")
    if device == "openvino":
        return OpenVinoEngine(bundle, axes, threads, precision)
    if precision == "bf16":
        raise SettingsError(
            "ONNX Runtime's CPU provider computes in fp32 only", "For bf16 use the device openvino."
        )
    return OnnxRuntimeEngine(bundle, axes, threads)
