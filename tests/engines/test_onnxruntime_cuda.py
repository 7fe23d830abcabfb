"""ONNX Runtime's CUDA provider: what is asked of it, and how it is checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tiny_models import tiny_feeds

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.onnxruntime_backend import copies as cuda_copies
from fgdd_engines.onnxruntime_backend import cuda
from fgdd_engines.onnxruntime_backend.cpu import OnnxRuntimeEngine
from fgdd_engines.onnxruntime_backend.session import session_options
from fgdd_engines.probing.nvidia import has_nvidia_device
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_fast.errors import EngineError, SettingsError

onnxruntime = pytest.importorskip("onnxruntime")
BATCH = 4


@pytest.fixture
def reference(bundle: Bundle) -> Iterator[OnnxRuntimeEngine]:
    with OnnxRuntimeEngine(bundle, {"batch": BATCH}, 1) as engine:
        assert isinstance(engine, OnnxRuntimeEngine)
        yield engine


def session(**nodes: list[str]) -> Any:
    """What says of its nodes what a session of ONNX Runtime does."""
    parts = [
        SimpleNamespace(
            ep_name=f"{name}ExecutionProvider",
            get_nodes=lambda types=types: [SimpleNamespace(op_type=kind) for kind in types],
        )
        for name, types in nodes.items()
    ]
    return SimpleNamespace(
        get_providers=lambda: [*(part.ep_name for part in parts), "CPUExecutionProvider"],
        get_provider_graph_assignment_info=lambda: [part for part in parts if part.get_nodes()],
    )


def test_shapes_may_be_computed_on_the_cpu() -> None:
    cuda.check_placement(session(CUDA=["Conv", "Cast"], CPU=["Shape", "Gather", "Concat"]), "tiny", "")


@pytest.mark.parametrize(
    ("nodes", "refusal"),
    [
        ({"CUDA": ["Cast"], "CPU": ["Shape", "Conv"]}, r"leaves \['Conv'\] of 'tiny' to the CPU"),
        ({"CUDA": ["Cast"], "CPU": ["MatMul"]}, r"leaves \['MatMul'\] of 'tiny' to the CPU"),
        ({"CUDA": ["Conv"], "CPU": ["GridSample"]}, r"leaves \['GridSample'\] of 'tiny' to the CPU"),
        ({"CUDA": [], "CPU": ["Add"]}, "takes no part of 'tiny'"),
        ({"CPU": ["Conv"]}, r"cannot start CUDA.*: no libcublas\. Run: fgdd-fast doctor"),
    ],
)
def test_a_model_that_would_run_on_the_cpu_is_refused(nodes: dict[str, list[str]], refusal: str) -> None:
    with pytest.raises(EngineError) as caught:
        cuda.check_placement(session(**nodes), "tiny", "no libcublas")
    assert re.search(refusal, str(caught.value))


def test_a_real_session_tells_where_its_nodes_are(bundle: Bundle) -> None:
    options = session_options(onnxruntime, {"batch": 1})
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    real = onnxruntime.InferenceSession(str(bundle.onnx), options, providers=["CPUExecutionProvider"])
    if not hasattr(real, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not tell where its nodes are")
    with pytest.raises(EngineError, match=r"leaves \['Conv', 'MatMul'\]"):
        cuda.check_placement(real, "tiny", "", "CPUExecutionProvider")


@pytest.mark.skipif(has_nvidia_device(), reason="there is a GPU")
def test_without_a_gpu_the_error_says_what_to_do(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match="CUDAExecutionProvider") as caught:
        cuda.CudaEngine(bundle, {"batch": 1})
    built_with_it = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    assert caught.value.advice == (cuda.ADVICE if built_with_it else cuda.REINSTALL)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_gpus_name_comes_from_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "find_cuda_device", lambda index: None)
    monkeypatch.setattr(cuda, "find_cuda_devices", lambda: ())
    assert cuda.find_gpu(0, tmp_path).name == cuda.find_gpu(1, tmp_path).name == "unknown GPU"
    for slot, name in (("01", "NVIDIA RTX A2000"), ("02", "NVIDIA RTX A4000")):
        told = tmp_path / f"proc/driver/nvidia/gpus/0000:{slot}:00.0/information"
        told.parent.mkdir(parents=True)
        told.write_text(f"Model: \t\t {name}\nIRQ:   \t\t 16\n")
    assert str(cuda.find_gpu(0, tmp_path)) == "NVIDIA RTX A2000"
    assert str(cuda.find_gpu(1, tmp_path)) == "NVIDIA RTX A4000"
    with pytest.raises(EngineError, match="There is no GPU 2: there are 2, counted from 0"):
        cuda.find_gpu(2, tmp_path)


def test_cudas_bindings_know_the_gpus_better(monkeypatch: pytest.MonkeyPatch) -> None:
    orin = CudaDevice("Orin", (8, 7), 8 << 30, "13.0", "13.0")
    monkeypatch.setattr(cuda, "find_cuda_device", lambda index: orin if index == 0 else None)
    monkeypatch.setattr(cuda, "find_cuda_devices", lambda: (orin,))
    assert str(cuda.find_gpu()) == "Orin (8.7)"
    with pytest.raises(EngineError, match="There is no GPU 1: the only one is number 0"):
        cuda.find_gpu(1)


def test_the_first_library_that_is_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def preload_dlls() -> None:
        print("Failed to load libcublasLt.so.13: libcublasLt.so.13: cannot open shared object file")
        print("Failed to load libcudnn.so.9: libcudnn.so.9: cannot open shared object file")

    severities: list[int] = []
    runtime: Any = SimpleNamespace(
        set_default_logger_severity=severities.append,
        get_available_providers=lambda: ["CUDAExecutionProvider"],
        preload_dlls=preload_dlls,
    )
    assert "libcublasLt.so.13: cannot open" in cuda.load_libraries(runtime)
    assert capsys.readouterr() == ("", "")
    assert severities == [4]


def with_cpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (8, 7)) -> list[dict[str, Any]]:
    """Put the CPU in the GPU's place; the list returned fills with what each session's provider is asked."""
    asked: list[dict[str, Any]] = []

    def provider_chain(record: bool, **options: Any) -> list[str]:
        asked.append({"record": record, **options})
        return ["CPUExecutionProvider"]

    for name, value in {
        "DEVICE": "cpu",
        "provider_chain": provider_chain,
        "load_libraries": lambda runtime: "",
        "check_placement": lambda session, name, missing: {"CPU": {"Conv": 2}},
        "find_cuda_device": lambda index: CudaDevice("Orin", capability, 8 << 30, "13.0", "13.0"),
    }.items():
        monkeypatch.setattr(cuda, name, value)
    return asked


@pytest.mark.parametrize(("threads", "streams"), [(1, 1), (16, 2)])
def test_it_opens_no_more_sessions_than_threads_can_use(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, threads: int, streams: int
) -> None:
    asked = with_cpu(monkeypatch)
    with open_engine(bundle, device="cuda", axes={"batch": BATCH}, threads=threads) as engine:
        assert engine.streams == len(asked) == streams


@pytest.mark.parametrize("graphs", [True, False])
def test_it_says_what_became_of_graphs_and_nodes(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, graphs: bool
) -> None:
    asked = with_cpu(monkeypatch)
    with cuda.CudaEngine(bundle, {"batch": BATCH}, graphs=graphs) as engine:
        assert engine.uses_cuda_graphs == graphs
        assert engine.placement == {"CPU": {"Conv": 2}}
    assert {each["record"] for each in asked} == {graphs}


def test_tf32_is_asked_for(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.provider_chain(record=True, tf32=True)[0][1]["use_tf32"] == "1"
    asked = with_cpu(monkeypatch)
    with open_engine(bundle, device="cuda", precision="tf32", axes={"batch": BATCH}, threads=1) as engine:
        assert engine.arithmetic.endswith(", CUDA with TF32, Orin, tf32")
    assert asked == [{"record": True, "tf32": True, "gpu": 0}]
    half = replace(bundle, variant="fp16")
    for graph, device in ((half, "cuda"), (half, "tensorrt"), (bundle, "cpu"), (bundle, "openvino")):
        with pytest.raises(SettingsError, match="not tf32"):
            open_engine(graph, device=device, precision="tf32", axes={"batch": BATCH}, threads=1)
    with_cpu(monkeypatch, (7, 5))
    with pytest.raises(SettingsError, match=r"Orin \(7\.5\) does not compute in tf32"):
        open_engine(bundle, device="cuda", precision="tf32", axes={"batch": BATCH}, threads=1)


def save_with_copies(path: str, count: int) -> None:
    """Save a graph as a session does that put so many copies into it, and names that only look like that."""
    nodes = [helper.make_node("Add", ["MemcpyToHost", "x"], ["y"], name="MemcpyFromHost")]
    nodes += [
        helper.make_node("MemcpyToHost" if index % 2 else "MemcpyFromHost", ["y"], [f"z{index}"])
        for index in range(count)
    ]
    Path(path).write_bytes(helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString())


@pytest.mark.parametrize(
    ("copies", "room", "refused", "warned"),
    [
        (0, True, False, False),
        (3, True, False, True),
        (17, True, True, False),
        (17, False, False, False),  # nothing is known then
    ],
)
def test_a_model_that_goes_back_and_forth_is_refused(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    copies: int,
    room: bool,
    refused: bool,
    warned: bool,
) -> None:
    """Which ONNX Runtime never lets be recorded, and tells in its log alone."""
    with_cpu(monkeypatch)
    saved: list[Path] = []
    real = onnxruntime.InferenceSession

    def open_session(file: str, sess_options: Any, **options: Any) -> Any:
        if (path := sess_options.optimized_model_filepath) == "" and room:
            raise RuntimeError("there are Memcpy nodes, with which no graph can be captured")
        found = real(file, sess_options=sess_options, **options)
        if path:
            saved.append(Path(path))
            assert copies_of(path) == 0  # as the session really saved it
            save_with_copies(path, copies)
        return found

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    free = SimpleNamespace(free=10**12 if room else 0)
    monkeypatch.setattr(cuda_copies.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(EngineError, match="moves 17 tensors of 'tiny'") if refused else nullcontext():
        cuda.CudaEngine(bundle, {"batch": BATCH}).close()
    assert ("3 tensors go between the GPU and the CPU" in caplog.text) == warned
    assert len(saved) == room
    assert not any(path.parent.exists() for path in saved)


def copies_of(path: str) -> int:
    assert Path(path).stat().st_size > 1000
    return cuda_copies.count_copies(Path(path))


def test_another_gpu_is_asked_for(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cuda.provider_chain(record=True, gpu=1)[0][1]["device_id"] == "1"
    asked = with_cpu(monkeypatch)
    placed: list[tuple[Any, ...]] = []
    make = onnxruntime.OrtValue.ortvalue_from_shape_and_type

    def record(shape: Any, dtype: Any, *place: Any) -> Any:
        placed.append(place)
        return make(shape, dtype, "cpu", 0)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", record)
    with open_engine(bundle, device="cuda:1", axes={"batch": BATCH}, threads=1) as engine:
        assert engine.arithmetic.endswith(", CUDA without TF32, Orin, fp32")
    assert asked == [{"record": True, "tf32": False, "gpu": 1}]
    assert set(placed) == {("cpu", 1)}


def test_the_whole_engine_with_the_cpu_in_the_gpus_place(
    bundle: Bundle, reference: OnnxRuntimeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF32 is off, algorithms are the same in every process, and a CUDA graph is recorded."""
    (provider, options), last = cuda.provider_chain(record=True)
    assert (provider, last) == ("CUDAExecutionProvider", ("CPUExecutionProvider", {}))
    assert options == {
        "device_id": "0",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1",
    }
    with_cpu(monkeypatch)
    feeds = tiny_feeds(BATCH)
    with cuda.CudaEngine(replace(bundle, variant="fp16"), {"batch": BATCH}) as engine:
        found = engine.run(feeds, ["loss"])
        assert engine.streams == 2
        version = onnxruntime.__version__
        assert engine.arithmetic == f"ONNX Runtime {version}, CUDA without TF32, Orin, fp16"
    assert np.array_equal(found["loss"], reference.run(feeds)["loss"])


@pytest.mark.skipif(not has_nvidia_device(), reason="there is no NVIDIA GPU")
def test_on_a_gpu_it_computes_what_the_graph_says(bundle: Bundle, reference: OnnxRuntimeEngine) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime was built without CUDA")
    with cuda.CudaEngine(bundle, {"batch": BATCH}) as engine:
        for seed in range(3):
            feeds = tiny_feeds(BATCH, seed)
            expected, found = reference.run(feeds), engine.run(feeds)
            np.testing.assert_allclose(found["logits"], expected["logits"], rtol=0, atol=1e-2)
            np.testing.assert_allclose(found["loss"], expected["loss"], rtol=0, atol=1e-2)
