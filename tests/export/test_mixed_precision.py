"""Graphs in mixed precision: what is lowered, what stays in fp32, and what the lowered graph gives."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from saliency_source import saliency_source
from tiny_architectures import (
    TYPES,
    check_wellformed,
    convolutional,
    operators_of,
    parse_lowered,
    transformer,
    upscaling,
)

from fgdd_engines.base import TensorSpec
from fgdd_export.catalogue.u2netp import build_u2netp
from fgdd_export.graphs.graph import GraphBuilder, load_model, run_model, serialise
from fgdd_export.graphs.parity import drawn_images
from fgdd_export.precision.graph import LowPrecision
from fgdd_export.precision.mixed_precision import emulate, lower_precision
from fgdd_export.precision.sensitive_nodes import find_sensitive
from fgdd_fast.errors import BundleError

both = pytest.mark.parametrize("precision", ["fp16", "bf16"])


@pytest.fixture(scope="module")
def saliency() -> onnx.ModelProto:
    return build_u2netp(saliency_source(), 64)


@pytest.fixture(scope="module")
def classifier() -> onnx.ModelProto:
    return convolutional(np.random.default_rng(0))


@both
@pytest.mark.parametrize("network", ["saliency", "classifier"])
def test_convolutional_networks_are_low_between_first_and_last_product(
    network: str, precision: LowPrecision, request: pytest.FixtureRequest
) -> None:
    model: onnx.ModelProto = request.getfixturevalue(network)
    lowered = lower_precision(model, precision)
    check_wellformed(model, lowered.model, precision)
    names = operators_of(model)
    kept = Counter(names[name] for name in lowered.kept)
    convolutions = sum(operator == "Conv" for operator in names.values())
    assert kept["Conv"] == (1 if network == "saliency" else 0)  # the one whose result is compared with 0.5
    assert Counter(names[name] for name in lowered.lowered)["Conv"] == convolutions - kept["Conv"]
    assert kept.keys() >= {"Cast", "Transpose", "Div", "ReduceMean"}
    assert not lowered.kept.keys() & set(lowered.lowered)
    added = len(lowered.model.graph.node) - len(model.graph.node)
    assert added == (2 if network == "saliency" else 3)  # one conversion into low precision, the others out


@both
def test_weights_are_stored_once_as_they_are_read(
    classifier: onnx.ModelProto, precision: LowPrecision
) -> None:
    lowered = lower_precision(classifier, precision).model
    kinds = {constant.name: constant.data_type for constant in lowered.graph.initializer}
    for node in lowered.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            assert kinds[node.input[1]] == (TYPES[precision] if node.op_type == "Conv" else TensorProto.FLOAT)
    shapes = sorted(tuple(one.dims) for one in lowered.graph.initializer if len(one.dims) > 1)
    assert shapes == sorted(tuple(one.dims) for one in classifier.graph.initializer if len(one.dims) > 1)


@both
def test_what_needs_fp32_keeps_it(precision: LowPrecision) -> None:
    model = transformer(np.random.default_rng(0))
    lowered = lower_precision(model, precision)
    check_wellformed(model, lowered.model, precision)
    names = operators_of(model)
    kept = Counter(names[name] for name in lowered.kept)
    assert kept["LayerNormalization"] == 3
    assert kept["Softmax"] == 1
    assert kept["MatMul"] == 1  # the head
    assert kept["Add"] == 5  # the mask, and the residual stream with what is added to it
    assert kept["Sub"] == kept["Mul"] == 1  # the mask, with a constant that fp16 does not hold
    assert Counter(names[name] for name in lowered.lowered) == {
        "MatMul": 8,
        "Add": 5,
        "Div": 1,
        "Mul": 2,
        "Erf": 1,
    }


def test_a_constant_that_fp16_cannot_hold_stays_in_fp32() -> None:
    """Beside a product, where nothing else would keep it."""

    def graph(operator: str, constant: float) -> onnx.ModelProto:
        builder = GraphBuilder()
        first = builder.node("MatMul", "x", builder.constant(np.eye(4)))
        middle = builder.node(operator, first, builder.constant(constant))
        builder.node("MatMul", builder.node("MatMul", middle, builder.constant(np.eye(4))), "x", output="y")
        square = [TensorSpec(name, "float32", (4, 4)) for name in "xy"]
        return builder.model("one", square[:1], square[1:])

    held = (("Add", -1e4), ("Add", 0.0), ("Add", -np.inf), ("Mul", 65504.0))
    lost = (("Add", 1e9), ("Max", 1e-12))
    for operator, constant in (*held, *lost):
        model = graph(operator, constant)
        middle = model.graph.node[1].name
        assert (middle in lower_precision(model, "fp16").kept) == ((operator, constant) in lost)
        assert middle not in lower_precision(model, "bf16").kept


@both
def test_named_nodes_stay_in_fp32(saliency: onnx.ModelProto, precision: LowPrecision) -> None:
    everything = lower_precision(saliency, precision)
    keep = everything.lowered[10:14]
    lowered = lower_precision(saliency, precision, keep)
    check_wellformed(saliency, lowered.model, precision)
    assert {name for name, why in lowered.kept.items() if why == "named by the caller"} == set(keep)
    assert set(lowered.lowered).isdisjoint(keep)
    assert set(lowered.lowered) <= set(everything.lowered)
    nothing = lower_precision(saliency, precision, everything.lowered)
    assert nothing.lowered == ()
    images = {"images": drawn_images(64, 64)}
    expected, found = run_model(serialise(saliency), images), run_model(serialise(nothing.model), images)
    np.testing.assert_array_equal(found["mask"], expected["mask"])


def test_nodes_without_a_name_are_known_by_their_output(classifier: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(classifier)
    outputs = {node.op_type: node.output[0] for node in model.graph.node}
    for node in model.graph.node:
        node.name = ""
    lowered = lower_precision(model, "fp16")
    assert outputs["Conv"] in lowered.lowered
    assert outputs["ReduceMean"] in lowered.kept
    assert lower_precision(model, "fp16", [outputs["Add"]]).kept[outputs["Add"]] == "named by the caller"


def test_bfloat16_raises_the_opset_where_there_are_convolutions(
    classifier: onnx.ModelProto, saliency: onnx.ModelProto
) -> None:
    for model in (classifier, saliency):
        assert [entry.version for entry in lower_precision(model, "bf16").model.opset_import] == [22]
        assert [entry.version for entry in lower_precision(model, "fp16").model.opset_import] == [17]
    lowered = lower_precision(transformer(np.random.default_rng(0)), "bf16").model
    assert [entry.version for entry in lowered.opset_import] == [17]  # nothing asks for more


def test_other_graphs_are_refused(classifier: onnx.ModelProto) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(classifier)
    broken.graph.node[3].input[0] = "nothing"
    with pytest.raises(BundleError, match="not valid"):
        lower_precision(broken, "fp16")
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        branching (float[1] x, bool c) => (float[1] y) {
            y = If (c) <
                then_branch = yes () => (float[1] a) { a = Identity (x) },
                else_branch = no () => (float[1] b) { b = Identity (x) }
            >
        }
    """)
    with pytest.raises(BundleError, match=r"'branching' has control flow \(If\)"):
        lower_precision(model, "fp16")


def test_onnxruntime_runs_the_lowered_graph(saliency: onnx.ModelProto) -> None:
    images = {"images": drawn_images(64, 64)}
    expected = run_model(serialise(saliency), images)
    for model in (lower_precision(saliency, "fp16").model, emulate(saliency, "fp16")):
        found = run_model(serialise(model), images)
        assert 0 < np.abs(found["mask"].astype(int) - expected["mask"]).mean() < 0.5
        np.testing.assert_allclose(found["occupancy"], expected["occupancy"], atol=0.005)


@both
@pytest.mark.parametrize("network", ["saliency", "classifier", "upscaling", "transformer"])
def test_tensorrt_takes_the_types_as_they_are(
    network: str, precision: LowPrecision, request: pytest.FixtureRequest
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    if network in ("transformer", "upscaling"):
        model = {"transformer": transformer, "upscaling": upscaling}[network](np.random.default_rng(0))
    else:
        model = request.getfixturevalue(network)
    builder, definition, _parser = parse_lowered(trt, model, precision)
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    for tensor in map(definition.get_input, range(definition.num_inputs)):
        profile.set_shape(tensor.name, *((batch, *tensor.shape[1:]) for batch in (1, 2, 4)))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(definition, config) is not None


# Emulation: what a graph gives in low precision, computed in fp32


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
    low = np.asarray(reference, np.float32)
    apart, harm = (float(np.abs(each - low).mean()) for each in (emulated, expected))
    assert harm > 1e-4
    assert apart < harm / 3
    assert np.abs(expected - emulated).mean() == pytest.approx(harm, rel=0.3)


# Nodes without which a graph decides otherwise


quick = settings(max_examples=60, deadline=None)


def names(count: int) -> list[str]:
    return [f"node {index}" for index in range(count)]


@st.composite
def sensitive_sets(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    candidates = names(draw(st.integers(1, 300)))
    sensitive = draw(st.sets(st.sampled_from(candidates), min_size=1, max_size=4))
    return candidates, [name for name in candidates if name in sensitive]


@quick
@given(sensitive_sets(), st.sampled_from([math.inf, math.nan, 10.0]))
def test_sensitive_nodes_are_found_exactly(sets: tuple[list[str], list[str]], harm: float) -> None:
    candidates, sensitive = sets
    found = find_sensitive(candidates, lambda kept: 0.0 if set(sensitive) <= set(kept) else harm, bar=1.0)
    assert list(found.nodes) == sensitive
    assert found.error == 0
    halvings = math.ceil(math.log2(len(candidates))) if len(candidates) > 1 else 0
    assert found.evaluations <= 2 + 2 * halvings * len(sensitive)


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.9))
def test_where_errors_add_up_no_node_is_kept_in_vain(harms: list[float], share: float) -> None:
    harm_of = dict(zip(names(len(harms)), harms, strict=True))

    def error(kept: Collection[str]) -> float:
        return math.fsum(harm for name, harm in harm_of.items() if name not in kept)

    bar = share * sum(harms)
    found = find_sensitive(list(harm_of), error, bar, evaluations=10_000)
    assert found.error == error(found.nodes) <= bar
    for name in found.nodes:
        assert error([other for other in found.nodes if other != name]) > bar


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(2, 20))
def test_evaluations_are_bounded_and_the_bar_is_held(harms: list[float], limit: int) -> None:
    candidates, calls = names(len(harms)), 0
    harm_of = dict(zip(candidates, harms, strict=True))

    def error(kept: Collection[str]) -> float:
        nonlocal calls
        calls += 1
        return sum(harm for name, harm in harm_of.items() if name not in kept)

    found = find_sensitive(candidates, error, bar=sum(harms) / 3, evaluations=limit)
    assert calls == found.evaluations <= limit
    assert found.error <= sum(harms) / 3
    again = find_sensitive(candidates, error, bar=sum(harms) / 3, evaluations=limit)
    assert again == found


def test_nothing_is_kept_where_the_bar_is_passed() -> None:
    found = find_sensitive(names(5), lambda kept: 0.5, bar=0.5)
    assert (found.nodes, found.error, found.evaluations) == ((), 0.5, 1)


@pytest.mark.parametrize("candidates", [names(5), []])
def test_a_bar_out_of_reach_is_told(candidates: list[str]) -> None:
    with pytest.raises(BundleError, match=r"the error is 2, and at most 0\.5 will do"):
        find_sensitive(candidates, lambda kept: 2.0, bar=0.5)
