"""Building TensorRT plans: real builds in TensorRT for RTX, which needs no GPU for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tiny_builds import ONE, altered, build, model, precisions, tiny_variant
from tiny_models import tiny_description
from watched_progress import Watched

from fgdd_engines.base import TensorSpec
from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.tensorrt_backend.api import TensorRt, message_log
from fgdd_engines.tensorrt_backend.build import Profile, build_plan
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_fast.errors import EngineError, SettingsError

pytestmark = pytest.mark.usefixtures("nothing_on_the_terminal")


class TestProfile:
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


class TestShapes:
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


class TestProgress:
    def test_the_steps_of_a_build_are_told(self, rtx: TensorRt, bundle: Bundle) -> None:
        watched = Watched()
        build(rtx, bundle, progress=watched)
        assert {name for name, _ in watched.steps} == {"Building tiny"}
        assert watched.steps[-1][1] > 5

    def test_an_interrupt_stops_the_build(self, rtx: TensorRt, bundle: Bundle) -> None:
        """As a user's Ctrl-C comes: a signal, while the build is under way."""
        script = (
            "import os, signal, sys, time\n"
            "from pathlib import Path\n"
            "from fgdd_engines.bundle.bundle import load_bundle\n"
            "from fgdd_engines.tensorrt_backend.api import import_tensorrt\n"
            "from fgdd_engines.tensorrt_backend.build import Profile, build_plan\n"
            "from fgdd_engines.tensorrt_backend import progress\n"
            "progress._PAUSE = 0.01\n"
            "class Interrupting:\n"
            "    def __enter__(self): return self\n"
            "    def __exit__(self, *_): print('over')\n"
            "    def task(self, name, total=None): return self\n"
            "    def advance(self, steps):\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n"
            "        time.sleep(0.2)\n"
            "bundle = load_bundle(Path(sys.argv[1]))\n"
            "try:\n"
            "    build_plan(import_tensorrt('tensorrt-rtx'), bundle, Profile(1, 1, 1), axes={},"
            " progress=Interrupting())\n"
            "except KeyboardInterrupt:\n"
            "    print('stopped')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(bundle.onnx)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "over\nstopped\n")


class TestMemory:
    def test_a_workspace_that_is_none(self, rtx: TensorRt, bundle: Bundle) -> None:
        with pytest.raises(SettingsError, match="at least 1 MiB"):
            build(rtx, bundle, workspace_mib=0)

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
            (None, r"ran out of memory\. Give a smaller --workspace"),
        ],
    )
    def test_a_build_that_fails_says_why(
        self, rtx: TensorRt, bundle: Bundle, message: str | None, problem: str
    ) -> None:
        def fail(network: Any, config: Any) -> None:
            if message is None:  # it is the host's memory
                raise MemoryError
            if message:
                log.log(rtx.module.ILogger.ERROR, message)

        changed = with_build(rtx.module, fail)
        log = message_log(changed).logger
        with pytest.raises(EngineError, match=problem):
            build(replace(rtx, module=changed), bundle)


def with_build(module: ModuleType, build_serialized_network: Callable[[Any, Any], None]) -> ModuleType:
    """A module whose builders build like this."""

    def open_builder(logger: Any) -> Any:
        builder = module.Builder(logger)
        names = ("create_network", "create_builder_config", "create_optimization_profile")
        methods = {name: getattr(builder, name) for name in names}
        return SimpleNamespace(**methods, build_serialized_network=build_serialized_network)

    return altered(module, Builder=open_builder)


class TestTf32:
    def test_products_are_computed_so_only_where_that_is_asked_for(
        self, rtx: TensorRt, bundle: Bundle
    ) -> None:
        """By default a builder may."""
        found: list[bool] = []
        flag = rtx.module.BuilderFlag.TF32
        recording = with_build(rtx.module, lambda network, config: found.append(config.get_flag(flag)))
        for tf32 in (False, True):
            with pytest.raises(EngineError, match="it gives no reason"):
                build(replace(rtx, module=recording), bundle, tf32=tf32)
        assert found == [False, True]

    def test_its_graph_is_in_fp32(self, rtx: TensorRt, bundle: Bundle) -> None:
        built = build(rtx, bundle, tf32=True)
        assert precisions(built) == {"CONVOLUTION": "fp32", "MATRIX_MULTIPLY": "fp32"}


@pytest.mark.skipif(find_cuda_device(1) is not None, reason="there are two GPUs")
def test_a_gpu_that_is_not_there(rtx: TensorRt, bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="can be built on GPU 1: There is no"):
        build(rtx, bundle, gpu=1)


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
