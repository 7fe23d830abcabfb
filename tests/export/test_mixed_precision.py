from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from miniature_bundles import CANVAS
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from saliency_source import saliency_source
from tiny_architectures import convolutional, transformer, upscaling

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle
from fgdd_export.catalogue.u2netp import build_u2netp
from fgdd_export.graphs.graph import GraphBuilder, load_model, run_model, serialise
from fgdd_export.graphs.parity import drawn_images
from fgdd_export.precision.graph import LowPrecision
from fgdd_export.precision.mixed_precision import emulate, lower_precision
from fgdd_fast.errors import BundleError
from fgdd_fast.models.grounded_sam2 import bring_to_canvas
from fgdd_fast.models.prompts import Prompting, PromptTokenizer, prompt_text
from fgdd_fast.synthetic.scenes import draw_scene

both = pytest.mark.parametrize("precision", ["fp16", "bf16"])
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module")
def saliency() -> onnx.ModelProto:
    return build_u2netp(saliency_source(), 64)


@pytest.fixture(scope="module")
def classifier() -> onnx.ModelProto:
    return convolutional(np.random.default_rng(0))


def operators_of(model: onnx.ModelProto) -> dict[str, str]:
    """The operator of each node, by the name under which it is reported."""
    return {node.name or node.output[0]: node.op_type for node in model.graph.node}


def check_wellformed(model: onnx.ModelProto, lowered: onnx.ModelProto, precision: LowPrecision) -> None:
    """Valid by every check of ONNX, the same from outside, and with no conversion that could be spared."""
    onnx.checker.check_model(lowered, full_check=True)
    onnx.shape_inference.infer_shapes(lowered, check_type=True, strict_mode=True)
    assert list(lowered.graph.input) == list(model.graph.input)
    assert list(lowered.graph.output) == list(model.graph.output)
    nodes = lowered.graph.node
    assert len({node.name for node in nodes}) == len(nodes)
    casts = [node for node in nodes if node.op_type == "Cast"]
    assert max(Counter((node.input[0], node.attribute[0].i) for node in casts).values()) == 1
    cast = {node.output[0]: node for node in casts}
    low = TYPES[precision]
    for node in casts:
        if node.attribute[0].i in (TensorProto.FLOAT, low) and node.input[0] in cast:
            assert cast[node.input[0]].attribute[0].i not in (TensorProto.FLOAT, low)
    read = {name for node in nodes for name in node.input}
    assert all(constant.name in read for constant in lowered.graph.initializer)


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
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branches = [
        helper.make_graph(
            [helper.make_node("Identity", ["x"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])],
        )
        for name in ("yes", "no")
    ]
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])],
        "branching",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [value],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(BundleError, match=r"'branching' has control flow \(If\)"):
        lower_precision(model, "fp16")


@both
def test_weights_are_rounded_as_the_format_does(precision: LowPrecision) -> None:
    builder = GraphBuilder()
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(64, 64)) * 10.0 ** rng.integers(-4, 4, (64, 64))).astype(np.float32)
    builder.node("MatMul", builder.node("MatMul", "x", builder.constant(weights)), "x", output="y")
    square = [TensorSpec(name, "float32", (64, 64)) for name in "xy"]
    lowered = lower_precision(builder.model("one", square[:1], square[1:]), precision).model
    (constant,) = lowered.graph.initializer
    found = numpy_helper.to_array(constant)
    np.testing.assert_array_equal(found.astype(np.float32), weights.astype(found.dtype).astype(np.float32))


def test_onnxruntime_runs_the_lowered_graph(saliency: onnx.ModelProto) -> None:
    images = {"images": drawn_images(64, 64)}
    expected = run_model(serialise(saliency), images)
    for model in (lower_precision(saliency, "fp16").model, emulate(saliency, "fp16")):
        found = run_model(serialise(model), images)
        assert 0 < np.abs(found["mask"].astype(int) - expected["mask"]).mean() < 0.5
        np.testing.assert_allclose(found["occupancy"], expected["occupancy"], atol=0.005)


@dataclass(frozen=True)
class Finder:
    """A miniature of Grounding DINO that was trained on drawn scenes, and scenes to look at."""

    model: onnx.ModelProto
    feeds: dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def finder(request: pytest.FixtureRequest) -> Finder:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    bundle: Bundle = request.getfixturevalue("split")
    prompting = Prompting.of(bundle)
    tokenizer = PromptTokenizer(bundle.file("tokenizer.json"), prompting)
    encode = load_model(bundle.part("text").graph())
    feeds = []
    for index in range(6):
        scene = draw_scene(8_000_000 + index, (240, 320))
        canvas, valid = bring_to_canvas(scene.pixels, CANVAS, prompting, "area")
        tokens = tokenizer.encode(prompt_text((scene.objects[0].name,), prompting.form))
        names = ("input_ids", "self_mask", "position_ids")
        text = encode({name: getattr(tokens, name)[None] for name in names})
        feeds.append(
            {
                "canvas": canvas,
                "valid": valid,
                **{name: values[0] for name, values in text.items()},
                "text_mask": tokens.mask,
                "text_self_mask": tokens.self_mask,
                "threshold": np.float32(0),
            }
        )
    model = onnx.load_model_from_string(bundle.graph())
    return Finder(model, {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]})


@both
def test_a_detector_finds_the_same_boxes(finder: Finder, precision: LowPrecision) -> None:
    lowered = lower_precision(finder.model, precision)
    check_wellformed(finder.model, lowered.model, precision)
    assert [entry.version for entry in lowered.model.opset_import] == [17]  # GridSample keeps its meaning
    expected = run_model(serialise(finder.model), finder.feeds)
    found = run_model(serialise(emulate(finder.model, precision)), finder.feeds)
    assert (expected["scores"] > 0.4).sum() > len(expected["scores"])
    tolerance = {"fp16": 0.005, "bf16": 0.05}[precision]
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=tolerance)
    apart = np.abs(expected["boxes"][:, :, None] - found["boxes"][:, None]).max(-1).min(-1)  # in any order
    assert apart[expected["scores"] > 0.4].max() < tolerance / 5


@both
def test_coordinates_and_scores_are_in_fp32_from_the_last_product(
    finder: Finder, precision: LowPrecision
) -> None:
    """No tensor between a product and what is sampled, ranked or logged has been in low precision."""
    lowered = lower_precision(finder.model, precision).model
    types = onnx.shape_inference.infer_shapes(lowered).graph.value_info
    low = {value.name for value in types if value.type.tensor_type.elem_type == TYPES[precision]}
    makers = {name: node for node in lowered.graph.node for name in node.output}
    looked_up = {"GridSample": slice(1, 2), "TopK": slice(1), "Log": slice(1), "Sin": slice(1)}
    waiting = [name for n in lowered.graph.node for name in n.input[looked_up.get(n.op_type, slice(0))]]
    ends = {"MatMul", "Conv", "LayerNormalization", "ReduceSum"}
    seen: Counter[str] = Counter()
    while waiting:
        name = waiting.pop()
        assert name not in low
        maker = makers.get(name)
        if maker is not None and not seen[maker.name]:
            seen[maker.name] += 1
            if maker.op_type not in ends:
                waiting.extend(name for name in maker.input if "shape" not in name.lower())
    assert len(seen) > 100


@both
@pytest.mark.parametrize("network", ["saliency", "classifier", "upscaling", "transformer", "finder"])
def test_tensorrt_takes_the_types_as_they_are(
    network: str, precision: LowPrecision, request: pytest.FixtureRequest
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    if network in ("transformer", "upscaling"):
        model = {"transformer": transformer, "upscaling": upscaling}[network](np.random.default_rng(0))
    elif network == "finder":
        model = request.getfixturevalue("finder").model
    else:
        model = request.getfixturevalue(network)
    lowered = lower_precision(model, precision)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, builder.logger)
    assert parser.parse(serialise(lowered.model)), [str(parser.get_error(0))]
    products = Counter(
        layer.get_output(0).dtype
        for layer in map(definition.get_layer, range(definition.num_layers))
        if layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    )
    low = {"fp16": trt.float16, "bf16": trt.bfloat16}[precision]
    operators = operators_of(model)
    assert products[low] == sum(operators[name] in ("Conv", "MatMul") for name in lowered.lowered)
    assert products.keys() <= {low, trt.float32}
    if network == "finder":
        return  # its engine takes minutes
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    for tensor in map(definition.get_input, range(definition.num_inputs)):
        profile.set_shape(tensor.name, *((batch, *tensor.shape[1:]) for batch in (1, 2, 4)))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(definition, config) is not None
