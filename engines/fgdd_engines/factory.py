"""A bundle opened on a device."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from fgdd_engines.base import Device, Engine, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError, SettingsError
from fgdd_engines.onnxruntime_backend.cpu import OnnxRuntimeEngine
from fgdd_engines.onnxruntime_backend.gpu import GpuProvider, OnnxRuntimeGpuEngine
from fgdd_engines.openvino_backend.cpu import OpenVinoEngine
from fgdd_engines.paths import cache_folder
from fgdd_engines.tensorrt_backend.api import Flavour, import_tensorrt
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device, why_no_cuda
from fgdd_engines.tensorrt_backend.engine import TensorRtEngine
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, Platform, graph_precision
from fgdd_engines.tensorrt_backend.plans.store import PlanStore

__all__ = ["available_devices", "open_engine"]

_PACKAGES: Mapping[Device, str] = {"cpu": "onnxruntime", "openvino": "openvino"}
_FLAVOURS: Mapping[Device, Flavour] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}
_PROVIDERS: Mapping[Device, GpuProvider] = {
    "cuda": "cuda",
    "onnxruntime-tensorrt": "onnxruntime-tensorrt",
    "onnxruntime-rtx": "onnxruntime-rtx",
}


def available_devices() -> tuple[Device, ...]:
    """The devices that need no GPU and whose runtime is installed; nothing is imported."""
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
        bundle: the model, or a variant of it, whose file has been checked against its hash.
        device: see `fgdd_engines.base.Device`.
        precision: how OpenVINO computes a graph in fp32; `auto` is bf16 where the processor computes in it
            natively. Everything else computes in what the graph is in, and takes `auto` or that.
        axes: a length for each named axis of the inputs, such as `batch`.
        threads: processor threads to compute with; each serves one call of `run` at a time.

    Raises:
        SettingsError: this device does not compute this graph in this precision, or has no such number of
            threads.
        MissingExtraError: the runtime is not installed.
        EngineError: `axes` are not the inputs' axes; the runtime cannot load the graph, or does not run here;
            or no TensorRT engine was built for it.
    """
    if threads < 1:
        raise SettingsError(f"An engine needs at least one thread, not {threads}")
    if device == "openvino":
        return OpenVinoEngine(bundle, axes, threads, precision)
    _check_precision(bundle, device, precision)
    if device == "cpu":
        return OnnxRuntimeEngine(bundle, axes, threads)
    if flavour := _FLAVOURS.get(device):
        return _open_plan(bundle, flavour, axes)
    return OnnxRuntimeGpuEngine(bundle, axes, _PROVIDERS[device], cache=cache_folder() / "onnxruntime")


def _check_precision(bundle: Bundle, device: Device, precision: Precision) -> None:
    graph = graph_precision(bundle)
    if precision not in ("auto", graph):
        only = "ONNX Runtime's CPU provider computes" if device == "cpu" else f"The device {device} computes"
        raise SettingsError(
            f"{only} a graph in what it is in, and the graph of {bundle.name} is in {graph}, not {precision}",
            "For bf16 on a CPU use the device openvino; else convert the bundle: fgdd-fast convert",
        )


def _open_plan(bundle: Bundle, flavour: Flavour, axes: Mapping[str, int]) -> Engine:
    tensorrt = import_tensorrt(flavour)
    device = find_cuda_device()
    if device is None:
        raise EngineError(f"{tensorrt} cannot run '{bundle.name}': {why_no_cuda()}", "Run: fgdd-fast doctor")
    batch = axes.get("batch", 1)
    platform = Platform.of(tensorrt, device)
    store = PlanStore()
    plan = store.find(PlanKey.of(bundle, platform, Profile(batch, batch, batch), axes))
    content = store.plan_bytes(plan)
    where = f"{tensorrt}, {platform.device}, {bundle.variant or 'fp32'}, plan {plan.sha256[:8]}"
    return TensorRtEngine(tensorrt, bundle, content, axes, arithmetic=where)
