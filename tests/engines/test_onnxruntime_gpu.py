"""ONNX Runtime's providers for GPUs: what is asked of them, and how they are checked."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_bundle, tiny_feeds

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.hashed_folder import is_whole
from fgdd_engines.onnxruntime_backend import gpu
from fgdd_engines.onnxruntime_backend.cpu import OnnxRuntimeEngine
from fgdd_engines.onnxruntime_backend.session import session_options
from fgdd_engines.probing.nvidia import has_nvidia_device
from fgdd_fast.errors import EngineError, MissingExtraError

onnxruntime = pytest.importorskip("onnxruntime")
BATCH = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def reference(bundle: Bundle) -> Iterator[OnnxRuntimeEngine]:
    with OnnxRuntimeEngine(bundle, {"batch": BATCH}, 1) as engine:
        assert isinstance(engine, OnnxRuntimeEngine)
        yield engine


class TestOptions:
    def test_cuda(self) -> None:
        assert gpu.provider_chain("cuda", Path("cache"), record=True) == [
            (
                "CUDAExecutionProvider",
                {
                    "device_id": "0",
                    "use_tf32": "0",
                    "cudnn_conv_algo_search": "HEURISTIC",
                    "arena_extend_strategy": "kSameAsRequested",
                    "enable_cuda_graph": "1",
                },
            ),
            ("CPUExecutionProvider", {}),
        ]

    def test_tensorrt(self) -> None:
        """Nothing lowers the graph's precision, and nodes that TensorRT does not take are not recorded."""
        (tensorrt, options), (cuda, cuda_options), cpu = gpu.provider_chain(
            "onnxruntime-tensorrt", Path("cache"), record=True
        )
        assert (tensorrt, cuda, cpu) == (
            "TensorrtExecutionProvider",
            "CUDAExecutionProvider",
            ("CPUExecutionProvider", {}),
        )
        assert options == {
            "device_id": "0",
            "trt_fp16_enable": "0",
            "trt_int8_enable": "0",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "cache",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": "cache",
            "trt_cuda_graph_enable": "1",
        }
        assert cuda_options["enable_cuda_graph"] == "0"

    def test_rtx(self) -> None:
        assert gpu.rtx_options(Path("cache"), record=False) == {
            "nv_runtime_cache_path": "cache",
            "enable_cuda_graph": "0",
        }

    def test_what_is_built_is_kept_by_all_that_it_depends_on(self, bundle: Bundle) -> None:
        platform = ("ONNX Runtime 1.31.1", "Orin")
        keys = [
            gpu.cache_key(bundle, {"batch": 1}, platform),
            gpu.cache_key(bundle, {"batch": 2}, platform),
            gpu.cache_key(bundle, {"batch": 1}, ("ONNX Runtime 1.31.2", "Orin")),
            gpu.cache_key(bundle, {"batch": 1}, ("ONNX Runtime 1.31.1", "Thor")),
            gpu.cache_key(replace(bundle, variant="fp16"), {"batch": 1}, platform),
            gpu.cache_key(replace(bundle, sha256="0" * 64), {"batch": 1}, platform),
        ]
        assert len(set(keys)) == len(keys)
        assert gpu.cache_key(bundle, {"batch": 1}, platform) == keys[0]


@dataclass(frozen=True)
class Node:
    op_type: str


class Session:
    """Says of its nodes what a session of ONNX Runtime does."""

    def __init__(self, **nodes: list[str]) -> None:
        self.nodes = {f"{name}ExecutionProvider": types for name, types in nodes.items()}

    def get_providers(self) -> list[str]:
        return [*self.nodes, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        def nodes_of(types: list[str]) -> Any:
            return lambda: [Node(name) for name in types]

        return [
            SimpleNamespace(ep_name=name, get_nodes=nodes_of(types))
            for name, types in self.nodes.items()
            if types
        ]


class TestPlacement:
    def refusal(self, session: Any, missing: str = "") -> str | None:
        """What is said against a session, None if nothing."""
        try:
            gpu.check_placement(session, "CUDAExecutionProvider", "tiny", missing)
        except EngineError as error:
            return str(error)
        return None

    def test_shapes_may_be_computed_on_the_cpu(self) -> None:
        session = Session(CUDA=["Conv", "Cast"], CPU=["Shape", "Gather", "Concat"])
        assert self.refusal(session) is None

    @pytest.mark.parametrize("heavy", ["Conv", "MatMul", "Gemm", "ConvTranspose"])
    def test_what_is_heavy_may_not(self, heavy: str) -> None:
        refusal = self.refusal(Session(CUDA=["Cast"], CPU=["Shape", heavy]))
        assert refusal is not None
        assert f"leaves ['{heavy}'] of 'tiny' to the CPU" in refusal

    def test_a_provider_without_a_node_is_refused(self) -> None:
        refusal = self.refusal(Session(CUDA=[], CPU=["Add"]))
        assert refusal is not None
        assert "takes no part of 'tiny'" in refusal

    def test_a_provider_that_did_not_start_is_refused(self) -> None:
        refusal = self.refusal(Session(CPU=["Conv"]), "no libcublas")
        assert refusal is not None
        assert re.search(r"cannot start CUDA.*: no libcublas\. Run: fgdd-fast doctor", refusal)

    def test_a_real_session_tells_where_its_nodes_are(self, bundle: Bundle) -> None:
        options = session_options(onnxruntime, {"batch": 1})
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = onnxruntime.InferenceSession(str(bundle.onnx), options, providers=["CPUExecutionProvider"])
        if not hasattr(session, "get_provider_graph_assignment_info"):
            pytest.skip("this ONNX Runtime does not tell where its nodes are")
        with pytest.raises(EngineError, match=r"leaves \['Conv', 'MatMul'\]"):
            gpu.check_placement(session, "CPUExecutionProvider", "tiny", "")


def has(provider: gpu.GpuProvider) -> bool:
    return gpu.PROVIDERS[provider] in onnxruntime.get_available_providers()


class TestWithoutAGpu:
    @pytest.fixture(autouse=True)
    def no_gpu(self) -> None:
        if has_nvidia_device():
            pytest.skip("there is a GPU")

    @pytest.mark.parametrize("provider", ["cuda", "onnxruntime-tensorrt"])
    def test_the_error_says_what_to_do(
        self,
        bundle: Bundle,
        provider: gpu.GpuProvider,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        with pytest.raises(EngineError, match=gpu.PROVIDERS[provider]) as caught:
            gpu.OnnxRuntimeGpuEngine(bundle, {"batch": 1}, provider, cache=tmp_path)
        assert caught.value.advice == (gpu.ADVICE if has(provider) else gpu.REINSTALL)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_a_missing_plugin_is_named_with_its_extra(
        self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)
        with pytest.raises(MissingExtraError, match=r"fgdd-fast\[rtx\]"):
            gpu.OnnxRuntimeGpuEngine(bundle, {"batch": 1}, "onnxruntime-rtx", cache=tmp_path)

    def test_the_gpus_name_comes_from_its_driver(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu, "find_cuda_device", lambda: None)
        assert gpu.gpu_name(tmp_path) == "unknown GPU"
        told = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information"
        told.parent.mkdir(parents=True)
        told.write_text("Model: \t\t NVIDIA RTX A2000\nIRQ:   \t\t 16\n")
        assert gpu.gpu_name(tmp_path) == "NVIDIA RTX A2000"


class Runtime:
    """Stands for the package `onnxruntime` where it was built for GPUs, or has a plugin for them."""

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.registered: list[str] = []

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity

    def get_available_providers(self) -> list[str]:
        return list(gpu.PROVIDERS.values())

    def preload_dlls(self) -> None:
        print("Failed to load libcublasLt.so.13: libcublasLt.so.13: cannot open shared object file")
        print("Failed to load libcudnn.so.9: libcudnn.so.9: cannot open shared object file")

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append(name)

    def get_ep_devices(self) -> list[Any]:
        names = ["CPUExecutionProvider", *self.registered * self.devices]
        return [SimpleNamespace(ep_name=name, number=number) for number, name in enumerate(names)]


class TestStarting:
    @pytest.fixture(autouse=True)
    def plugin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plugin: Any = ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
        plugin.get_ep_name = lambda: "NvTensorRTRTXExecutionProvider"
        plugin.get_library_path = lambda: "library.so"
        monkeypatch.setitem(sys.modules, plugin.__name__, plugin)

    def test_the_first_library_that_is_missing_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        runtime: Any = Runtime()
        assert "libcublasLt.so.13: cannot open" in gpu.load_libraries(runtime, "cuda")
        assert capsys.readouterr() == ("", "")
        assert runtime.severity == 4

    def test_the_plugin_is_registered_once_and_gives_its_first_gpu(self) -> None:
        runtime: Any = Runtime(devices=2)
        for _ in range(2):
            (device,) = gpu.rtx_devices(runtime)
            assert (device.ep_name, device.number) == ("NvTensorRTRTXExecutionProvider", 1)
        assert runtime.registered == ["NvTensorRTRTXExecutionProvider"]

    def test_a_plugin_without_a_gpu(self) -> None:
        runtime: Any = Runtime(devices=0)
        with pytest.raises(EngineError, match="takes none of this machine's GPUs"):
            gpu.rtx_devices(runtime)

    def test_the_whole_engine_with_the_cpu_in_the_gpus_place(
        self,
        bundle: Bundle,
        reference: OnnxRuntimeEngine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name, value in {
            "DEVICE": "cpu",
            "PROVIDERS": {"onnxruntime-tensorrt": "CPUExecutionProvider"},
            "provider_chain": lambda provider, cache, record: ["CPUExecutionProvider"],
            "_HEAVY": frozenset(),
            "find_cuda_device": lambda: SimpleNamespace(name="Orin"),
        }.items():
            monkeypatch.setattr(gpu, name, value)
        feeds = tiny_feeds(BATCH)
        for _ in range(2):
            with gpu.OnnxRuntimeGpuEngine(
                replace(bundle, variant="fp16"), {"batch": BATCH}, "onnxruntime-tensorrt", cache=tmp_path
            ) as engine:
                found = engine.run(feeds, ["loss"])
                assert engine.streams == 2
                assert engine.arithmetic.startswith(f"ONNX Runtime {onnxruntime.__version__}, tensorrt")
                assert engine.arithmetic.endswith("with TF32, Orin, fp16")
            assert np.array_equal(found["loss"], reference.run(feeds)["loss"])
        (folder,) = tmp_path.iterdir()
        assert is_whole(folder)


class TestOnAGpu:
    @pytest.mark.parametrize("provider", gpu.PROVIDERS)
    def test_it_computes_what_the_graph_says(
        self,
        bundle: Bundle,
        reference: OnnxRuntimeEngine,
        provider: gpu.GpuProvider,
        tmp_path: Path,
    ) -> None:
        if not has_nvidia_device():
            pytest.skip("there is no NVIDIA GPU")
        if provider == "onnxruntime-rtx":
            pytest.importorskip("onnxruntime_ep_nv_tensorrt_rtx")
        elif not has(provider):
            pytest.skip(f"this ONNX Runtime was built without {gpu.PROVIDERS[provider]}")
        for _ in range(2):  # the second time from what the first has built
            with gpu.OnnxRuntimeGpuEngine(bundle, {"batch": BATCH}, provider, cache=tmp_path) as engine:
                assert engine.arithmetic.endswith("fp32")
                for seed in range(3):
                    feeds = tiny_feeds(BATCH, seed)
                    expected, found = reference.run(feeds), engine.run(feeds)
                    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=0, atol=1e-2)
                    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=0, atol=1e-2)


class TestCaches:
    """What TensorRT builds is used again if it is whole, and nothing else is."""

    def test_it_stays(self, tmp_path: Path) -> None:
        for content in ("built", "built"):
            with gpu.provider_cache(tmp_path, "key", "onnxruntime-tensorrt") as folder:
                (folder / "engine").write_text(content)
        with gpu.provider_cache(tmp_path, "key", "onnxruntime-tensorrt") as folder:
            assert (folder / "engine").read_text() == "built"

    @pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
    def test_it_is_built_again_when_it_was_damaged(self, tmp_path: Path, damage: str) -> None:
        with gpu.provider_cache(tmp_path, "key", "onnxruntime-tensorrt") as folder:
            (folder / "engine").write_text("built")
            (folder / "timing").write_text("times")
        if damage == "removed":
            (folder / "engine").unlink()
        else:
            (folder / "engine").write_text({"changed": "BUILT", "cut": "bui"}[damage])
        with gpu.provider_cache(tmp_path, "key", "onnxruntime-tensorrt") as folder:
            assert list(folder.iterdir()) == []

    def test_it_is_built_again_when_the_first_build_failed(self, tmp_path: Path) -> None:
        def build() -> None:
            with gpu.provider_cache(tmp_path, "key", "onnxruntime-tensorrt") as folder:
                (folder / "engine").write_text("half")
                raise EngineError("out of memory")

        with pytest.raises(EngineError, match="out of memory"):
            build()
        with gpu.provider_cache(tmp_path, "key", "onnxruntime-tensorrt") as folder:
            assert list(folder.iterdir()) == []

    def test_what_rtx_compiles_stays_without_hashes(self, tmp_path: Path) -> None:
        """It writes when a session ends, and checks its own files."""
        with gpu.provider_cache(tmp_path, "key", "onnxruntime-rtx") as folder:
            pass
        (folder / "kernels").write_text("compiled later")
        with gpu.provider_cache(tmp_path, "key", "onnxruntime-rtx") as folder:
            assert (folder / "kernels").exists()

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with (
            pytest.raises(EngineError, match="cannot be written"),
            gpu.provider_cache(tmp_path / "file", "key", "onnxruntime-rtx"),
        ):
            pass
