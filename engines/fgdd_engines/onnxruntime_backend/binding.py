"""An engine of ONNX Runtime whose streams have buffers of their own, so that a call allocates nothing."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np

from fgdd_engines.base import Array, Engine
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError, wrapped_as_engine_error
from fgdd_engines.onnxruntime_backend.session import check_session
from fgdd_engines.pool import Pool
from fgdd_engines.shapes import Specs, fix_axes

_log = logging.getLogger(__name__)


class BoundSession:
    """A session whose inputs and outputs (every axis a number) stay at the same places on a device.

    One thread makes every call: ONNX Runtime keeps its CUDA handles, and the CUDA graph that it records in
    the first call, for each thread. Several may share a session, unless it records a CUDA graph.
    """

    def __init__(
        self, runtime: ModuleType, session: Any, inputs: Specs, outputs: Specs, device: tuple[str, int]
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs = {spec.name: _buffer(runtime, spec.shape, spec.dtype, device) for spec in inputs}
        self._outputs = {spec.name: _buffer(runtime, spec.shape, spec.dtype, device) for spec in outputs}
        for name, buffer in self._inputs.items():
            self._binding.bind_ortvalue_input(name, buffer)
        for name, buffer in self._outputs.items():
            self._binding.bind_ortvalue_output(name, buffer)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onnxruntime")

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Copy the feeds to the device, run, and copy these outputs back; one call at a time."""
        return self._thread.submit(self._run, feeds, outputs).result()

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        for name, feed in feeds.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(feed))
        self._session.run_with_iobinding(self._binding)
        return {name: _own(self._outputs[name].numpy()) for name in outputs}

    def close(self) -> None:
        """End the thread, and let go of the session and the buffers."""
        self._thread.shutdown()
        self._binding = self._session = None
        self._inputs, self._outputs = {}, {}


def _buffer(runtime: ModuleType, shape: Sequence[int | str], dtype: str, device: tuple[str, int]) -> Any:
    return runtime.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type, *device)


def _own(array: Array) -> Array:
    """The array, or a copy where it shows the buffer itself, as on a CPU."""
    return array if array.flags.owndata else array.copy()


class BoundEngine(Engine):
    """A bundle's graph in sessions with buffers of their own on a device: `cuda` or `cpu`, and its number.

    Every stream has run once when the engine is there, so that the first call of `run` is as fast as others.
    `opens` opens a session: with True one that records a CUDA graph, with False one that does not. If the
    first is refused, or `graphs` is False, all streams share one of the second.
    """

    def __init__(
        self,
        runtime: ModuleType,
        bundle: Bundle,
        axes: Mapping[str, int],
        opens: Callable[[bool], Any],
        *,
        device: tuple[str, int],
        streams: int,
        arithmetic: str,
        graphs: bool = True,
    ) -> None:
        self.inputs, self.outputs = fix_axes(bundle, axes)
        self.streams = streams
        self.arithmetic = arithmetic
        self._problem = f"ONNX Runtime cannot run '{bundle.name}'"
        sessions = None
        try:
            if graphs:
                sessions = self._bind(runtime, bundle, device, (opens(True) for _ in range(streams)))
        except EngineError as error:  # no graph of this model, or no memory for a session in each stream
            _log.info("%s runs without a CUDA graph: %s", bundle.name, error.problem)
        # By now the error is gone, and with it what its traceback held: the sessions that failed.
        self._records = sessions is not None
        if sessions is None:
            sessions = self._bind(runtime, bundle, device, itertools.repeat(opens(False), streams))
        self._sessions = sessions
        self._idle = Pool(sessions)

    @property
    def uses_cuda_graphs(self) -> bool:
        """See `Engine.uses_cuda_graphs`."""
        return self._records

    def _bind(
        self, runtime: ModuleType, bundle: Bundle, device: tuple[str, int], sessions: Iterable[Any]
    ) -> list[BoundSession]:
        """Give each stream its buffers, and run it once."""
        zeros: dict[str, Array] = {
            spec.name: np.zeros([int(axis) for axis in spec.shape], spec.dtype) for spec in self.inputs
        }
        bound: list[BoundSession] = []
        try:
            for session in sessions:
                check_session(bundle, self.inputs, self.outputs, session)
                with wrapped_as_engine_error(self._problem):
                    bound.append(BoundSession(runtime, session, self.inputs, self.outputs, device))
                    bound[-1].run(zeros, [])
        except BaseException:
            for one in bound:
                one.close()
            raise
        return bound

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        with self._idle.borrow() as session, wrapped_as_engine_error(self._problem):
            return session.run(feeds, outputs)

    def close(self) -> None:
        """Wait for the calls in flight, then free the sessions and the buffers."""
        self._idle.close()
        for session in self._sessions:
            session.close()
