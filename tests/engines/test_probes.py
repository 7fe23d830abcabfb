"""A device runs where something ran on it; whatever its libraries do instead is told in a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest

from fgdd_engines.backends import DEVICES, find_backend
from fgdd_engines.base import Device
from fgdd_engines.onnxruntime_backend import descriptor as onnxruntime_descriptor
from fgdd_engines.onnxruntime_backend.cuda import Gpu
from fgdd_engines.probing import probes
from fgdd_engines.probing.nvidia import has_nvidia_device, jetson_model
from fgdd_engines.probing.probes import Probe, probe
from fgdd_engines.tensorrt_backend import descriptor
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_fast.errors import EngineError, SettingsError

ON_GPU = [device for device in DEVICES if device not in ("cpu", "openvino")]
RUNS = {
    "available": "return [provider, 'CPUExecutionProvider']",
    "get_providers": "return [provider, 'CPUExecutionProvider']",
    "run": "return [feeds['x'] * 2]",
    "open": "pass",
    "preload": "pass",
}
ONNXRUNTIME = """
import os, sys, time
__version__ = "9.9.9"
provider = "CUDAExecutionProvider"

def get_available_providers():
    {available}

def set_default_logger_severity(severity):
    pass

def preload_dlls():
    {preload}

class ExecutionMode:
    ORT_SEQUENTIAL = None

class SessionOptions:
    def add_session_config_entry(self, key, value):
        assert (key, value) == ("session.disable_cpu_ep_fallback", "1")

class InferenceSession:
    def __init__(self, graph, sess_options, providers, enable_fallback):
        assert (providers, enable_fallback) == ([(provider, {{"device_id": "0"}})], False)
        {open}
    def get_providers(self):
        {get_providers}
    def run(self, outputs, feeds):
        {run}
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What is found out about faked machines is not remembered."""
    probe.cache_clear()
    yield
    probe.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that seems to have an NVIDIA GPU, and is no Jetson."""
    monkeypatch.setattr(probes, "has_nvidia_device", lambda: True)
    monkeypatch.setattr(probes, "jetson_model", lambda: None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: None) -> Callable[..., None]:
    """Put an ONNX Runtime with these methods before all others, for this process and those that it starts."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(probes, "_is_installed", lambda package: True)

    def install(**methods: str) -> None:
        (tmp_path / "onnxruntime.py").write_text(ONNXRUNTIME.format(**{**RUNS, **methods}))

    return install


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(("device", "package"), [("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_the_cpus_runtimes_run(device: Device, package: str) -> None:
    runtime = pytest.importorskip(package, reason=f"{package} is not installed")
    found = probe(device)
    assert found.runs, found.detail
    assert runtime.__version__.partition("-")[0] in found.detail
    assert found.advice == ""


def test_all_devices_are_probed_in_order_and_nothing_is_printed() -> None:
    script = (
        "from fgdd_engines.probing.probes import probe_all\n"
        "from fgdd_engines.backends import DEVICES\n"
        "assert [found.device for found in probe_all()] == list(DEVICES)\n"
        "assert all(found.detail for found in probe_all())\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_without_a_gpu_nothing_is_started_or_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "has_nvidia_device", lambda: False)
    monkeypatch.setattr(subprocess, "run", None)
    for device in ON_GPU:
        find_backend(device)
    before = set(sys.modules)
    for device in ON_GPU:
        assert probe(device) == Probe(device, False, "no NVIDIA GPU or driver was found")
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("device", "package", "advice"),
    [
        ("cpu", "onnxruntime", "pip install 'fgdd-fast[cpu]'"),
        ("cuda", "onnxruntime", "pip install 'fgdd-fast[gpu]'"),
        ("tensorrt", "tensorrt", "pip install 'fgdd-fast[tensorrt]'"),
        ("tensorrt-rtx", "tensorrt_rtx", "pip install 'fgdd-fast[rtx]'"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_a_missing_package_gives_the_install_line(
    device: Device, package: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, package)
    detail = f"the Python package {package} is not installed"
    assert probe(device) == Probe(device, False, detail, advice)


def test_openvino_is_not_advised_together_with_another_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", probes)  # anything that is there
    assert probe("openvino").advice == "pip install openvino"
    probe.cache_clear()
    without(monkeypatch, "onnxruntime")
    assert probe("openvino").advice == "pip install 'fgdd-fast[cpu]'"


@pytest.mark.usefixtures("gpu")
def test_on_a_jetson_tensorrt_comes_with_jetpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "jetson_model", lambda: "NVIDIA Jetson AGX Orin Developer Kit")
    without(monkeypatch, "tensorrt", "tensorrt_rtx", "onnxruntime")
    assert "--system-site-packages" in probe("tensorrt").advice
    assert "device tensorrt" in probe("tensorrt-rtx").advice
    assert "device tensorrt" in probe("cuda").advice
    assert probe("cpu").advice == "pip install 'fgdd-fast[cpu]'"


@pytest.mark.usefixtures("gpu")
def test_plans_are_run_through_cuda_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", probes)
    without(monkeypatch, "cuda.bindings")
    found = probe("tensorrt")
    assert (found.runs, found.advice) == (False, "pip install cuda-bindings")


def test_a_provider_that_computes_rightly_runs(installed: Callable[..., None]) -> None:
    installed()
    detail = "ONNX Runtime 9.9.9, CUDAExecutionProvider"
    assert probe("cuda") == Probe("cuda", True, detail)


def test_a_verdict_is_one_of_a_gpu(installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts are kept by the words of probes, so these name the GPU."""
    installed()
    orin = CudaDevice("Orin", (8, 7), 8 << 30, "13.0", "13.0")
    monkeypatch.setattr(onnxruntime_descriptor, "find_gpu", lambda index: Gpu("Orin", orin))
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    assert probes._probe_here("cuda").detail == "ONNX Runtime 9.9.9, CUDAExecutionProvider, Orin (8.7)"


def test_a_device_that_cannot_be_numbered_is_refused() -> None:
    for device, problem in (
        ("cpu:0", "The device cpu has no GPUs to choose from. Use the device cpu."),
        ("openvino:1", "The device openvino has no GPUs to choose from"),
        ("cuda:", "The device 'cuda:' does not end with the number of a GPU"),
        ("cuda:-1", "The device 'cuda:-1' does not end with the number"),
        ("cuda:one", "GPUs are counted from 0: cuda:1 is the second"),
        ("cuda:1:2", "does not end with the number"),
        ("cuda:²", "does not end with the number"),
        ("auto:1", "There is no device 'auto'"),
        ("onnxruntime-rtx:1", "Use the device tensorrt-rtx"),
    ):
        with pytest.raises(SettingsError) as caught:
            find_backend(device)
        assert problem in str(caught.value)
    assert find_backend("cuda").variants == find_backend("cuda:3").variants


def test_a_module_without_a_spec_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that a program made by itself: `find_spec` raises then."""
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    assert probes._is_installed("tensorrt")
    assert not probes._is_installed("no_such_package.part")


@pytest.mark.parametrize(
    ("method", "body", "detail"),
    [
        ("get_providers", "return ['CPUExecutionProvider']", "gave way to CPUExecutionProvider"),
        ("run", "return [feeds['x']]", "computes wrongly"),
        ("open", "raise RuntimeError('a reason')", "cannot run: a reason"),
        ("open", "os.abort()", "ended the process with SIGABRT"),
        ("open", "sys.exit('leaving')", "its probe failed: leaving"),
        ("open", "sys.exit()", "its probe failed"),
        (
            "open",
            "os.write(2, b'libcublasLt.so.13: cannot open shared object file'); raise RuntimeError()",
            "the library libcublasLt.so.13 was not found",
        ),
        (
            "open",
            "raise RuntimeError('libcuda.so.1: cannot open shared object file: No such file or directory')",
            "no NVIDIA GPU or driver was found",
        ),
        (
            "run",
            "raise RuntimeError('CUDA error: no kernel image is available for execution on the device')",
            "this package has no code for the architecture of this GPU",
        ),
    ],
)
def test_a_provider_that_does_not_run_says_why(
    method: str, body: str, detail: str, installed: Callable[..., None]
) -> None:
    installed(**{method: body})
    found = probe("cuda")
    assert not found.runs
    assert detail in found.detail
    assert "\n" not in found.detail


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("libcublasLt.so.13: cannot open shared object file", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
        ("libnvinfer.so.10: cannot open shared object file", "LD_LIBRARY_PATH"),
        ("cudaError 35: CUDA driver version is insufficient", "Update NVIDIA's driver."),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_known_failures_come_with_advice(message: str, advice: str, installed: Callable[..., None]) -> None:
    installed(open=f"raise RuntimeError({message!r})")
    assert advice in probe("cuda").advice


def test_a_library_that_cannot_be_loaded_beforehand_is_the_reason(
    installed: Callable[..., None],
) -> None:
    told = "print('Failed to load libcudart.so.13: libcudart.so.13: cannot open shared object file: No')"
    installed(preload=told, open="raise RuntimeError('nodes are assigned to the CPU')")
    assert probe("cuda").detail == "the library libcudart.so.13 was not found"


def test_a_runtime_without_the_provider_is_replaced(installed: Callable[..., None]) -> None:
    installed(available="return []")
    found = probe("cuda")
    assert "was built without CUDAExecutionProvider" in found.detail
    assert found.advice.startswith("pip uninstall -y onnxruntime")


def test_a_probe_that_never_ends_is_ended(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "TIME_LIMIT", 0.5)
    installed(open="time.sleep(60)")
    assert "did not end within" in probe("cuda").detail


def test_what_a_library_prints_is_kept_from_the_terminal(
    installed: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    noise = "os.write(1, b'noise'); os.write(2, b'noise'); print('noise')"
    installed(open=noise)
    assert probe("cuda").runs
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(has_nvidia_device(), reason="there may be a GPU here that runs engines")
def test_tensorrt_says_that_there_is_no_driver() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    with pytest.raises(EngineError, match="driver version is insufficient"):
        descriptor.run_probe("tensorrt-rtx")


@pytest.mark.parametrize("node", ["dev/nvidiactl", "dev/nvgpu/igpu0/ctrl", "dev/dxg"])
def test_a_gpu_shows_in_its_device_node(tmp_path: Path, node: str) -> None:
    assert not has_nvidia_device(tmp_path)
    (tmp_path / node).parent.mkdir(parents=True)
    (tmp_path / node).touch()
    assert has_nvidia_device(tmp_path)


def test_a_jetson_shows_in_the_device_tree(tmp_path: Path) -> None:
    assert jetson_model(tmp_path) is None
    model = tmp_path / "proc" / "device-tree" / "model"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0")
    assert jetson_model(tmp_path) == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    model.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert jetson_model(tmp_path) is None


def test_an_engine_that_loads_needs_a_gpu_that_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    device = CudaDevice("NVIDIA RTX", (12, 0), 2**34, "13.0", "13.0")
    monkeypatch.setattr(descriptor, "_load_engine", lambda *arguments: None)
    monkeypatch.setattr(descriptor, "on_device", lambda gpu: nullcontext())
    monkeypatch.setattr(descriptor, "find_cuda_device", lambda gpu: device)
    assert descriptor.run_probe("tensorrt-rtx").endswith(", NVIDIA RTX (12.0)")
    device = CudaDevice("NVIDIA H100", (9, 0), 2**36, "13.0", "13.0")
    found = probes._probe_here("tensorrt-rtx")
    assert "has no kernels for NVIDIA H100, of compute capability 9.0" in found.detail
    assert found.advice == "Use the device tensorrt."
    monkeypatch.setattr(descriptor, "find_cuda_device", lambda gpu: None)
    monkeypatch.setattr(
        descriptor, "why_no_cuda", lambda gpu: "The driver is too old; run: pip install another"
    )
    found = probes._probe_here("tensorrt-rtx")
    assert (found.detail, found.advice) == ("The driver is too old", "pip install another")
