"""What TensorRT computes in: told by the graph, held to it, and read back from what was built."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from every_engine import in_low_precision
from onnx import helper, numpy_helper
from tiny_builds import altered, build, model, precisions, tiny_variant

from fgdd_engines.bundle.bundle import Bundle, Variant
from fgdd_engines.tensorrt_backend import build as tensorrt_build
from fgdd_engines.tensorrt_backend import layers as tensorrt_layers
from fgdd_engines.tensorrt_backend.api import TensorRt
from fgdd_engines.tensorrt_backend.build import BuiltLayer, Profile
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_engines.tensorrt_backend.layers import engine_layers, network_layers, why_other_precision
from fgdd_fast.errors import EngineError

pytestmark = pytest.mark.usefixtures("nothing_on_the_terminal")


def quantised(*, weights: bool = True) -> onnx.ModelProto:
    """The tiny classifier whose convolution has an int8 image, and int8 filters with a scale a channel."""
    changed = model()
    convolution = next(node for node in changed.graph.node if node.op_type == "Conv")
    constants = {
        "image_scale": np.float32(1 / 127),
        "filter_scales": np.full(16, 0.01, np.float32),
        "image_zero": np.int8(0),
        "filter_zeros": np.zeros(16, np.int8),
    }
    changed.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
    )
    pairs = [("planes", "image_scale", "image_zero", 1)]
    pairs += [("filters", "filter_scales", "filter_zeros", 0)] if weights else []
    nodes = []
    for name, scale, zero, axis in pairs:
        attributes = {} if name == "planes" else {"axis": axis}
        nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_int8"], **attributes))
        nodes.append(
            helper.make_node(
                "DequantizeLinear", [f"{name}_int8", scale, zero], [f"{name}_back"], **attributes
            )
        )
    convolution.input[:] = ["planes_back", "filters_back" if weights else "filters"]
    place = list(changed.graph.node).index(convolution)
    everything = [*changed.graph.node[:place], *nodes, *changed.graph.node[place:]]
    del changed.graph.node[:]
    changed.graph.node.extend(everything)
    return changed


def fake_layer(kind: str, inputs: list[str | None], output: str) -> Any:
    """A layer of TensorRT's network; an input of which the name is missing is an empty place."""

    def tensor(name: str) -> Any:
        return SimpleNamespace(
            name=name, dtype=SimpleNamespace(name="INT8" if name.endswith("int8") else "FLOAT")
        )

    return SimpleNamespace(
        name=output,
        type=SimpleNamespace(name=kind),
        num_inputs=len(inputs),
        num_outputs=1,
        get_input=[None if name is None else tensor(name) for name in inputs].__getitem__,
        get_output=lambda _: tensor(output),
    )


class TestPrecision:
    """What a plan computes in is what the graph says, and is told."""

    def test_fp32(self, rtx: TensorRt, bundle: Bundle) -> None:
        built = build(rtx, bundle)
        assert precisions(built) == {"CONVOLUTION": "fp32", "MATRIX_MULTIPLY": "fp32"}
        assert built.read_from == "network"
        assert all(layer.is_product for layer in built.layers)

    @pytest.mark.parametrize(
        ("variant", "graph", "product"),
        [
            ("fp16", in_low_precision("fp16", ("Conv", "MatMul")), "fp16"),
            ("bf16", in_low_precision("bf16", ("Conv", "MatMul")), "bf16"),
            ("fp16", in_low_precision("fp16", ("Conv",)), "fp32"),  # a part of it may stay in fp32
            ("int8", quantised(), "fp32"),
        ],
    )
    def test_a_variant(
        self, rtx: TensorRt, tmp_path: Path, variant: Variant, graph: onnx.ModelProto, product: str
    ) -> None:
        built = build(rtx, tiny_variant(tmp_path, graph, variant), Profile(1, 2, 4))
        assert precisions(built) == {"CONVOLUTION": variant, "MATRIX_MULTIPLY": product}

    def test_a_bias_that_a_node_makes(self, rtx: TensorRt, tmp_path: Path) -> None:
        """TensorRT keeps the filters in the layer, and their place among its inputs empty."""
        changed = model()
        convolution = next(node for node in changed.graph.node if node.op_type == "Conv")
        convolution.input.append("bias")
        changed.graph.initializer.append(numpy_helper.from_array(np.zeros(16, np.float32), "stored"))
        changed.graph.node.insert(0, helper.make_node("Identity", ["stored"], ["bias"]))
        built = build(rtx, tiny_variant(tmp_path, changed))
        assert precisions(built) == {"CONVOLUTION": "fp32", "MATRIX_MULTIPLY": "fp32"}

    @pytest.mark.parametrize(
        ("filters", "precision"), [("filters", "int8"), ("plain", "fp32"), (None, "fp32")]
    )
    def test_a_layer_is_quantised_where_all_its_operands_are(
        self, filters: str | None, precision: str
    ) -> None:
        layers = [
            fake_layer("DEQUANTIZE", ["image int8"], "image"),
            fake_layer("DEQUANTIZE", ["filters int8"], "filters"),
            fake_layer("DEQUANTIZE", ["bias int8"], "bias"),
            fake_layer("CONVOLUTION", ["image", filters, "bias"], "maps"),
        ]
        network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
        assert network_layers(network) == (BuiltLayer("maps", "CONVOLUTION", precision),)

    @pytest.mark.parametrize(
        ("variant", "graph", "problem"),
        [
            ("fp16", model(), r"fp16, but of the 2 .* 0 do \(2 in fp32\)"),
            ("bf16", model(), r"bf16, but of the 2 .* 0 do \(2 in fp32\)"),
            ("int8", model(), r"int8, but of the 2 .* 0 do \(2 in fp32\)"),
            ("int8-u8", model(), r"int8, but of the 2 .* 0 do \(2 in fp32\)"),
            ("int8", quantised(weights=False), r"int8, but of the 2 .* 0 do \(2 in fp32\)"),
            (None, in_low_precision("fp16", ("MatMul",)), r"fp32, but of the 2 .*1 in fp16"),
        ],
    )
    def test_what_is_something_else_in_truth_is_refused(
        self, rtx: TensorRt, tmp_path: Path, variant: Variant | None, graph: onnx.ModelProto, problem: str
    ) -> None:
        with pytest.raises(EngineError, match=f"to compute in {problem}"):
            build(rtx, tiny_variant(tmp_path, graph, variant))


def layer(name: str, kind: str, types: list[str], field: str = "Format/Datatype", **more: object) -> str:
    """A layer as the engine inspector tells it, with its types of inputs and then of its output."""
    tensors = [
        {"Name": "t", "Location": "Device", "Dimensions": [1, 3, 4, 4], field: words} for words in types
    ]
    return json.dumps(
        {"Name": name, "LayerType": kind, "Inputs": tensors[:-1], "Outputs": tensors[-1:], **more}
    )


class TestEngineInspector:
    @pytest.mark.parametrize(
        ("types", "precision"),
        [
            (["Float", "Float"], "fp32"),
            (["Row major linear FP32", "Row major linear FP32"], "fp32"),
            (["Half", "Float"], "fp16"),
            (["Channel major FP16 format where channel % 8 == 0", "Half"], "fp16"),
            (["Half(64,1:8,1)", "Half"], "fp16"),
            (["BFloat16", "Float"], "bf16"),
            (["Row major linear BF16 format", "BFloat16"], "bf16"),
            (["Int8", "Half", "Half"], "int8"),
            (["Row major Int8 format", "Float"], "int8"),
            (["UInt8", "Float"], "fp32"),
            (["Int32", "Int64"], "int64"),
            (["N/A due to dynamic shapes", "N/A due to dynamic shapes"], "unknown"),
        ],
    )
    def test_types_in_its_words(self, types: list[str], precision: str) -> None:
        for field in ("Format/Datatype", "Format/DataType", "DataType"):
            (found,) = engine_layers([layer("conv1", "CaskConvolution", types, field)])
            assert found == BuiltLayer("conv1", "CaskConvolution", precision)

    def test_weights_say_it_where_shapes_are_open(self) -> None:
        open_shapes = ["N/A due to dynamic shapes"] * 2
        (found,) = engine_layers(
            [layer("conv1", "CaskConvolution", open_shapes, Weights={"Type": "Half", "Count": 9408})]
        )
        assert found.precision == "fp16"

    @pytest.mark.parametrize(
        ("kind", "kernel", "is_product"),
        [
            ("CaskConvolution", "sm80_xmma_fprop_implicit_gemm_f16f16", True),
            ("CaskGemmMatrixMultiply", "", True),
            ("gemm", "", True),
            ("fusion", "sm80_xmma_gemm_i8f32_i8i32_f32", True),
            ("kgen", "__myl_CastMulAdd_0x1", False),
            ("Reformat", "", False),
            ("CaskPooling", "sm50_xmma_pooling_fw_4d", False),
        ],
    )
    def test_which_layers_multiply_matrices(self, kind: str, kernel: str, is_product: bool) -> None:
        (found,) = engine_layers([layer("one", kind, ["Half", "Half"], TacticName=kernel)])
        assert found.is_product == is_product
        assert found.kind.startswith(kind)

    def test_what_is_no_description_is_left_out(self) -> None:
        good = layer("good", "gemm", ["Half", "Half"])
        assert [found.name for found in engine_layers(["", '"name only"', '{"Name": "a"b"}', good])] == [
            "good"
        ]

    def test_one_layer_is_enough_for_a_variant_and_too_many_for_fp32(self, bundle: Bundle) -> None:
        mixed = engine_layers([layer("a", "gemm", ["Half", "Half"]), layer("b", "gemm", ["Float", "Float"])])
        where = "built engine"
        assert why_other_precision(replace(bundle, variant="fp16"), mixed, where) == ""
        told = why_other_precision(bundle, mixed, where)
        assert re.search(r"in fp32, but .* in the built engine 1 do \(1 in fp16, 1 in", told)
        told = why_other_precision(replace(bundle, variant="int8"), mixed, where)
        assert re.search(r"in int8, but of the 2 .* 0 do", told)

    def test_layers_that_multiply_nothing_do_not_count(self, bundle: Bundle) -> None:
        layers = engine_layers([layer("a", "kgen", ["Half", "Half"]), layer("b", "gemm", ["Float", "Float"])])
        assert why_other_precision(bundle, layers, "built engine") == ""
        told = why_other_precision(replace(bundle, variant="fp16"), layers, "built engine")
        assert "but of the 1 convolutions" in told


class FakeInspectedEngine:
    """A loaded engine whose types are known only once a context says the shapes, where `open_shapes`."""

    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    num_layers = 1
    num_io_tensors = 2

    def __init__(self, words: str, *, open_shapes: bool, kind: str = "gemm") -> None:
        self.words, self.open_shapes, self.kind = words, open_shapes, kind
        self.shapes: dict[str, list[int]] = {}

    def create_engine_inspector(self) -> Any:
        inspector = SimpleNamespace(execution_context=None)

        def get_layer_information(index: int, json_format: object) -> str:
            known = not self.open_shapes or inspector.execution_context is not None
            return layer("l", self.kind, [self.words if known else "N/A due to dynamic shapes"] * 2)

        inspector.get_layer_information = get_layer_information
        return inspector

    def create_execution_context(self, strategy: str) -> Any:
        assert strategy == "user managed"  # it allocates no memory
        return SimpleNamespace(set_input_shape=self.shapes.__setitem__)

    def get_tensor_name(self, index: int) -> str:
        return ("images", "loss")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "images" else "output"

    def get_tensor_shape(self, name: str) -> list[int]:
        return [-1 if self.open_shapes else 4, 3]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return [[1, 3], [4, 3], [8, 3]]


class TestReadingBack:
    """On a machine with a GPU the built engine itself is asked."""

    @pytest.fixture
    def gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        device = CudaDevice("Orin", (8, 7), 8 << 30, driver="13.0", runtime="13.0")
        monkeypatch.setattr(tensorrt_layers, "find_cuda_device", lambda: device)
        monkeypatch.setattr(tensorrt_build, "find_cuda_device", lambda gpu: None)

    def with_engine(self, rtx: TensorRt, engine: FakeInspectedEngine | None) -> TensorRt:
        def runtime(logger: Any) -> Any:
            if engine is None:
                logger.log(rtx.module.ILogger.ERROR, "Error Code 6: The engine plan is for another GPU")
            return SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)

        names = SimpleNamespace(INPUT="input")
        strategy = FakeInspectedEngine.ExecutionContextAllocationStrategy
        module = altered(
            rtx.module, Runtime=runtime, TensorIOMode=names, ExecutionContextAllocationStrategy=strategy
        )
        return replace(rtx, module=module)

    @pytest.mark.usefixtures("gpu")
    @pytest.mark.parametrize("open_shapes", [False, True])
    def test_the_engine_is_read(self, rtx: TensorRt, bundle: Bundle, open_shapes: bool) -> None:
        engine = FakeInspectedEngine("Float", open_shapes=open_shapes)
        built = build(self.with_engine(rtx, engine), bundle)
        assert built.read_from == "engine inspector"
        assert built.layers == (BuiltLayer("l", "gemm", "fp32"),)
        assert engine.shapes == ({"images": [4, 3]} if open_shapes else {})

    @pytest.mark.usefixtures("gpu")
    def test_an_engine_that_cannot_be_loaded_is_refused(self, rtx: TensorRt, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match=r"cannot load the engine that it has built: .*another GPU"):
            build(self.with_engine(rtx, None), bundle)

    @pytest.mark.usefixtures("gpu")
    def test_an_engine_that_seems_to_be_another_is_kept_for_its_decisions(
        self, rtx: TensorRt, bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Which of its layers are products is guessed by their names; the graph has been held to its word."""
        built = build(self.with_engine(rtx, FakeInspectedEngine("Half", open_shapes=False)), bundle)
        assert (built.read_from, precisions(built)) == ("engine inspector", {"gemm": "fp16"})
        assert "in the built engine 0 do (1 in fp16), as far as it tells" in caplog.text
        variant = tiny_variant(tmp_path, in_low_precision("fp16", ("Conv", "MatMul")), "fp16")
        assert build(self.with_engine(rtx, FakeInspectedEngine("Float", open_shapes=False)), variant).plan
        assert "is to compute in fp16, but of the 1 convolutions" in caplog.text

    @pytest.mark.usefixtures("gpu")
    def test_an_engine_that_tells_nothing_leaves_the_network(self, rtx: TensorRt, bundle: Bundle) -> None:
        silent = FakeInspectedEngine("Float", open_shapes=False, kind="kgen")
        built = build(self.with_engine(rtx, silent), bundle)
        assert built.read_from == "network"
        assert precisions(built) == {"CONVOLUTION": "fp32", "MATRIX_MULTIPLY": "fp32"}
