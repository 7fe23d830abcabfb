"""The null device: it takes copies of what it is fed, waits so long as was asked for, and answers by rote.

It is used as a GPU is: large batches, two calls in flight, of which one at a time computes. What it answers
depends on no input, so nothing but speed can be learned with it, and only benchmarks open it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Lock

import numpy as np

from fgdd_engines.backends import Backend
from fgdd_engines.base import Array, Engine, Precision, TensorSpec
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.pool import Pool
from fgdd_engines.shapes import fix_axes, fixed_shape

_STREAMS = 2
_computing = Lock()  # there is one such device, whatever engines are open


class NullEngine(Engine):
    """A bundle of which only the declared tensors matter; its graph is not read.

    Args:
        bundle: says which tensors are taken and given.
        axes: the length of each named axis of the inputs.
        threads, precision: of no effect.
        milliseconds: that an inference takes, from 0.
    """

    def __init__(
        self,
        bundle: Bundle,
        axes: Mapping[str, int],
        threads: int,  # noqa: ARG002 - fixed by the interface
        precision: Precision = "auto",  # noqa: ARG002
        *,
        milliseconds: int = 0,
    ) -> None:
        self.inputs, self.outputs = fix_axes(bundle, axes)
        self.streams = _STREAMS
        self.arithmetic = f"the null device, which computes nothing, {milliseconds} ms an inference"
        self._seconds = milliseconds / 1000
        self._answers = {spec.name: _answer(spec) for spec in self.outputs}
        # What a GPU's driver reads and writes: memory of its own for each call in flight.
        self._slots = Pool(
            [
                {spec.name: np.zeros(fixed_shape(spec, axes), spec.dtype) for spec in self.inputs}
                for _ in range(_STREAMS)
            ]
        )

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        with self._slots.borrow() as slot:
            for name, feed in feeds.items():
                np.copyto(slot[name], feed)
            if self._seconds:
                with _computing:
                    time.sleep(self._seconds)
            return {name: self._answers[name].copy() for name in outputs}

    def close(self) -> None:
        """Wait for the calls in flight, and free the memory."""
        self._slots.close()


def _answer(spec: TensorSpec) -> Array:
    """The same for each sample: a disc in a mask, one half for a single number, else a ramp from 0 to 1."""
    batch, *shape = (int(length) for length in spec.shape)
    dtype = np.dtype(spec.dtype)
    if dtype == np.uint8 and len(shape) == 2:
        rows, columns = (np.linspace(-1, 1, length) for length in shape)
        sample = np.where(np.hypot(rows[:, None], columns) < 0.8, 255, 0)
    elif np.prod(shape) == 1:
        sample = np.full(shape, 0.5)
    else:
        sample = np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    return np.repeat(sample.astype(dtype)[None], batch, axis=0)


def null_backend(milliseconds: int) -> Backend:
    """Return the null device whose inferences take so long, from 0; `null:5` names that of 5 ms."""
    return Backend(
        open=partial(NullEngine, milliseconds=milliseconds),
        probe=lambda: f"the null device, {milliseconds} ms an inference",
        on_processor=False,
        only_copies=True,
        on_gpu=null_backend,
    )


NULL = null_backend(0)
