"""What this machine can do at the most, measured: the limits that stages are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fgdd_bench.harness.implementation import Answer
from fgdd_bench.machine.operations import Work
from fgdd_engines.optional_imports import import_optional, openvino_core
from fgdd_fast.errors import FgddError

TRIALS = 5
SIDE = 1024  # of the matrices that a processor core multiplies
DEVICE_SIDE = 8192  # and a GPU
COPIED = 1 << 28  # bytes: more than any cache holds
METHOD = (
    "Of a core, by its own time, which other programs disturb less than the clock: the best of "
    f"{TRIALS} products of two {SIDE} x {SIDE} matrices in OpenVINO; of as many passes of OpenCV's imdecode "
    f"over the images, in memory; and of copies of {COPIED >> 20} MiB, bytes read and written. Of a GPU, by "
    f"the clock: the best of {TRIALS} products of two {DEVICE_SIDE} x {DEVICE_SIDE} matrices in PyTorch, and "
    "of copies of as much memory within the device."
)


@dataclass(frozen=True)
class Ceilings:
    """The most that a processor core, or a GPU, was seen to do.

    Attributes:
        multiply_adds: a second, by precision; without those in which it does not compute.
        bytes: a second, that a copy in memory reads and writes.
    """

    multiply_adds: Mapping[str, float] = field(default_factory=dict)
    bytes: float = 0.0

    def samples_per_second(self, work: Work, precision: str, batch: int | None = None) -> float | None:
        """Return how often a graph could be run at the most; None for a precision that was not measured.

        Args:
            work: what it does for a sample.
            precision: in which it multiplies.
            batch: samples that share one reading of the weights; None leaves memory out, for a processor,
                whose caches hold much of it.
        """
        if precision not in self.multiply_adds:
            return None
        seconds = work.multiply_adds / self.multiply_adds[precision]
        if batch is not None:
            size = {"fp32": 4, "int8": 1}.get(precision, 2)
            seconds = max(seconds, size * (work.values + work.weights / batch) / self.bytes)
        return 1 / seconds if seconds else None


def opencv_decode_rate(files: Sequence[Path]) -> float:
    """Return the images that OpenCV decodes in a second of one core, in memory: the best of some passes.

    Args:
        files: images, at least one.
    """
    contents = [np.fromfile(file, np.uint8) for file in files]

    def run() -> None:
        for content in contents:
            cv2.imdecode(content, cv2.IMREAD_COLOR)

    return len(contents) / _best(run, time.process_time)


def opencv_decoding(files: Sequence[Path], threads: int) -> Callable[[], Answer]:
    """Return a run of OpenCV's decoding alone, in memory, on all threads: the limit of whatever decodes."""
    contents = [np.fromfile(file, np.uint8) for file in files]

    def run() -> Answer:
        with ThreadPoolExecutor(threads) as executor:
            for _ in executor.map(lambda content: cv2.imdecode(content, cv2.IMREAD_COLOR), contents):
                pass
        return {}

    return run


def processor_ceilings() -> Ceilings:
    """Return those of one core; without arithmetic where OpenVINO is not installed."""
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    bandwidth = 2 * COPIED / _best(lambda: np.copyto(target, source), time.process_time)
    try:
        openvino = import_optional("openvino", "cpu")
    except FgddError:
        return Ceilings({}, bandwidth)
    native = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    capabilities = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
    precisions = [precision for precision, name in capabilities.items() if name in native]
    return Ceilings({name: _processor_rate(openvino, name) for name in precisions}, bandwidth)


def _processor_rate(openvino: Any, precision: str) -> float:
    """Return the multiply-adds a second of one core."""
    hint = {"bf16": "bf16", "fp16": "f16"}.get(precision, "f32")
    settings = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    model = _product(openvino, quantised=precision == "int8")
    compiled = openvino_core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    values = np.random.default_rng(0).uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
    return float(SIDE**3) / _best(lambda: request.infer([values], share_inputs=True), time.process_time)


def _product(openvino: Any, *, quantised: bool) -> Any:
    """Return a matrix product with constant weights; both of few levels, which OpenVINO computes in int8."""
    ops = openvino.opset13
    weights = np.random.default_rng(1).uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
    given = ops.parameter([SIDE, SIDE], np.float32)
    factors = [given, ops.constant(weights)]
    if quantised:
        low, high = ops.constant(np.float32(-1)), ops.constant(np.float32(1))
        levels = (256, 255)  # of what comes in, unsigned or signed, and of weights, which are symmetric
        factors = [
            ops.fake_quantize(factor, low, high, low, high, count)
            for factor, count in zip(factors, levels, strict=True)
        ]
    return openvino.Model([ops.matmul(*factors, False, False)], [given])


def device_ceilings() -> Ceilings:
    """Return those of the first GPU, by PyTorch."""
    torch = import_optional("torch", "bench")
    types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    rates = {precision: _device_rate(torch, dtype) for precision, dtype in types.items()}
    source = torch.ones(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = _synchronised(torch, lambda: target.copy_(source))
    return Ceilings(rates, 2 * COPIED / _best(copy, time.perf_counter))


def _device_rate(torch: Any, dtype: Any) -> float:
    """Return the multiply-adds a second of the GPU."""
    one, other = (torch.ones(DEVICE_SIDE, DEVICE_SIDE, dtype=dtype, device="cuda") for _ in range(2))
    return float(DEVICE_SIDE**3) / _best(_synchronised(torch, lambda: one @ other), time.perf_counter)


def _synchronised(torch: Any, run: Callable[[], object]) -> Callable[[], None]:
    def whole() -> None:
        run()
        torch.cuda.synchronize()

    return whole


def _best(run: Callable[[], object], now: Callable[[], float]) -> float:
    """Return the seconds of the fastest of some runs, after one that warms up, by a clock."""
    run()
    return min(_seconds(run, now) for _ in range(TRIALS))


def _seconds(run: Callable[[], object], now: Callable[[], float]) -> float:
    begin = now()
    run()
    return now() - begin


def precisions_of(arithmetic: str) -> tuple[str, ...]:
    """Return the precisions that a description of what runs names, in its order."""
    words = arithmetic.replace(",", " ").replace("+", " ").split()
    return tuple(dict.fromkeys(word for word in words if word in ("fp32", "bf16", "fp16", "int8")))


def multiplying(precisions: Iterable[str]) -> str | None:
    """Return the precision in which products are computed, of those that a description names.

    Where one is named beside fp32, as in `int8 and fp32`, it is that one; None where none or several are.
    """
    lower = [precision for precision in precisions if precision != "fp32"] or list(precisions)
    return lower[0] if len(lower) == 1 else None
