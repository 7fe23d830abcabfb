"""The wrapper of the CUDA runtime, on a stand-in for it, and what is said of machines without a GPU."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
from fake_cuda import Error, FakeCuda

from fgdd_engines.base import TensorSpec
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice, find_cuda_device, why_no_cuda
from fgdd_engines.tensorrt_backend.cuda_memory import DeviceBuffer, PinnedBuffer, Stream
from fgdd_fast.errors import EngineError

SPEC = TensorSpec("scores", "float32", (2, 3))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    return fake


class TestDevice:
    def test_the_first_device_is_described(self, cuda: FakeCuda) -> None:
        assert find_cuda_device() == CudaDevice("Orin", (8, 7), 8 << 30, driver="13.0", runtime="13.5")
        assert why_no_cuda() == ""

    @pytest.mark.parametrize(
        ("driver", "devices", "reason"),
        [
            (0, 1, "There is no NVIDIA driver"),
            (
                12060,
                1,
                r"supports CUDA 12\.6, but .* for CUDA 13\.5; run: pip install 'cuda-bindings==12\.\*'",
            ),
            (13000, 0, r"no device found \(cudaErrorNoDevice\)"),
        ],
    )
    def test_why_there_is_none(self, cuda: FakeCuda, driver: int, devices: int, reason: str) -> None:
        cuda.driver, cuda.devices = driver, devices
        assert find_cuda_device() is None
        with pytest.raises(EngineError, match=reason):
            raise EngineError(why_no_cuda())

    def test_old_bindings_raise_where_there_is_no_driver(self, cuda: FakeCuda) -> None:
        def missing() -> None:
            raise RuntimeError("Failed to dlopen libcuda.so.1")

        cuda.cudaDriverGetVersion = missing  # type: ignore[assignment, method-assign]
        assert find_cuda_device() is None
        assert why_no_cuda() == "There is no NVIDIA driver: Failed to dlopen libcuda.so.1"

    def test_without_the_package_comes_the_install_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "cuda", None)  # type: ignore[arg-type]
        assert find_cuda_device() is None
        assert "pip install 'fgdd-fast[" in why_no_cuda()

    def test_this_machine_has_a_device_or_a_reason(self) -> None:
        device = find_cuda_device()
        assert (device is None) == (why_no_cuda() != "")
        assert not why_no_cuda().endswith(".")


class TestMemory:
    def test_an_error_code_becomes_an_error(self, cuda: FakeCuda) -> None:
        with PinnedBuffer(SPEC) as pinned, DeviceBuffer(20) as device, Stream() as stream:
            message = r"failed in cudaMemcpyAsync: it went wrong \(cudaErrorInvalidValue\)"
            with pytest.raises(EngineError, match=message):
                stream.copy_in(device, pinned)

    def test_want_of_memory_comes_with_advice(self, cuda: FakeCuda) -> None:
        cuda.failures["cudaMalloc"] = Error.cudaErrorMemoryAllocation
        with pytest.raises(EngineError, match=r"cudaMalloc: out of memory .*\. Use a smaller batch"):
            DeviceBuffer(24)


class TestGraph:
    @pytest.mark.parametrize("function", ["cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"])
    def test_a_recording_that_is_refused(self, cuda: FakeCuda, function: str) -> None:
        with Stream() as stream:
            cuda.failures[function] = Error.cudaErrorStreamCaptureUnsupported
            with pytest.raises(EngineError, match=f"{function}.*cudaErrorStreamCaptureUnsupported"):
                stream.capture(lambda: None)
        assert cuda.events == ["error cleared"]
        assert not cuda.graphs

    def test_an_error_while_recording_ends_the_recording(self, cuda: FakeCuda) -> None:
        def fail() -> None:
            raise EngineError("It cannot be recorded")

        with Stream() as stream:
            with pytest.raises(EngineError, match="cannot be recorded"):
                stream.capture(fail)
            stream.synchronise()
        assert cuda.is_empty


def test_real_memory_and_streams() -> None:
    """On a real GPU where there is one."""
    if find_cuda_device() is None:
        pytest.skip(why_no_cuda())
    values = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    with (
        Stream() as stream,
        PinnedBuffer(SPEC) as there,
        PinnedBuffer(SPEC) as back,
        DeviceBuffer(24) as device,
    ):

        def enqueue() -> None:
            stream.copy_in(device, there)
            stream.copy_out(back, device)

        with stream.capture(enqueue) as graph:
            there.array[...] = values
            graph.launch(stream)
            stream.synchronise()
            np.testing.assert_array_equal(back.array, values)


def test_the_bindings_have_every_call_that_is_made() -> None:
    """The stand-in has the real module's names, so that a test on it says something of the real one."""
    real: ModuleType = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    names = {name for name in dir(FakeCuda) if name.startswith("cuda")}
    assert {name for name in names if not hasattr(real, name)} == set()
    for kind in ("cudaMemcpyKind", "cudaStreamCaptureMode"):
        members = vars(getattr(FakeCuda, kind))
        assert all(hasattr(getattr(real, kind), member) for member in members)
    assert all(int(getattr(real.cudaError_t, code.name)) == code for code in Error)
