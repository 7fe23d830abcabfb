"""Graphs in int8: what is quantised and what is not, that it is right, and what every runtime needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_u_shape import CHANNELS, CONNECTING, SIDE, WEIGHTED, u_shape

from fgdd_engines.base import Array, TensorSpec
from fgdd_export.graphs.graph import GraphBuilder, run_model, serialise, tensor_specs
from fgdd_export.precision.quantisation import (
    FORMS,
    MIN_DECIBELS,
    Calibration,
    Form,
    Quantised,
    calibrate,
    quantise_calibrated,
)
from fgdd_export.precision.quantisation_nodes import measure_harm
from fgdd_fast.errors import BundleError, SettingsError

OFFSET = 3000.0  # of a channel whose other values int8 then cannot tell apart


def samples(count: int = 8, seed: int = 0) -> list[dict[str, Array]]:
    """Smooth pictures: noise, enlarged."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    fine = coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)
    return [{"images": image[None]} for image in fine]


@cache
def calibrated(offset: float = 0.0) -> tuple[onnx.ModelProto, Calibration]:
    model = u_shape(offset=offset)
    return model, calibrate(model, samples())


def one_tone() -> onnx.ModelProto:
    """Images to `maps`: the red of each pixel times 1, -2 and 0.5, and that times 1."""
    builder = GraphBuilder()
    red = np.array([1.0, -2.0, 0.5])[:, None] * np.eye(3)[0]
    tones = builder.node(
        "Conv",
        builder.images_to_planes("images"),
        builder.constant(red[:, :, None, None]),
        builder.constant(np.zeros(3)),
    )
    builder.node("Conv", tones, builder.constant(np.eye(3)[:, :, None, None]), output="maps")
    return builder.model(
        "one_tone",
        [TensorSpec("images", "uint8", ("batch", SIDE, SIDE, 3))],
        [TensorSpec("maps", "float32", ("batch", 3, SIDE, SIDE))],
    )


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


@pytest.fixture
def quantised(form: Form) -> Quantised:
    return quantise_calibrated(*calibrated(), form)


def constants(model: onnx.ModelProto) -> Mapping[str, Array]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def relative_error(model: onnx.ModelProto, reference: onnx.ModelProto) -> float:
    """Of the logits on pictures that were not calibrated on: root mean square, over their deviation."""
    feeds = {"images": np.concatenate([each["images"] for each in samples(16, seed=1)])}
    found, exact = (run_model(serialise(each), feeds)["logits"] for each in (model, reference))
    return float(np.sqrt(np.square(found - exact).mean()) / exact.std())


def test_all_but_the_last_layer_and_what_lies_outside(quantised: Quantised) -> None:
    assert set(quantised.quantised) == {*WEIGHTED[:-1], *CONNECTING} - {"residual"}
    assert list(quantised.kept) == ["last"]
    assert relative_error(quantised.model, calibrated()[0]) < 0.05


def test_what_leads_only_into_a_node_that_is_kept_is_not_rounded_for_it(form: Form) -> None:
    model, calibration = calibrated()
    quantised = quantise_calibrated(model, calibration, form, keep=["joined"])
    assert set(quantised.quantised) == {"outer", "pool", "inner", "fine"}
    assert quantised.kept == {"joined": "asked for", "last": quantised.kept["last"]}
    readers = {node.name: node for node in quantised.model.graph.node}
    assert readers["join"].input[0] == readers["enlarged"].output[0]


def test_a_node_whose_signal_int8_cannot_hold_is_found(form: Form) -> None:
    model, calibration = calibrated(OFFSET)
    assert {name for name, harm in calibration.harm[form].items() if harm.decibels < MIN_DECIBELS} == {
        "joined"
    }
    quantised = quantise_calibrated(model, calibration, form)
    assert "dB of signal over noise" in quantised.kept["joined"]
    assert "joined" not in quantised.quantised
    assert relative_error(quantised.model, model) < 0.05


def test_activations_are_signed_without_or_unsigned_with_a_zero_point(
    form: Form, quantised: Quantised
) -> None:
    """And only u8 graphs integer biases: ONNX Runtime fuses nothing without, and TensorRT takes none."""
    values, nodes = constants(quantised.model), quantised.model.graph.node
    zeros = [values[node.input[2]] for node in nodes if node.op_type == "QuantizeLinear"]
    assert {zero.dtype.name for zero in zeros} == {"uint8" if form == "int8-u8" else "int8"}
    assert form == "int8-u8" or not any(zero.any() for zero in zeros)
    assert any(value.dtype == np.int32 for value in values.values()) == (form == "int8-u8")


def test_weights_are_signed_with_a_scale_for_each_output(quantised: Quantised) -> None:
    model, nodes = calibrated()[0], quantised.model.graph.node
    values, original = constants(quantised.model), constants(model)
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    origins = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in nodes if node.name in WEIGHTED[:-1]]
    assert len(convolutions) == len(WEIGHTED) - 1
    for node in convolutions:
        levels, scales, zeros = (values[name] for name in origins[node.input[1]].input)
        assert levels.dtype == np.int8
        assert scales.shape == zeros.shape == (CHANNELS,)
        assert not zeros.any()
        restored = levels * scales[:, None, None, None]
        assert np.abs(restored - original[weights[node.name]]).max() <= scales.max() * 0.5001


@pytest.mark.parametrize("unsigned", [False, True])
def test_the_mean_error_of_a_node_is_what_one_computes_by_hand(unsigned: bool) -> None:
    model = one_tone()
    name = model.graph.node[2].name
    ranges = {model.graph.node[2].input[0]: (0.0, 1000.0)}
    feeds = {"images": np.full((1, SIDE, SIDE, 3), 37, np.uint8)}
    step = 1000 / 255 if unsigned else 1000 / 127
    error = 37 - round(37 / step) * step
    harm = measure_harm(model, ranges, [feeds], unsigned=unsigned)[name]
    np.testing.assert_allclose(harm.shift, [error, -2 * error, 0.5 * error], rtol=1e-5)
    assert harm.decibels == pytest.approx(20 * np.log10(37 / abs(error)), abs=0.01)


def test_biases_take_the_mean_error_back(form: Form) -> None:
    """Where an image is the same all over, rounding is too, and no error averages out."""
    model = one_tone()
    tone = {"images": np.full((1, SIDE, SIDE, 3), 37, np.uint8)}
    ranges = {model.graph.node[2].input[0]: (0.0, 1000.0)}
    harm = measure_harm(model, ranges, [tone], unsigned=form == "int8-u8")
    errors = {}
    for corrected, measured in (True, harm), (False, {}):
        quantised = quantise_calibrated(model, Calibration(ranges, {form: measured}), form).model
        exact, found = (run_model(serialise(each), tone)["maps"] for each in (model, quantised))
        errors[corrected] = float(np.abs(exact - found).max())
    assert errors[False] > 0.1
    assert errors[True] < 0.02


def test_inputs_outputs_and_operators_are_the_same(form: Form) -> None:
    model, calibration = calibrated()
    before = serialise(model)
    quantised = quantise_calibrated(model, calibration, form).model
    assert serialise(model) == before
    assert tensor_specs(quantised.graph.input) == tensor_specs(model.graph.input)
    assert tensor_specs(quantised.graph.output) == tensor_specs(model.graph.output)
    assert [(each.domain, each.version) for each in quantised.opset_import] == [("", 17)]
    assert quantised.ir_version == model.ir_version


def test_any_batch(quantised: Quantised) -> None:
    graph = serialise(quantised.model)
    feeds = np.concatenate([each["images"] for each in samples(5)])
    together = run_model(graph, {"images": feeds})["occupancy"]
    alone = [run_model(graph, {"images": image[None]})["occupancy"][0] for image in feeds]
    np.testing.assert_array_equal(together, alone)


def test_the_same_bytes_every_time(form: Form) -> None:
    model = u_shape()
    first, second = (quantise_calibrated(model, calibrate(model, samples(3)), form).model for _ in range(2))
    assert serialise(first) == serialise(second)


@pytest.mark.filterwarnings("ignore:All-NaN axis")
def test_what_cannot_be_quantised_is_told() -> None:
    with pytest.raises(SettingsError, match="--calibrate DATA"):
        calibrate(u_shape(), [])
    with pytest.raises(BundleError, match="can be quantised"):
        quantise_calibrated(*calibrated(), "int8", keep=WEIGHTED)
    model = u_shape()
    weight = model.graph.initializer[1]
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = np.inf
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(BundleError, match="not finite"):
        calibrate(model, samples(2))
