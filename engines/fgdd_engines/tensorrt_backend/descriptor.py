"""The devices of TensorRT's own runtimes, which run plans that were built on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from fgdd_engines.backends import Backend
from fgdd_engines.base import Engine, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError
from fgdd_engines.probing.probe_graph import GRAPH
from fgdd_engines.tensorrt_backend.api import (
    PACKAGES,
    Flavour,
    TensorRt,
    check_kernels,
    import_tensorrt,
    message_log,
)
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import (
    STREAMS,
    check_tf32,
    find_cuda_device,
    on_device,
    why_no_cuda,
)
from fgdd_engines.tensorrt_backend.engine import TensorRtEngine
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, Platform
from fgdd_engines.tensorrt_backend.plans.store import PlanStore


def open_plan(
    flavour: Flavour,
    bundle: Bundle,
    axes: Mapping[str, int],
    *,
    tf32: bool = False,
    streams: int = STREAMS,
    gpu: int = 0,
) -> Engine:
    """Load the plan that was built of a bundle for these axes on this machine.

    Args:
        flavour: which TensorRT.
        bundle: the graph.
        axes: a length for each named axis of the inputs.
        tf32: whether the plan of an fp32 graph is to be one that computes products in TF32.
        streams: calls that may be in flight.
        gpu: the number of the GPU.

    Raises:
        MissingExtraError: this TensorRT is not installed.
        SettingsError: the GPU has no TF32.
        EngineError: there is no such GPU, this TensorRT has no kernels for it, or no plan that may be used.
    """
    tensorrt = import_tensorrt(flavour)
    device = find_cuda_device(gpu)
    if device is None:
        problem = f"{tensorrt} cannot run '{bundle.name}': {why_no_cuda(gpu)}"
        raise EngineError(problem, "Run: fgdd-fast doctor")
    check_kernels(tensorrt, device)
    if tf32:
        check_tf32(device)
    batch = axes.get("batch", 1)
    platform = Platform.of(tensorrt, device)
    precision: Precision = "tf32" if tf32 else bundle.precision
    wanted = PlanKey.of(bundle, platform, Profile(batch, batch, batch), axes, precision)
    plan, content = PlanStore().load(wanted)
    computed = "tf32" if tf32 else bundle.variant or "fp32"
    where = f"{tensorrt}, {platform.device}, {computed}, plan {plan.sha256[:8]}"
    return TensorRtEngine(
        tensorrt, bundle, content, axes, arithmetic=where, streams=streams, gpu=gpu, kernels=plan.kernels
    )


def built_plans(flavour: Flavour, graph: Bundle, precision: Precision) -> tuple[str, ...]:
    """Return hash and state of each plan that was built of a graph; `precision` tells TF32 from fp32."""
    wanted = (flavour, graph.fingerprint, precision == "tf32")
    return tuple(
        f"{plan.sha256} {plan.state}"
        for plan in PlanStore().list()
        if (plan.key.flavour, plan.key.model_sha256, plan.key.precision == "tf32") == wanted
    )


def run_probe(flavour: Flavour, gpu: int = 0) -> str:
    """Build an engine of the probe's graph, deserialise it, make its context, and return what loaded it.

    Nothing is computed: deserialising creates a CUDA stream, and there an unusable GPU shows. Raises
    MissingExtraError without the package; EngineError where a step failed, `cuda-bindings`, through which
    plans are run, finds no GPU, or the GPU is none that this TensorRT has kernels for.
    """
    tensorrt = import_tensorrt(flavour)
    log = message_log(tensorrt.module)
    log.clear()
    device = find_cuda_device(gpu)
    try:
        with nullcontext() if device is None else on_device(gpu):
            _load_engine(tensorrt, log.logger)
    except Exception as error:  # its own say little; the log holds the reason
        raise EngineError(f"{tensorrt} cannot run: {log.reasons() or error}") from error
    if device is None:
        raise EngineError(why_no_cuda(gpu))
    check_kernels(tensorrt, device)
    return f"{tensorrt}, {device}"


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


def _backend(flavour: Flavour, gpu: int = 0) -> Backend:
    package, extra = PACKAGES[flavour]

    def opens(bundle: Bundle, axes: Mapping[str, int], threads: int, precision: Precision) -> Engine:
        streams = min(threads, STREAMS)
        return open_plan(flavour, bundle, axes, tf32=precision == "tf32", streams=streams, gpu=gpu)

    return Backend(
        open=opens,
        probe=lambda: run_probe(flavour, gpu),
        on_processor=False,
        on_nvidia=True,
        variants={"fp32": None, "tf32": None, "fp16": "fp16", "bf16": "bf16", "int8": "int8"},
        packages=(package, "cuda.bindings"),
        distributions=(flavour, "cuda-bindings"),
        extra=extra,
        with_jetpack=flavour == "tensorrt",
        built=lambda graph, precision: built_plans(flavour, graph, precision),
        on_gpu=lambda index: _backend(flavour, index),
    )


TENSORRT = _backend("tensorrt")
TENSORRT_RTX = _backend("tensorrt-rtx")
