"""Building TensorRT plans: real builds in TensorRT for RTX, which needs no GPU for them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from saliency_source import saliency_source
from tiny_models import tiny_bundle, tiny_description, tiny_graph

from fgdd_fast.engines import tensorrt_layers
from fgdd_fast.engines.base import TensorSpec
from fgdd_fast.engines.bundle import Bundle, Variant, write_bundle
from fgdd_fast.engines.cuda_device import CudaDevice
from fgdd_fast.engines.tensorrt_api import TensorRt, clean, import_tensorrt, message_log
from fgdd_fast.engines.tensorrt_build import Built, BuiltLayer, Profile, build_plan
from fgdd_fast.engines.tensorrt_layers import check_precision, engine_layers
from fgdd_fast.errors import EngineError, MissingExtraError, SettingsError
from fgdd_fast.export.graph import tensor_specs
from fgdd_fast.export.u2netp import build_u2netp

ONE = Profile(1, 1, 1)
ELEMENT_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.fixture(scope="module")
def rtx() -> TensorRt:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    return import_tensorrt("tensorrt-rtx")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def model() -> onnx.ModelProto:
    return onnx.load_from_string(tiny_graph())


def tiny_variant(folder: Path, changed: onnx.ModelProto, variant: Variant | None = None) -> Bundle:
    description = replace(tiny_description(folder / "changed.onnx"), variant=variant)
    return write_bundle(description, changed.SerializeToString())


def in_low_precision(precision: str, operations: tuple[str, ...]) -> onnx.ModelProto:
    """The tiny classifier with these operations between casts to another type and back."""
    changed = model()
    nodes = []
    for node in changed.graph.node:
        if node.op_type in operations:
            low = [f"{name}_low" for name in node.input]
            casts = zip(node.input, low, strict=True)
            nodes += [helper.make_node("Cast", [a], [b], to=ELEMENT_TYPES[precision]) for a, b in casts]
            output = node.output[0]
            node.input[:], node.output[:] = low, [f"{output}_low"]
            nodes += [node, helper.make_node("Cast", node.output, [output], to=TensorProto.FLOAT)]
        else:
            nodes.append(node)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


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


def build(rtx: TensorRt, bundle: Bundle, profile: Profile = ONE, **options: Any) -> Built:
    return build_plan(rtx, bundle, profile, axes={}, **options)


def precisions(built: Built) -> dict[str, str]:
    return {layer.kind: layer.precision for layer in built.layers}


class TestProfile:
    @pytest.mark.parametrize(
        ("text", "profile"), [("1:4:8", (1, 4, 8)), ("4", (4, 4, 4)), ("2:2:2", (2, 2, 2))]
    )
    def test_text(self, text: str, profile: tuple[int, int, int]) -> None:
        assert Profile.parse(text) == Profile(*profile)

    @given(st.lists(st.integers(1, 10_000), min_size=3, max_size=3))
    def test_it_reads_what_it_writes(self, batches: list[int]) -> None:
        profile = Profile(*sorted(batches))
        assert Profile.parse(str(profile)) == profile

    @pytest.mark.parametrize(
        "text", ["", "a", "1:2", "1:2:3:4", "-1:2:3", "1.5", "1::3", "1:2:²", "0", "3:2:4", "1:9:8"]
    )
    def test_what_cannot_be(self, text: str) -> None:
        with pytest.raises(SettingsError, match="MIN:OPT:MAX"):
            Profile.parse(text)


class TestPrecision:
    """What a plan computes in is what the graph says, and is told."""

    def test_fp32(self, rtx: TensorRt, bundle: Bundle) -> None:
        built = build(rtx, bundle)
        assert precisions(built) == {"CONVOLUTION": "fp32", "MATRIX_MULTIPLY": "fp32"}
        assert built.read_from == "network"
        assert all(layer.is_product for layer in built.layers)

    @pytest.mark.parametrize("precision", ["fp16", "bf16"])
    def test_a_variant(self, rtx: TensorRt, tmp_path: Path, precision: Variant) -> None:
        changed = in_low_precision(precision, ("Conv", "MatMul"))
        built = build(rtx, tiny_variant(tmp_path, changed, precision), Profile(1, 2, 4))
        assert precisions(built) == {"CONVOLUTION": precision, "MATRIX_MULTIPLY": precision}

    def test_parts_of_a_variant_may_stay_in_fp32(self, rtx: TensorRt, tmp_path: Path) -> None:
        built = build(rtx, tiny_variant(tmp_path, in_low_precision("fp16", ("Conv",)), "fp16"))
        assert precisions(built) == {"CONVOLUTION": "fp16", "MATRIX_MULTIPLY": "fp32"}

    def test_int8(self, rtx: TensorRt, tmp_path: Path) -> None:
        built = build(rtx, tiny_variant(tmp_path, quantised(), "int8"))
        assert precisions(built) == {"CONVOLUTION": "int8", "MATRIX_MULTIPLY": "fp32"}

    def test_int8_of_the_image_alone_is_none(self, rtx: TensorRt, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"compute in int8, but of the 2 .* 0 do \(2 in fp32\)"):
            build(rtx, tiny_variant(tmp_path, quantised(weights=False), "int8"))

    @pytest.mark.parametrize("variant", ["fp16", "bf16", "int8", "int8-u8"])
    def test_a_variant_that_is_fp32_in_truth_is_refused(
        self, rtx: TensorRt, tmp_path: Path, variant: Variant
    ) -> None:
        asked = variant.partition("-")[0]
        with pytest.raises(EngineError, match=rf"to compute in {asked}, but of the 2 .* 0 do \(2 in fp32\)"):
            build(rtx, tiny_variant(tmp_path, model(), variant))

    def test_an_fp32_bundle_that_is_fp16_in_truth_is_refused(self, rtx: TensorRt, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"to compute in fp32, but of the 2 .*1 in fp16"):
            build(rtx, tiny_variant(tmp_path, in_low_precision("fp16", ("MatMul",))))


class TestShapes:
    def test_a_plan_for_one_batch_needs_less_than_one_for_many(self, rtx: TensorRt, bundle: Bundle) -> None:
        assert len(build(rtx, bundle, Profile(4, 4, 4)).plan) < len(build(rtx, bundle, Profile(1, 4, 8)).plan)

    def test_other_axes_are_fixed(self, rtx: TensorRt, tmp_path: Path) -> None:
        changed = model()
        tensors = {tensor.name: tensor for tensor in (*changed.graph.input, *changed.graph.output)}
        for name, first in (("images", 1), ("mask", 1)):
            dimensions = tensors[name].type.tensor_type.shape.dim
            dimensions[first].dim_param, dimensions[first + 1].dim_param = "height", "width"
        described = tiny_description(tmp_path / "open.onnx")
        open_axes = replace(
            described,
            inputs=(TensorSpec("images", "uint8", ("batch", "height", "width", 3)), described.inputs[1]),
            outputs=(*described.outputs[:2], TensorSpec("mask", "uint8", ("batch", "height", "width"))),
        )
        bundle = write_bundle(open_axes, changed.SerializeToString())
        built = build_plan(rtx, bundle, Profile(1, 2, 4), axes={"height": 16, "width": 24})
        assert precisions(built)["CONVOLUTION"] == "fp32"
        with pytest.raises(EngineError, match=r"axes \['batch', 'height', 'width'\] to choose"):
            build_plan(rtx, bundle, ONE, axes={"height": 16})

    def test_a_graph_without_a_batch(self, rtx: TensorRt, tmp_path: Path) -> None:
        changed = model()
        for tensor in (*changed.graph.input, *changed.graph.output):
            tensor.type.tensor_type.shape.dim[0].dim_value = 3
        described = tiny_description(tmp_path / "closed.onnx")
        closed = replace(
            described,
            inputs=tuple(replace(spec, shape=(3, *spec.shape[1:])) for spec in described.inputs),
            outputs=tuple(replace(spec, shape=(3, *spec.shape[1:])) for spec in described.outputs),
        )
        assert build(rtx, write_bundle(closed, changed.SerializeToString()), Profile(1, 4, 8)).plan

    def test_a_graph_that_is_not_what_its_sidecar_says(self, rtx: TensorRt, bundle: Bundle) -> None:
        wrong = replace(bundle, outputs=bundle.outputs[1:])
        with pytest.raises(EngineError, match="The sidecar of 'tiny' says"):
            build(rtx, wrong)

    def test_a_batch_that_is_too_large(self, rtx: TensorRt, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match=r"cannot build 'tiny': .*exceeds the maximum element count"):
            build(rtx, bundle, Profile.parse("100000000000"))


class TestGraphsThatCannotBeRead:
    def test_garbage(self, rtx: TensorRt, bundle: Bundle, tmp_path: Path) -> None:
        for content in (b"garbage" * 99, bundle.onnx.read_bytes()[:-300]):
            (tmp_path / "garbage.onnx").write_bytes(content)
            with pytest.raises(EngineError, match="cannot read the graph of 'tiny': ") as caught:
                build(rtx, replace(bundle, onnx=tmp_path / "garbage.onnx"))
            assert "\n" not in caught.value.problem
            assert ".cpp" not in caught.value.problem

    def test_an_operator_that_it_does_not_have_is_named(self, rtx: TensorRt, tmp_path: Path) -> None:
        changed = model()
        node = next(node for node in changed.graph.node if node.op_type == "Relu")
        node.op_type, node.name = "Unique", "the_odd_one"
        with pytest.raises(EngineError, match=r"does not support the node 'the_odd_one' \(Unique\)"):
            build(rtx, tiny_variant(tmp_path, changed))

    def test_uint8_inside_the_graph(self, rtx: TensorRt, tmp_path: Path) -> None:
        changed = model()
        node = next(node for node in changed.graph.node if node.output[0] == "mask")
        node.output[0] = "salience"
        changed.graph.initializer.append(numpy_helper.from_array(np.array(255, np.uint8), "white"))
        changed.graph.node.append(helper.make_node("Mul", ["salience", "white"], ["mask"]))
        with pytest.raises(EngineError, match=r"\(Cast\): TensorRT does not support UINT8 types for interm"):
            build(rtx, tiny_variant(tmp_path, changed))

    def test_weights_beside_the_graph_are_found(self, rtx: TensorRt, bundle: Bundle, tmp_path: Path) -> None:
        path = tmp_path / "split.onnx"
        onnx.save(model(), path, save_as_external_data=True, location="split.bin", size_threshold=0)
        beside = replace(bundle, onnx=path)
        assert build(rtx, beside).plan
        (tmp_path / "split.bin").unlink()
        with pytest.raises(EngineError, match="cannot read the graph"):
            build(rtx, beside)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The networks that the project exports from PyTorch, in miniature and with random weights."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    import tiny_sam2
    from tiny_networks import save_grounding_dino, tiny_grounding_dino_config

    from fgdd_fast.benchmarks.random_networks import random_detector
    from fgdd_fast.export import grounding_dino, occupancy, sam2
    from fgdd_fast.export.torch_export import Network, export_network

    folder = tmp_path_factory.mktemp("exports")

    def export(network: Network, example: Any) -> Bundle:
        described = replace(tiny_description(folder / f"{network.name}.onnx"), name=network.name)
        described = replace(described, inputs=network.inputs, outputs=network.outputs)
        return write_bundle(described, export_network(network, example).model.SerializeToString())

    checkpoint = save_grounding_dino(random_detector(tiny_grounding_dino_config(encoder_layers=1)), folder)
    dino = grounding_dino.load_grounding_dino(str(checkpoint))
    sam = sam2.Sam2(tiny_sam2.tiny_model(), tiny_sam2.SIDE, sam2.MEAN, sam2.STD, ())
    text = grounding_dino.text_network(dino, 12)
    detector = grounding_dino.detector_network(dino, 96, 128, 12)
    prompted = (*grounding_dino.example_tensors(detector), torch.full((2,), 0.3))
    segmenter = occupancy.ForegroundSegmenter(sam2.ImageEncoder(sam), sam2.MaskDecoder(sam), sam.image_size)
    (images,) = sam2.encoder_example(sam)
    return {
        "text encoder": export(text, grounding_dino.example_tensors(text)),
        "detector": export(
            occupancy.finder_network(occupancy.BoxFinder(detector.module, 4), detector.inputs), prompted
        ),
        "segmenter": export(
            occupancy.segmenter_network(segmenter, 4), (images, torch.rand(2, 4, 4), torch.rand(2, 4))
        ),
    }


@pytest.mark.parametrize("name", ["text encoder", "detector", "segmenter"])
def test_an_exported_network_builds(rtx: TensorRt, exports: dict[str, Bundle], name: str) -> None:
    built = build(rtx, exports[name])
    assert set(precisions(built).values()) == {"fp32"}


def test_a_saliency_model_builds(rtx: TensorRt, tmp_path: Path) -> None:
    size = 64
    graph = build_u2netp(saliency_source(size), size)
    described = replace(
        tiny_description(tmp_path / "saliency.onnx", "foreground"),
        inputs=tensor_specs(graph.graph.input),
        outputs=tensor_specs(graph.graph.output),
    )
    built = build(rtx, write_bundle(described, graph.SerializeToString()), Profile(1, 2, 4))
    assert set(precisions(built).values()) == {"fp32"}


class TestProgress:
    def test_every_phase_goes_to_its_end(self, rtx: TensorRt, bundle: Bundle) -> None:
        seen: list[tuple[str, int, int]] = []
        build(rtx, bundle, progress=lambda *step: seen.append(step))
        phases = {phase for phase, _, _ in seen}
        assert "Building engine" in phases
        for phase in phases:
            steps = [(done, total) for name, done, total in seen if name == phase]
            assert steps[0][0] == 0
            assert all(0 <= done <= total for done, total in steps)
        assert ("Building engine", 6, 6) in seen

    def test_what_the_report_raises_ends_the_build(self, rtx: TensorRt, bundle: Bundle) -> None:
        calls = []

        def fail(phase: str, done: int, steps: int) -> None:
            calls.append(phase)
            raise OSError("the terminal is gone")

        with pytest.raises(OSError, match="the terminal is gone"):
            build(rtx, bundle, progress=fail)
        assert len(calls) == 1

    def test_an_interrupt_stops_the_build(self, rtx: TensorRt, bundle: Bundle) -> None:
        """As a user's Ctrl-C comes: a signal, while the build is under way."""
        script = (
            "import os, signal, sys, time\n"
            "from pathlib import Path\n"
            "from fgdd_fast.engines.bundle import load_bundle\n"
            "from fgdd_fast.engines.tensorrt_api import import_tensorrt\n"
            "from fgdd_fast.engines.tensorrt_build import Profile, build_plan\n"
            "phases = []\n"
            "def progress(phase, done, steps):\n"
            "    phases.append(phase)\n"
            "    if phases == ['Building engine']:\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n"
            "        time.sleep(0.2)\n"
            "bundle = load_bundle(Path(sys.argv[1]))\n"
            "try:\n"
            "    build_plan(import_tensorrt('tensorrt-rtx'), bundle, Profile(1, 1, 1), axes={},"
            " progress=progress)\n"
            "except KeyboardInterrupt:\n"
            "    print(sorted(set(phases)))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(bundle.onnx)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "['Building engine']\n")


class TestMemory:
    def test_a_workspace_that_is_none(self, rtx: TensorRt, bundle: Bundle) -> None:
        with pytest.raises(SettingsError, match="at least 1 MiB"):
            build(rtx, bundle, workspace_mib=0)

    def test_a_small_workspace_is_enough_for_a_small_network(self, rtx: TensorRt, bundle: Bundle) -> None:
        assert build(rtx, bundle, workspace_mib=16).plan

    @pytest.mark.parametrize(
        ("message", "problem"),
        [
            (
                "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
                r"ran out of memory: Error Code 1: Cuda Runtime \(out of memory\)\. Give a smaller --work",
            ),
            ("Error Code 2: OutOfMemory (Requested size was 8 bytes.)", "ran out of memory: .*--workspace"),
            (
                "Error Code 10: Could not find any implementation for node X due to insufficient workspace.",
                r"cannot build 'tiny': .* insufficient workspace\. Give a larger --workspace",
            ),
            ("", "cannot build 'tiny': it gives no reason"),
        ],
    )
    def test_a_build_that_fails_says_why(
        self, rtx: TensorRt, bundle: Bundle, message: str, problem: str
    ) -> None:
        def fail(network: Any, config: Any) -> None:
            if message:
                log.log(rtx.module.ILogger.ERROR, message)

        changed = with_build(rtx.module, fail)
        log = message_log(changed).logger
        with pytest.raises(EngineError, match=problem):
            build(replace(rtx, module=changed), bundle)

    def test_memory_of_the_host_that_runs_out(self, rtx: TensorRt, bundle: Bundle) -> None:
        def fail(network: Any, config: Any) -> None:
            raise MemoryError

        with pytest.raises(EngineError, match=r"ran out of memory\. Give a smaller --workspace"):
            build(replace(rtx, module=with_build(rtx.module, fail)), bundle)


def altered(module: ModuleType, **changes: Any) -> ModuleType:
    """A module like this one but for some of its names."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update({**vars(module), **changes})
    return copy


def with_build(module: ModuleType, build_serialized_network: Callable[[Any, Any], None]) -> ModuleType:
    """A module whose builders build like this."""

    def open_builder(logger: Any) -> Any:
        builder = module.Builder(logger)
        names = ("create_network", "create_builder_config", "create_optimization_profile")
        methods = {name: getattr(builder, name) for name in names}
        return SimpleNamespace(**methods, build_serialized_network=build_serialized_network)

    return altered(module, Builder=open_builder)


class TestFullTensorRt:
    """What only the package `tensorrt` does, shown on TensorRT for RTX where that has the calls."""

    def test_without_a_gpu_it_cannot_build(self, rtx: TensorRt, bundle: Bundle) -> None:
        class NoBuilder:
            def __init__(self, logger: Any) -> None:
                logger.log(rtx.module.ILogger.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        full = TensorRt(altered(rtx.module, Builder=NoBuilder), "tensorrt", "10.3.0")
        with pytest.raises(
            EngineError, match=r"TensorRT 10\.3\.0 cannot build an engine without a GPU .* RTX"
        ):
            build(full, bundle)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in TensorRT for RTX it does nothing
    @pytest.mark.parametrize("earlier", [b"", b"garbage"])
    def test_the_timing_cache_comes_out(self, rtx: TensorRt, bundle: Bundle, earlier: bytes) -> None:
        full = replace(rtx, flavour="tensorrt")
        built = build(full, bundle, timing_cache=earlier)
        assert built.timing_cache
        assert build(full, bundle, timing_cache=built.timing_cache).timing_cache
        assert build(rtx, bundle).timing_cache == b""

    def test_a_version_that_is_too_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for version, accepted in (("8.6.1", False), ("10.2.0", False), ("10.3.0", True), ("11.0.0.1", True)):
            module = ModuleType("tensorrt")
            module.__version__ = version  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "tensorrt", module)
            if accepted:
                assert import_tensorrt("tensorrt") == TensorRt(module, "tensorrt", version)
            else:
                with pytest.raises(EngineError, match=rf"TensorRT {version} is too old\. Install .*10\.3"):
                    import_tensorrt("tensorrt")

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for package, flavour, extra in (
            ("tensorrt", "tensorrt", "tensorrt"),
            ("tensorrt_rtx", "tensorrt-rtx", "rtx"),
        ):
            monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
            with pytest.raises(MissingExtraError, match=rf"fgdd-fast\[{extra}\]"):
                import_tensorrt(flavour)  # type: ignore[arg-type]

    def test_libraries_that_cannot_be_loaded(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object')")
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(EngineError, match=r"installed, but cannot be loaded: libnvinfer\.so\.10"):
            import_tensorrt("tensorrt")


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
        check_precision(replace(bundle, variant="fp16"), mixed, "built engine")
        with pytest.raises(EngineError, match=r"in fp32, but .* in the built engine 1 do \(1 in fp16, 1 in"):
            check_precision(bundle, mixed, "built engine")
        with pytest.raises(EngineError, match=r"in int8, but of the 2 .* 0 do"):
            check_precision(replace(bundle, variant="int8"), mixed, "built engine")

    def test_layers_that_multiply_nothing_do_not_count(self, bundle: Bundle) -> None:
        layers = engine_layers([layer("a", "kgen", ["Half", "Half"]), layer("b", "gemm", ["Float", "Float"])])
        check_precision(bundle, layers, "built engine")
        with pytest.raises(EngineError, match="but of the 1 convolutions"):
            check_precision(replace(bundle, variant="fp16"), layers, "built engine")


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
    def test_an_engine_that_computes_in_something_else_is_refused(
        self, rtx: TensorRt, bundle: Bundle
    ) -> None:
        changed = self.with_engine(rtx, FakeInspectedEngine("Half", open_shapes=False))
        with pytest.raises(EngineError, match=r"in the built engine 0 do \(1 in fp16\)"):
            build(changed, bundle)

    @pytest.mark.usefixtures("gpu")
    def test_an_engine_that_tells_nothing_leaves_the_network(self, rtx: TensorRt, bundle: Bundle) -> None:
        built = build(
            self.with_engine(rtx, FakeInspectedEngine("Float", open_shapes=False, kind="kgen")), bundle
        )
        assert built.read_from == "network"
        assert precisions(built) == {"CONVOLUTION": "fp32", "MATRIX_MULTIPLY": "fp32"}

    @pytest.mark.usefixtures("gpu")
    def test_an_engine_that_cannot_be_loaded(self, rtx: TensorRt, bundle: Bundle) -> None:
        with pytest.raises(EngineError, match=r"cannot load the engine that it has built: .*another GPU"):
            build(self.with_engine(rtx, None), bundle)


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        (
            "[a.cpp::f::13] Error Code 2: Internal Error (x\n failed.)",
            "Error Code 2: Internal Error (x failed.)",
        ),
        ("Assertion failed: a::b == c: No such axis.", "No such axis"),
        ("x.cpp:559 In function parseNode: It is odd", "It is odd"),
    ],
)
def test_messages_lose_their_positions(message: str, cleaned: str) -> None:
    assert clean(message) == cleaned
