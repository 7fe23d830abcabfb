"""Precision emulation: what a graph gives in low precision, computed in fp32."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tiny_architectures import transformer

from fgdd_engines.base import TensorSpec
from fgdd_export.graphs.graph import GraphBuilder, load_model, run_model, serialise
from fgdd_export.precision.graph import LowPrecision
from fgdd_export.precision.mixed_precision import emulate, lower_precision

both = pytest.mark.parametrize("precision", ["fp16", "bf16"])
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def rounding_model() -> onnx.ModelProto:
    """Multiplies by 1, which must be low, and again, which is the end and so in fp32."""
    builder = GraphBuilder()
    once = builder.node("MatMul", "x", builder.constant([[1.0]]))
    builder.node("MatMul", once, builder.constant([[1.0]]), output="y")
    shape: tuple[int | str, ...] = ("batch", 1)
    return builder.model("identity", [TensorSpec("x", "float32", shape)], [TensorSpec("y", "float32", shape)])


@functools.cache
def rounding(precision: LowPrecision) -> Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    return load_model(serialise(emulate(rounding_model(), precision)))


finite = st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False)


@both
@settings(deadline=None)
@given(values=st.lists(finite, min_size=1, max_size=20))
def test_an_emulation_rounds_as_the_format_does(precision: LowPrecision, values: list[float]) -> None:
    x = np.array(values, np.float32)[:, None]
    kind = numpy_helper.to_array(helper.make_tensor("one", TYPES[precision], [1], [1.0])).dtype
    with np.errstate(over="ignore"):
        expected = x.astype(kind).astype(np.float32)
    np.testing.assert_array_equal(rounding(precision)({"x": x})["y"], expected)


def errors(expected: NDArray[Any], found: NDArray[Any], reference: NDArray[Any]) -> tuple[float, float]:
    """Mean distance of a emulation from what it emulates, and of that from fp32."""
    return float(np.abs(found - reference).mean()), float(np.abs(expected - reference).mean())


@both
def test_an_emulation_computes_what_the_lowered_graph_does(precision: LowPrecision) -> None:
    """By ONNX's own reference implementation, which rounds after each operator."""
    rng = np.random.default_rng(3)
    model = transformer(rng)
    mask = (rng.random((4, 1, 6)) < 0.7).astype(np.float32)
    mask[..., 0] = 1
    feeds = {"tokens": rng.normal(size=(4, 6, 16)).astype(np.float32), "mask": mask}
    expected = run_model(serialise(model), feeds)["scores"]
    (reference,) = ReferenceEvaluator(lower_precision(model, precision).model).run(None, feeds)
    emulated = run_model(serialise(emulate(model, precision)), feeds)["scores"]
    apart, harm = errors(expected, emulated, np.asarray(reference, np.float32))
    assert harm > 1e-4
    assert apart < harm / 3
    assert np.abs(expected - emulated).mean() == pytest.approx(harm, rel=0.3)
