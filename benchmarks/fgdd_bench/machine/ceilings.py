"""What a core of this machine can do at the most, measured: the limits that stages are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fgdd_bench.harness.implementation import Answer
from fgdd_engines.optional_imports import import_optional, openvino_core
from fgdd_fast.errors import FgddError

TRIALS = 5
SIDE = 1024  # of the matrices that a core multiplies
METHOD = (
    "Of a core, by its own time, which other programs disturb less than the clock: the best of "
    f"{TRIALS} products of two {SIDE} x {SIDE} matrices in OpenVINO, and of as many passes of OpenCV's "
    "imdecode over the images, in memory."
)
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}  # by their names in OpenVINO


def opencv_decode_rate(files: Sequence[Path]) -> float:
    """Return the images that OpenCV decodes in a second of one core, in memory: the best of some passes.

    Args:
        files: images, at least one.
    """
    contents = [np.fromfile(file, np.uint8) for file in files]
    return len(contents) / _best(lambda: list(map(_decode, contents)))


def opencv_decoding(files: Sequence[Path], threads: int) -> Callable[[], Answer]:
    """Return a run of OpenCV's decoding alone, in memory, on all threads: the limit of whatever decodes."""
    contents = [np.fromfile(file, np.uint8) for file in files]

    def run() -> Answer:
        with ThreadPoolExecutor(threads) as executor:
            for _ in executor.map(_decode, contents):
                pass
        return {}

    return run


def _decode(content: Any) -> object:
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def multiply_add_rates() -> dict[str, float]:
    """Return the multiply-adds a second of one core, by precision; none where OpenVINO is not installed.

    Those in which it does not compute are left out.
    """
    try:
        openvino = import_optional("openvino", "cpu")
    except FgddError:
        return {}
    native = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {
        precision: _rate(openvino, precision) for precision, name in _CAPABILITIES.items() if name in native
    }


def _rate(openvino: Any, precision: str) -> float:
    hint = {"bf16": "bf16", "fp16": "f16"}.get(precision, "f32")
    settings = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    model = _product(openvino, quantised=precision == "int8")
    request = openvino_core().compile_model(model, "CPU", settings).create_infer_request()
    values = np.random.default_rng(0).uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
    return float(SIDE**3) / _best(lambda: request.infer([values], share_inputs=True))


def _product(openvino: Any, *, quantised: bool) -> Any:
    """Return a matrix product with constant weights; both of few levels, which OpenVINO computes in int8."""
    ops = openvino.opset13
    weights = np.random.default_rng(1).uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
    given = ops.parameter([SIDE, SIDE], np.float32)
    factors = [given, ops.constant(weights)]
    if quantised:
        low, high = ops.constant(np.float32(-1)), ops.constant(np.float32(1))
        levels = (256, 255)  # of what comes in, unsigned or signed, and of weights, which are symmetric
        pairs = zip(factors, levels, strict=True)
        factors = [ops.fake_quantize(factor, low, high, low, high, count) for factor, count in pairs]
    return openvino.Model([ops.matmul(*factors, False, False)], [given])


def _best(run: Callable[[], object]) -> float:
    """Return the processor seconds of the fastest of some runs, after one that warms up."""
    run()
    seconds = []
    for _ in range(TRIALS):
        begin = time.process_time()
        run()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def precisions_of(arithmetic: str) -> tuple[str, ...]:
    """Return the precisions that a description of what runs names, in its order."""
    words = arithmetic.replace(",", " ").replace("+", " ").split()
    return tuple(dict.fromkeys(word for word in words if word in _CAPABILITIES))


def multiplying(precisions: Iterable[str]) -> str | None:
    """Return the precision in which products are computed, of those that a description names.

    Where one is named beside fp32, as in `int8 and fp32`, it is that one; None where none or several are.
    """
    lower = [precision for precision in precisions if precision != "fp32"] or list(precisions)
    return lower[0] if len(lower) == 1 else None
