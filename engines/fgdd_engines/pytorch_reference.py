"""PyTorch behind the interface of all engines: what benchmarks compare with, and a reference for parity."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fgdd_engines.base import Array, Engine, TensorSpec
from fgdd_engines.errors import EngineError
from fgdd_engines.failures import wrapped_as_engine_error
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.pool import Pool
from fgdd_engines.shapes import Specs, fix_axes

_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class _Declaration:
    """As much of a bundle as settling its axes takes."""

    name: str
    inputs: Specs
    outputs: Specs


class PyTorchEngine(Engine):
    """A PyTorch module, run in inference mode; one call at a time, in a thread of its own.

    Args:
        network: a `torch.nn.Module` in evaluation mode. It takes and returns the tensors declared, in this
            order, all by position, and with one output returns that tensor itself. It is moved to the device
            and laid out in place.
        inputs, outputs: the tensors of the network; named axes are those of `axes`.
        axes: a length for each named axis of the inputs.
        device: `cpu`, or `cuda` for the first GPU.
        precision: of matrix products and convolutions; below fp32 PyTorch's autocast chooses, operator by
            operator, what is safe to compute in it. The outputs keep their declared dtypes. In fp32 nothing
            is rounded to TF32.
        channels_last: whether weights of convolutions are laid out for channels that come last.
        compile: whether `torch.compile` makes kernels of the network, with its weights as constants; that
            takes up to minutes, in the first call of `run`.
        threads: processor threads that one call uses. PyTorch has one such setting for the whole process.

    Raises:
        EngineError: the axes are not the inputs' axes, the network is in training mode, or there is no GPU.
        MissingExtraError: PyTorch is not installed.
    """

    def __init__(
        self,
        network: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        axes: Mapping[str, int],
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        channels_last: bool = False,
        compile: bool = False,
        threads: int = 1,
    ) -> None:
        self._torch: Any = import_optional("torch", "export")
        self._name = type(network).__name__
        declared: Any = _Declaration(self._name, tuple(inputs), tuple(outputs))
        self.inputs, self.outputs = fix_axes(declared, axes)
        self.streams = 1
        if network.training:
            raise EngineError(f"The network '{self._name}' is in training mode", "Call eval() on it first.")
        if device == "cuda" and not self._torch.cuda.is_available():
            raise EngineError("PyTorch finds no GPU that it can use", "Run: fgdd-fast doctor")
        with wrapped_as_engine_error(f"PyTorch cannot load '{self._name}'"):
            network = network.to(device)
            if channels_last:
                network = network.to(memory_format=self._torch.channels_last)
            if compile:
                network = self._torch.compile(network, dynamic=False, options={"freezing": True})
        self._network = network
        self._device, self._precision = device, precision
        self._thread = ThreadPoolExecutor(1, "pytorch", self._torch.set_num_threads, (threads,))
        self._idle = Pool([self._thread])
        place = self._torch.cuda.get_device_name() if device == "cuda" else "CPU"
        ways = [*["channels last"] * channels_last, *["compiled"] * compile]
        self.arithmetic = ", ".join((f"PyTorch {self._torch.__version__}", place, precision, *ways))

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        with self._idle.borrow() as thread, wrapped_as_engine_error(f"PyTorch cannot run '{self._name}'"):
            return thread.submit(self._compute, feeds, outputs).result()

    def _compute(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        torch = self._torch
        with torch.inference_mode(), self._arithmetic_settings():
            tensors = [torch.from_numpy(np.array(feeds[spec.name])).to(self._device) for spec in self.inputs]
            given = self._network(*tensors)
            results = (given,) if len(self.outputs) == 1 else tuple(given)
            if len(results) != len(self.outputs):
                raise EngineError(
                    f"The network '{self._name}' gave {len(results)} outputs, not {len(self.outputs)}"
                )
            by_name = {
                spec.name: self._to_numpy(spec, result)
                for spec, result in zip(self.outputs, results, strict=True)
                if spec.name in outputs
            }
        if self._device == "cuda":
            torch.cuda.synchronize()
        return {name: by_name[name] for name in outputs}

    def _arithmetic_settings(self) -> contextlib.ExitStack:
        """Contexts of the precision that was asked for."""
        torch, stack = self._torch, contextlib.ExitStack()
        if self._precision in _DTYPES:
            dtype = getattr(torch, _DTYPES[self._precision])
            stack.enter_context(torch.autocast(self._device, dtype=dtype))
        if self._device == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        return stack

    def _to_numpy(self, spec: TensorSpec, result: Any) -> Array:
        """An output as an array of the declared dtype that shares no memory with the network."""
        if tuple(result.shape) != spec.shape:
            raise EngineError(
                f"Output '{spec.name}' of '{self._name}' should be {list(spec.shape)}, "
                f"but the network gave {list(result.shape)}"
            )
        array: Array = result.to(getattr(self._torch, spec.dtype)).cpu().numpy().copy()
        return array

    def close(self) -> None:
        """Wait for the call in flight, then end the thread and let go of the network."""
        self._idle.close()
        self._thread.shutdown()
        self._network = None
