"""The one interface behind which every runtime runs an ONNX model."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.errors import EngineError

Array = NDArray[Any]
Precision = Literal["auto", "fp32", "tf32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Device = (
    str  # the name of a backend, or of one on a numbered GPU such as `cuda:1`: see `fgdd_engines.backends`
)


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output.

    Attributes:
        name: the tensor's name in the ONNX graph.
        dtype: NumPy's name of its type, such as `uint8`.
        shape: its axes; a fixed length, or the name of an axis whose length is chosen when an engine opens.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Engine(abc.ABC):
    """An ONNX model, loaded by one runtime for fixed input shapes.

    `run` may be called from several threads at once; more than `streams` calls in flight gain nothing.
    Each stream works with one thread of its own, so a result does not depend on the number of threads.

    Attributes:
        inputs: the inputs, every axis a number.
        outputs: the outputs, every axis a number.
        streams: how many calls of `run` are worth having in flight.
        arithmetic: runtime, version, device and precision: all of an engine on which results depend.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    streams: int
    arithmetic: str

    @property
    def uses_cuda_graphs(self) -> bool | None:
        """Whether calls are launched as a recorded CUDA graph; None where none is, or that is unknown."""
        return None

    @property
    def description(self) -> str:
        """The arithmetic and the streams, for reports."""
        return f"{self.arithmetic}, {self.streams} {'stream' if self.streams == 1 else 'streams'}"

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run the model once.

        Args:
            feeds: an array for each input, of exactly its dtype and shape.
            outputs: names of the outputs wanted; all of them when None.

        Returns:
            The outputs wanted, by name; the arrays are the caller's own.

        Raises:
            EngineError: a feed is missing, unknown, or of another dtype or shape; or the runtime failed.
        """
        wanted = [spec.name for spec in self.outputs] if outputs is None else list(outputs)
        self._check(feeds, wanted)
        return self._run(feeds, wanted)

    @abc.abstractmethod
    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run with feeds and output names that have been checked."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free the runtime's memory; the engine cannot run afterwards. Closing twice is harmless."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> None:
        names = [spec.name for spec in self.inputs]
        if feeds.keys() != set(names):
            raise EngineError(f"The model takes the inputs {names}, but got {sorted(feeds)}")
        for spec in self.inputs:
            feed = feeds[spec.name]
            if feed.dtype != np.dtype(spec.dtype) or feed.shape != spec.shape:
                raise EngineError(
                    f"Input '{spec.name}' takes {spec.dtype} {list(spec.shape)}, "
                    f"but got {feed.dtype} {list(feed.shape)}"
                )
        known = [spec.name for spec in self.outputs]
        if unknown := set(outputs).difference(known):
            raise EngineError(f"The model has no output {sorted(unknown)}", f"It has {known}")
