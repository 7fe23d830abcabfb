"""Runs a TensorRT plan: pinned and device memory allocated once, a CUDA stream and CUDA graphs.

A call copies its feeds into pinned memory, enqueues the copies to the GPU, the network and the copies back on
its own stream, and waits for that stream alone: while one call computes, the copies of another go on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from fgdd_engines.base import Array, Engine, TensorSpec
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError
from fgdd_engines.pool import Pool
from fgdd_engines.shapes import check_graph, fix_axes
from fgdd_engines.tensorrt_backend.api import MessageLog, TensorRt, dtype_name, message_log
from fgdd_engines.tensorrt_backend.cuda_device import (
    STREAMS,
    Stream,
    device_memory,
    find_cuda_device,
    on_device,
    pinned_array,
    warn_of_old_bindings,
    why_no_cuda,
)
from fgdd_engines.tensorrt_backend.kernels import use_kernels

_BUILD_AGAIN = "Build it again on this machine: fgdd-fast engine build"


class TensorRtEngine(Engine):
    """A plan of a bundle, for one of the batches that the plan takes.

    Args:
        tensorrt: the TensorRT that built the plan.
        bundle: the graph of which the plan was built.
        plan: the serialised engine, whose bytes have been checked against their hash.
        axes: a length for each named axis of the inputs, such as `batch`.
        arithmetic: what results depend on; by default TensorRT, its version, the GPU and the variant. Two
            plans of one graph may differ: their kernels were chosen by measuring.
        streams: calls of `run` that may be in flight; each has an execution context, and device and pinned
            memory of its own.
        gpu: the number of the GPU.
        kernels: where TensorRT for RTX keeps what it compiles; None to compile anew each time.

    Raises:
        EngineError: there is no CUDA device, the plan cannot be loaded here, is not of this bundle, or was
            not built for this batch; or memory does not suffice.
    """

    def __init__(
        self,
        tensorrt: TensorRt,
        bundle: Bundle,
        plan: bytes,
        axes: Mapping[str, int],
        *,
        arithmetic: str | None = None,
        streams: int = STREAMS,
        gpu: int = 0,
        kernels: Path | None = None,
    ) -> None:
        self.inputs, self.outputs = fix_axes(bundle, axes)
        self.streams = streams
        self._gpu = gpu
        device = find_cuda_device(gpu)
        if device is None:
            raise EngineError(f"{tensorrt} cannot run '{bundle.name}': {why_no_cuda(gpu)}")
        warn_of_old_bindings()
        self.arithmetic = arithmetic or f"{tensorrt}, {device.name}, {bundle.variant or 'fp32'}"
        log = message_log(tensorrt.module)
        log.clear()
        self._records_itself = tensorrt.flavour == "tensorrt-rtx"
        records = not self._records_itself
        with on_device(gpu), ExitStack() as opened:
            engine = _load(tensorrt, bundle, plan, log)
            _check_lengths(engine, bundle, axes)
            _check_tensors(tensorrt, engine, bundle, (*self.inputs, *self.outputs))
            open_context, self._keep_kernels = _context_opener(tensorrt, engine, kernels)
            self._calls = [
                opened.enter_context(closing(_Call(open_context, self.inputs, self.outputs, log, records)))
                for _ in range(streams)
            ]
            self._opened = opened.pop_all()
        self._idle = Pool(self._calls)

    @property
    def uses_cuda_graphs(self) -> bool | None:
        """Whether the network is launched as a recorded graph; None before the first call has run."""
        if self._records_itself:
            return True
        refused = [graph is None for call in self._calls for graph in list(call.graphs.values())]
        return not any(refused) if refused else None

    @property
    def description(self) -> str:
        """The arithmetic, the streams, and whether CUDA graphs are used, for reports."""
        words = {True: ", CUDA graphs", False: ", without CUDA graphs", None: ""}
        return f"{super().description}{words[self.uses_cuda_graphs]}"

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        with self._idle.borrow() as call, on_device(self._gpu):
            return call.run(feeds, outputs)

    def close(self) -> None:
        """Wait for the calls in flight, then keep what was compiled, and free all memory."""
        self._idle.close()
        with on_device(self._gpu):
            keep_kernels, self._keep_kernels = self._keep_kernels, _nothing
            keep_kernels()
            self._opened.close()


def _load(tensorrt: TensorRt, bundle: Bundle, plan: bytes, log: MessageLog) -> Any:
    engine = tensorrt.module.Runtime(log.logger).deserialize_cuda_engine(plan)
    if engine is None:
        reasons = log.reasons() or "it gives no reason"
        raise EngineError(f"{tensorrt} cannot load the plan of '{bundle.name}': {reasons}", _BUILD_AGAIN)
    return engine


def _nothing() -> None:
    """There is nothing to keep."""


def _context_opener(
    tensorrt: TensorRt, engine: Any, kernels: Path | None
) -> tuple[Callable[[], Any], Callable[[], None]]:
    """How execution contexts are made, and what keeps the kernels that they share and compile.

    TensorRT for RTX compiles kernels only now, for the GPU that it finds, and records CUDA graphs by itself.
    """
    if tensorrt.flavour == "tensorrt":
        return engine.create_execution_context, _nothing
    trt = tensorrt.module
    config = engine.create_runtime_config()
    # The default goes on with other kernels until those for the shapes are compiled: results would change in
    # their last bits while the program runs.
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    compiled = config.create_runtime_cache()  # so that the second context need not compile them again
    keep_kernels = use_kernels(compiled, kernels)
    config.set_runtime_cache(compiled)
    return functools.partial(engine.create_execution_context, config), keep_kernels


def _check_lengths(engine: Any, bundle: Bundle, axes: Mapping[str, int]) -> None:
    """Check that the plan was built for these lengths of the named axes."""
    known = set(_names(engine))
    for spec in (spec for spec in bundle.inputs if spec.name in known):
        smallest = largest = tuple(engine.get_tensor_shape(spec.name))
        if -1 in smallest:
            smallest, _, largest = engine.get_tensor_profile_shape(spec.name, 0)
        for axis, low, high in zip(spec.shape, smallest, largest, strict=False):
            if isinstance(axis, str) and not low <= axes[axis] <= high:
                built_for = f"{low}" if low == high else f"{low} to {high}"
                raise EngineError(
                    f"The plan of '{bundle.name}' was built for {axis} {built_for}, not {axes[axis]}",
                    f"{_BUILD_AGAIN} with this {axis}.",
                )


def _names(engine: Any) -> list[str]:
    return [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]


def _check_tensors(tensorrt: TensorRt, engine: Any, bundle: Bundle, expected: tuple[TensorSpec, ...]) -> None:
    found = [
        TensorSpec(
            name,
            dtype_name(engine.get_tensor_dtype(name)),
            tuple("?" if axis < 0 else axis for axis in engine.get_tensor_shape(name)),
        )
        for name in _names(engine)
    ]
    mode = tensorrt.module.TensorIOMode.INPUT
    inputs = {name for name in _names(engine) if engine.get_tensor_mode(name) == mode}
    try:
        check_graph(bundle, expected, found)
    except EngineError as error:
        raise EngineError(f"The plan is not of this bundle. {error.problem}", _BUILD_AGAIN) from error
    if inputs != {spec.name for spec in bundle.inputs}:
        raise EngineError(
            f"The plan is not of '{bundle.name}': its inputs are {sorted(inputs)}", _BUILD_AGAIN
        )


class _Call:
    """All that one call in flight needs: context, stream, and memory for every input and output.

    Attributes:
        graphs: by the outputs that a call wanted, what launches such a call; None where none can be recorded.
    """

    def __init__(
        self,
        open_context: Callable[[], Any],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        log: MessageLog,
        records: bool,
    ) -> None:
        self.graphs: dict[frozenset[str], Callable[[], None] | None] = {}
        self._records = records
        self._inputs = [spec.name for spec in inputs]
        self._log = log
        with ExitStack() as opened:
            self._stream = Stream(opened)
            self._pinned = {spec.name: pinned_array(spec, opened) for spec in (*inputs, *outputs)}
            self._device = {name: device_memory(host.nbytes, opened) for name, host in self._pinned.items()}
            self._context = open_context()
            opened.callback(setattr, self, "_context", None)
            if self._context is None:
                raise EngineError(
                    f"TensorRT cannot make an execution context: {log.reasons()}",
                    "If memory ran out, use a smaller batch, or close other programs.",
                )
            self._bind(inputs, outputs)
            self._opened = opened.pop_all()

    def _bind(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Tell the context shapes and addresses, which stay the same for all calls."""
        done = [self._context.set_input_shape(spec.name, spec.shape) for spec in inputs]
        done += [self._context.set_tensor_address(name, place) for name, place in self._device.items()]
        shapes = {spec.name: tuple(self._context.get_tensor_shape(spec.name)) for spec in outputs}
        if not all(done) or shapes != {spec.name: spec.shape for spec in outputs}:
            raise EngineError(f"TensorRT refuses these shapes: {self._log.reasons() or shapes}", _BUILD_AGAIN)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs wanted, as arrays of the caller's own."""
        for name, feed in feeds.items():
            np.copyto(self._pinned[name], feed)
        wanted = frozenset(outputs)
        launch = self.graphs.get(wanted) or functools.partial(self._enqueue, wanted)
        launch()
        self._stream.synchronise()
        if self._records and wanted not in self.graphs:
            # Only now: a context's first run settles what TensorRT puts off until it knows the shapes.
            self.graphs[wanted] = self._record(wanted)
        return {name: self._pinned[name].copy() for name in outputs}

    def _enqueue(self, wanted: frozenset[str]) -> None:
        for name in self._inputs:
            self._stream.copy_in(self._device[name], self._pinned[name])
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"TensorRT failed to run the engine: {self._log.reasons()}")
        for name in sorted(wanted):
            self._stream.copy_out(self._pinned[name], self._device[name])

    def _record(self, wanted: frozenset[str]) -> Callable[[], None] | None:
        """A graph of such a call; None where the network does something that no graph can hold."""
        try:
            return self._stream.capture(functools.partial(self._enqueue, wanted), self._opened)
        except EngineError:
            self._log.clear()  # it is no failure, and must not be told as the reason of one
            return None

    def close(self) -> None:
        """Free graphs, context and memory, in this order."""
        self._opened.close()
