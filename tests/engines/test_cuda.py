"""The wrapper of the CUDA runtime, on a stand-in for it, and what is said of machines without a GPU."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError
from types import ModuleType

import pytest
from fake_cuda import Error, FakeCuda

from fgdd_engines.base import TensorSpec
from fgdd_engines.tensorrt_backend import cuda_device
from fgdd_engines.tensorrt_backend.cuda_device import (
    CudaDevice,
    Stream,
    check_tf32,
    find_cuda_device,
    find_cuda_devices,
    on_device,
    warn_of_old_bindings,
    why_no_cuda,
)
from fgdd_fast.errors import EngineError, SettingsError

SPEC = TensorSpec("scores", "float32", (2, 3))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    return fake


class TestDevice:
    def test_the_first_device_is_described(self, cuda: FakeCuda) -> None:
        first = CudaDevice("Orin", (8, 7), 8 << 30, driver="13.0", runtime="13.5")
        assert find_cuda_device() == first
        assert why_no_cuda() == ""
        assert find_cuda_devices() == (first,)

    def test_several_are_counted_from_0(self, cuda: FakeCuda) -> None:
        cuda.devices = 2
        second = find_cuda_device(1)
        assert str(second) == "Thor (11.0)"
        assert find_cuda_devices() == (find_cuda_device(0), second)

    @pytest.mark.parametrize(
        ("devices", "reason"),
        [
            (1, "There is no GPU 2: the only one is number 0"),
            (2, "There is no GPU 2: there are 2, counted from 0"),
        ],
    )
    def test_a_number_beyond_them(self, cuda: FakeCuda, devices: int, reason: str) -> None:
        cuda.devices = devices
        assert find_cuda_device(2) is None
        assert why_no_cuda(2) == reason

    def test_tf32_came_with_ampere(self) -> None:
        check_tf32(CudaDevice("A100", (8, 0), 1, "13.0", "13.0"))
        with pytest.raises(SettingsError, match=r"T4 \(7\.5\) does not compute in tf32"):
            check_tf32(CudaDevice("T4", (7, 5), 1, "13.0", "13.0"))

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
        assert find_cuda_devices() == ()
        assert "pip install 'fgdd-fast[" in why_no_cuda()


class TestThreads:
    def test_a_thread_is_turned_back(self, cuda: FakeCuda) -> None:
        cuda.devices = 2
        found: list[int] = []

        def fail() -> None:
            with on_device(1):
                found.append(cuda.here)
                raise EngineError("a failure")

        with pytest.raises(EngineError):
            fail()
        assert (found, cuda.here) == ([1], 0)

    def test_one_that_waits_sleeps(self, cuda: FakeCuda) -> None:
        """`cudaStreamSynchronize` asks again and again by default; the stand-in does not have it."""
        done: list[str] = []
        with ExitStack() as opened:
            stream = Stream(opened)
            cuda.enqueue(stream.handle, lambda: done.append("work"))
            stream.synchronise()
            assert done == ["work"]
        assert cuda.is_empty

    @pytest.mark.parametrize(
        ("installed", "warned"),
        [("12.8.0", True), ("12.9.0", True), ("12.9.1", False), ("13.0.0", False), (None, False)],
    )
    def test_bindings_that_keep_others_waiting_are_told_of(
        self,
        installed: str | None,
        warned: bool,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def version(package: str) -> str:
            if installed is None:
                raise PackageNotFoundError(package)
            return installed

        monkeypatch.setattr(cuda_device, "version", version)
        warn_of_old_bindings.cache_clear()
        warn_of_old_bindings()
        warn_of_old_bindings()
        warn_of_old_bindings.cache_clear()
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == warned
        assert all("pip install 'cuda-bindings>=12.9.1,<13'" in line for line in told)


def test_the_bindings_have_every_call_that_is_made() -> None:
    """The stand-in has the real module's names, so that a test on it says something of the real one."""
    real: ModuleType = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    names = {name for name in dir(FakeCuda) if name.startswith("cuda")}
    assert {name for name in names if not hasattr(real, name)} == set()
    for kind in ("cudaMemcpyKind", "cudaStreamCaptureMode"):
        members = vars(getattr(FakeCuda, kind))
        assert all(hasattr(getattr(real, kind), member) for member in members)
    assert all(int(getattr(real.cudaError_t, code.name)) == code for code in Error)
