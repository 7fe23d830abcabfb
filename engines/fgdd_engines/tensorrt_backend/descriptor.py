"""The devices of TensorRT's own runtimes, which run plans that were built on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgdd_engines.backends import Backend
from fgdd_engines.base import Engine
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError
from fgdd_engines.probing.probe_graph import GRAPH
from fgdd_engines.tensorrt_backend.api import PACKAGES, Flavour, TensorRt, import_tensorrt, message_log
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device, why_no_cuda
from fgdd_engines.tensorrt_backend.engine import TensorRtEngine
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, Platform
from fgdd_engines.tensorrt_backend.plans.store import PlanStore

# The GPUs for which TensorRT for RTX has kernels: https://docs.nvidia.com/deeplearning/tensorrt-rtx.
_RTX_CAPABILITIES = frozenset({(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)})


def open_plan(flavour: Flavour, bundle: Bundle, axes: Mapping[str, int]) -> Engine:
    """Load the plan that was built of a bundle for these axes on this machine.

    Raises MissingExtraError without this TensorRT, and EngineError without a GPU, or a plan that may be used.
    """
    tensorrt = import_tensorrt(flavour)
    device = find_cuda_device()
    if device is None:
        raise EngineError(f"{tensorrt} cannot run '{bundle.name}': {why_no_cuda()}", "Run: fgdd-fast doctor")
    batch = axes.get("batch", 1)
    platform = Platform.of(tensorrt, device)
    plan, content = PlanStore().load(PlanKey.of(bundle, platform, Profile(batch, batch, batch), axes))
    where = f"{tensorrt}, {platform.device}, {bundle.variant or 'fp32'}, plan {plan.sha256[:8]}"
    return TensorRtEngine(tensorrt, bundle, content, axes, arithmetic=where)


def built_plans(flavour: Flavour, graph: Bundle) -> tuple[str, ...]:
    """Return hash and state of each plan that was built of a graph."""
    return tuple(
        f"{plan.sha256} {plan.state}"
        for plan in PlanStore().list()
        if (plan.key.flavour, plan.key.model_sha256) == (flavour, graph.fingerprint)
    )


def run_probe(flavour: Flavour) -> str:
    """Build an engine of the probe's graph, deserialise it, make its context, and return what loaded it.

    Nothing is computed: deserialising creates a CUDA stream, and there an unusable GPU shows. Raises
    MissingExtraError without the package; EngineError where a step failed, `cuda-bindings`, through which
    plans are run, finds no GPU, or the GPU is none that this TensorRT has kernels for.
    """
    tensorrt = import_tensorrt(flavour)
    log = message_log(tensorrt.module)
    log.clear()
    try:
        _load_engine(tensorrt, log.logger)
    except Exception as error:  # its own say little; the log holds the reason
        raise EngineError(f"{tensorrt} cannot run: {log.reasons() or error}") from error
    device = find_cuda_device()
    if device is None:
        raise EngineError(why_no_cuda())
    if flavour == "tensorrt-rtx" and device.compute_capability not in _RTX_CAPABILITIES:
        capability = ".".join(map(str, device.compute_capability))
        raise EngineError(
            f"{tensorrt} has no kernels for {device.name}, of compute capability {capability}",
            "Use the device tensorrt.",
        )
    return f"{tensorrt}, {device.name}"


def _load_engine(tensorrt: TensorRt, logger: Any) -> None:
    """Raise where a step fails; most then give None, upon which the next one raises."""
    module = tensorrt.module
    builder = module.Builder(logger)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, logger)
    parser.parse(GRAPH)
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    runtime = module.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine.create_execution_context() is None:
        raise EngineError("it made no execution context")


def _backend(flavour: Flavour) -> Backend:
    package, extra = PACKAGES[flavour]
    return Backend(
        open=lambda bundle, axes, _threads, _precision: open_plan(flavour, bundle, axes),
        probe=lambda: run_probe(flavour),
        on_processor=False,
        on_nvidia=True,
        variants={"fp32": None, "fp16": "fp16", "bf16": "bf16", "int8": "int8"},
        packages=(package, "cuda.bindings"),
        distributions=(flavour, "cuda-bindings"),
        extra=extra,
        with_jetpack=flavour == "tensorrt",
        built=lambda graph: built_plans(flavour, graph),
    )


TENSORRT = _backend("tensorrt")
TENSORRT_RTX = _backend("tensorrt-rtx")
