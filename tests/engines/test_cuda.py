"""The wrapper of the CUDA runtime, on a stand-in for it, and what is said of machines without a GPU."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from fake_cuda import Error, FakeCuda

from fgdd_engines.base import TensorSpec
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice, find_cuda_device, why_no_cuda
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


def test_the_bindings_have_every_call_that_is_made() -> None:
    """The stand-in has the real module's names, so that a test on it says something of the real one."""
    real: ModuleType = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    names = {name for name in dir(FakeCuda) if name.startswith("cuda")}
    assert {name for name in names if not hasattr(real, name)} == set()
    for kind in ("cudaMemcpyKind", "cudaStreamCaptureMode"):
        members = vars(getattr(FakeCuda, kind))
        assert all(hasattr(getattr(real, kind), member) for member in members)
    assert all(int(getattr(real.cudaError_t, code.name)) == code for code in Error)
