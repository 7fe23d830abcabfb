"""Builds a TensorRT plan of a bundle, strongly typed: in the precisions that the graph itself says.

The parts of the API used here are the same from TensorRT 10.3 to 11.x and in TensorRT for RTX:
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api. A plan is what trtexec loads:
nothing is put before or after TensorRT's own bytes.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError, SettingsError
from fgdd_engines.progress import SILENT, Progress, Task
from fgdd_engines.shapes import check_graph, fix_axes, fixed_shape
from fgdd_engines.tensorrt_backend.api import MessageLog, TensorRt, clean, dtype_name, message_log
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device, on_device, why_no_cuda
from fgdd_engines.tensorrt_backend.layers import (
    BuiltLayer,
    network_layers,
    read_back,
    why_other_precision,
)
from fgdd_engines.tensorrt_backend.progress import BuildMonitor, run_interruptibly

__all__ = ["Built", "BuiltLayer", "Profile", "build_plan"]

_BATCH = "batch"
_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = re.compile(
    r"(?i)out of memory|outofmemory|bad_alloc|insufficient memory|allocation failed|fail\w* to allocate"
)
_TOO_LITTLE_WORKSPACE = re.compile(
    r"(workspace|scratch).*(increase|insufficient|exceed)|insufficient workspace"
)
_MORE_MEMORY = (
    "Give a smaller --workspace or a smaller largest batch, close other programs, or add swap: "
    "see docs/jetson.md."
)


@dataclass(frozen=True)
class Profile:
    """The batches that a plan takes.

    Attributes:
        minimum, optimum, maximum: smallest, the one for which it is tuned, and largest batch.

    Raises:
        SettingsError: unless 1 <= minimum <= optimum <= maximum.
    """

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise SettingsError(
                f"The batches {self} are not in order", "Give MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX."
            )

    def __str__(self) -> str:
        return f"{self.minimum}:{self.optimum}:{self.maximum}"

    @classmethod
    def parse(cls, text: str) -> Profile:
        """Read `MIN:OPT:MAX`, such as `1:4:8`; a single number is all three, all else a SettingsError."""
        fields = text.split(":")
        if len(fields) not in (1, 3) or not all(field.isascii() and field.isdigit() for field in fields):
            raise SettingsError(
                f"The batches {text!r} are not of the form MIN:OPT:MAX", "Give for example 1:4:8, or 4."
            )
        numbers = [int(field) for field in fields]
        minimum, optimum, maximum = numbers * 3 if len(numbers) == 1 else numbers
        return cls(minimum, optimum, maximum)


@dataclass(frozen=True)
class Built:
    """What a build gave.

    Attributes:
        plan: the serialised engine, as trtexec would write it.
        timing_cache: what was measured of kernels, for the next build; empty where TensorRT keeps none.
        layers: the layers of the engine; of a network its convolutions and matrix products.
        read_from: where these were read: in the built engine, or in its network where the engine cannot be
            loaded or does not say.
        seconds: time that the build took.
    """

    plan: bytes
    timing_cache: bytes
    layers: tuple[BuiltLayer, ...]
    read_from: Literal["engine inspector", "network"]
    seconds: float


def build_plan(
    tensorrt: TensorRt,
    bundle: Bundle,
    profile: Profile,
    *,
    axes: Mapping[str, int],
    tf32: bool = False,
    gpu: int = 0,
    workspace_mib: int | None = None,
    timing_cache: bytes = b"",
    progress: Progress = SILENT,
) -> Built:
    """Build a plan of a bundle's graph, which computes in the precisions that the graph says.

    A built engine whose layers seem to compute in another precision is given with a warning: what the
    inspector says of fused layers is not the same in all versions, and the comparison of decisions will tell.

    Args:
        tensorrt: which TensorRT builds it, and will run it.
        bundle: the graph, whose file has been checked against its hash.
        profile: the batches that the plan is to take. A plan for a single batch is free of the arithmetic on
            shapes that an open one needs.
        axes: a length for each named axis of the inputs except `batch`.
        tf32: whether products of fp32 numbers may be computed in TF32.
        gpu: the number of the GPU on which it is built, and will run.
        workspace_mib: memory in MiB that kernels may use beside weights and activations; None for no limit.
        timing_cache: `Built.timing_cache` of an earlier build on this machine.
        progress: told of the steps of the build, of which nobody knows the number beforehand.

    Raises:
        SettingsError: a workspace below 1 MiB.
        EngineError: TensorRT cannot read or build the graph, has no GPU that it needs, or runs out of memory;
            or the graph lacks the precision of the bundle's variant.
        KeyboardInterrupt: the user stopped the build.
    """
    if workspace_mib is not None and workspace_mib < 1:
        raise SettingsError(f"A workspace of {workspace_mib} MiB is too small", "Give at least 1 MiB.")
    started = time.monotonic()
    log = message_log(tensorrt.module)
    log.clear()
    with _building_on(gpu):
        builder = _open_builder(tensorrt, log)
        network, _parser = _parse(tensorrt, builder, bundle, log)
        shapes = _choose_shapes(builder, network, bundle, profile, axes)
        layers = _network_layers(network, bundle)
        config = _configure(tensorrt, builder, shapes, workspace_mib, tf32=tf32)
        cache = _use_timing_cache(tensorrt, config, timing_cache)
        with progress.task(f"Building {bundle.name}") as task:
            plan = _build(tensorrt, builder, network, config, bundle, log, task, gpu)
        built = read_back(tensorrt, plan, log)
    if problem := why_other_precision(bundle, built, "built engine") if built else "":
        _log.warning("%s, as far as it tells. Its decisions count", problem)
    return Built(
        plan=plan,
        timing_cache=bytes(cache.serialize()) if cache is not None else b"",
        layers=built or layers,
        read_from="engine inspector" if built else "network",
        seconds=time.monotonic() - started,
    )


def _building_on(gpu: int) -> AbstractContextManager[None]:
    """Turn this thread to a GPU, where there is any: TensorRT for RTX builds without."""
    if find_cuda_device(gpu) is not None:
        return on_device(gpu)
    if gpu:
        raise EngineError(f"No engine can be built on GPU {gpu}: {why_no_cuda(gpu)}", "Run: fgdd-fast doctor")
    return nullcontext()


def _open_builder(tensorrt: TensorRt, log: MessageLog) -> Any:
    try:
        return tensorrt.module.Builder(log.logger)
    except TypeError as error:  # what pybind11 makes of a constructor that gave nothing
        reason = why_no_cuda() or log.reasons() or str(error)
        raise EngineError(
            f"{tensorrt} cannot build an engine without a GPU that it can use: {reason}",
            "Build on the machine that is to run the engine. TensorRT for RTX builds without a GPU.",
        ) from error


def _parse(tensorrt: TensorRt, builder: Any, bundle: Bundle, log: MessageLog) -> tuple[Any, Any]:
    """The network of a graph, and its parser: that owns the weights, so it has to live until the build."""
    trt = tensorrt.module
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if parser.parse_from_file(str(bundle.onnx)):  # which finds weights in other files beside it
        return network, parser
    reason = _parser_reason(parser.get_error(0)) if parser.num_errors else log.reasons()
    raise EngineError(f"{tensorrt} cannot read the graph of '{bundle.name}': {reason}")


def _parser_reason(error: Any) -> str:
    reason = clean(error.desc())
    if not error.node_operator():
        return reason
    node = f"node '{error.node_name()}' ({error.node_operator()})"
    if "UNSUPPORTED" in error.code().name:
        node = f"it does not support the {node}"
    return node if reason == "false" else f"{node}: {reason}"  # `false` is the condition that failed


def _choose_shapes(
    builder: Any, network: Any, bundle: Bundle, profile: Profile, axes: Mapping[str, int]
) -> Any:
    """Give the network's inputs their shapes; returns the profile for the axes that stay open, if any."""
    batches = (profile.minimum, profile.optimum, profile.maximum)
    has_batch = any(_BATCH in spec.shape for spec in bundle.inputs)
    inputs, outputs = fix_axes(bundle, {**axes, **({_BATCH: profile.optimum} if has_batch else {})})
    tensors = {tensor.name: tensor for tensor in (network.get_input(i) for i in range(network.num_inputs))}
    check_graph(bundle, inputs, [_spec(tensor) for tensor in tensors.values()])
    check_graph(bundle, outputs, [_spec(network.get_output(i)) for i in range(network.num_outputs)])
    open_shapes = builder.create_optimization_profile()
    is_open = False
    for spec in bundle.inputs:
        shapes = [fixed_shape(spec, {**axes, _BATCH: batch}) for batch in batches]
        if profile.minimum == profile.maximum or _BATCH not in spec.shape:
            tensors[spec.name].shape = shapes[0]
        else:
            tensors[spec.name].shape = fixed_shape(spec, {**axes, _BATCH: -1})
            open_shapes.set_shape(spec.name, *shapes)
            is_open = True
    return open_shapes if is_open else None


def _spec(tensor: Any) -> TensorSpec:
    shape = tuple("?" if axis < 0 else axis for axis in tensor.shape)
    return TensorSpec(tensor.name, dtype_name(tensor.dtype), shape)


def _network_layers(network: Any, bundle: Bundle) -> tuple[BuiltLayer, ...]:
    """The network's convolutions and products; EngineError unless they compute in what the bundle says."""
    layers = network_layers(network)
    if problem := why_other_precision(bundle, layers, "graph"):
        advice = "Give the bundle that is in fp32, and convert it where it should not be."
        raise EngineError(problem, advice if bundle.variant is None else "Convert the bundle again.")
    return layers


def _configure(
    tensorrt: TensorRt, builder: Any, shapes: Any, workspace_mib: int | None, *, tf32: bool
) -> Any:
    trt = tensorrt.module
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector gives names only
    # TF32 has 10 bits of mantissa where fp32 has 23, and is on by default. What was not asked to compute so
    # has to decide as the CPU does, and what a variant keeps in fp32 are its sensitive parts.
    (config.set_flag if tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    if shapes is not None:
        config.add_optimization_profile(shapes)
    return config


def _use_timing_cache(tensorrt: TensorRt, config: Any, timing_cache: bytes) -> Any:
    """The timing cache that a build will read and fill; None where TensorRT has none, as that for RTX."""
    if tensorrt.flavour == "tensorrt-rtx":
        return None
    cache = config.create_timing_cache(timing_cache)
    # One that is damaged, or of another GPU or version, is no loss: the build measures anew.
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _build(
    tensorrt: TensorRt,
    builder: Any,
    network: Any,
    config: Any,
    bundle: Bundle,
    log: MessageLog,
    task: Task,
    gpu: int,
) -> bytes:
    monitor = BuildMonitor(tensorrt.module)
    config.progress_monitor = monitor.monitor

    def build() -> Any:
        with _building_on(gpu):
            return builder.build_serialized_network(network, config)

    try:
        plan = run_interruptibly(build, monitor, task)
    except MemoryError as error:
        raise EngineError(f"Building '{bundle.name}' ran out of memory", _MORE_MEMORY) from error
    if plan is None:
        reasons = log.reasons()
        if _OUT_OF_MEMORY.search(reasons):
            raise EngineError(f"Building '{bundle.name}' ran out of memory: {reasons}", _MORE_MEMORY)
        advice = "Give a larger --workspace." if _TOO_LITTLE_WORKSPACE.search(reasons) else ""
        raise EngineError(
            f"{tensorrt} cannot build '{bundle.name}': {reasons or 'it gives no reason'}", advice
        )
    return bytes(plan)
