"""Plans as users open them: by the name of a device, from the cache, with what was compiled before."""

from __future__ import annotations

from pathlib import Path

import plan_files
import pytest
from every_engine import BATCH, FakeMachine, fake_machine
from fake_tensorrt import fake_plan
from tiny_models import tiny_feeds

from fgdd_engines.base import Engine, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.tensorrt_backend import descriptor
from fgdd_engines.tensorrt_backend.api import Flavour
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_engines.tensorrt_backend.kernels import read_kernels, write_kernels
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, Platform
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.errors import EngineError


def open_stored(
    machine: FakeMachine,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    *,
    threads: int = 1,
    gpu: int = 0,
    precision: Precision = "fp32",
) -> Engine:
    """Open a plan as users do: one that is kept in the cache, and whose decisions agreed."""
    monkeypatch.setenv("FGDD_FAST_CACHE", str(cache))
    monkeypatch.setattr(descriptor, "import_tensorrt", lambda flavour: machine.tensorrt)
    monkeypatch.setattr(descriptor, "check_kernels", lambda tensorrt, device: None)
    platform = Platform.of(machine.tensorrt, find_cuda_device(gpu))
    key = PlanKey.of(machine.bundle, platform, Profile(1, 4, 8), {}, precision)
    content = fake_plan(machine.bundle.inputs, machine.bundle.outputs, (1, 4, 8))
    plan_files.stored(PlanStore(), key, content)
    device = f"{machine.tensorrt.flavour}:{gpu}" if gpu else machine.tensorrt.flavour
    axes = {"batch": BATCH}
    return open_engine(machine.bundle, device=device, precision=precision, axes=axes, threads=threads)


def refusal(bundle: Bundle, device: str) -> str:
    with pytest.raises(EngineError) as caught:
        open_engine(bundle, device=device, axes={"batch": BATCH}, threads=1)
    return str(caught.value)


def test_a_plan_of_another_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = fake_machine(bundle, monkeypatch, "tensorrt")
    machine.cuda.devices = 2
    with open_stored(machine, monkeypatch, tmp_path, gpu=1) as engine:
        assert ", Thor, fp32, plan " in engine.arithmetic
        engine.run(tiny_feeds(BATCH))
    assert "was built on Thor (11.0), not on Orin (8.7)" in refusal(bundle, "tensorrt")
    assert "There is no GPU 2: there are 2, counted from 0" in refusal(bundle, "tensorrt:2")


def test_a_plan_in_tf32(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = fake_machine(bundle, monkeypatch, "tensorrt")
    with open_stored(machine, monkeypatch, tmp_path, precision="tf32") as engine:
        assert ", Orin, tf32, plan " in engine.arithmetic
    assert "is in tf32, not in fp32" in refusal(bundle, "tensorrt")
    (plan,) = PlanStore().list()
    kept = (f"{plan.sha256} passed",)
    assert [descriptor.built_plans("tensorrt", bundle, each) for each in ("tf32", "fp32")] == [kept, ()]


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize(("threads", "streams"), [(1, 1), (2, 2), (16, 2)])
def test_the_device_has_no_more_than_threads_can_use(
    bundle: Bundle,
    flavour: Flavour,
    threads: int,
    streams: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    machine = fake_machine(bundle, monkeypatch, flavour)
    opened = open_stored(machine, monkeypatch, tmp_path, threads=threads)
    assert (opened.streams, len(machine.module.contexts)) == (streams, streams)
    opened.close()


class TestKernels:
    """TensorRT for RTX compiles when a plan is loaded: once for all processes on a machine."""

    @pytest.fixture
    def rtx(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
        return fake_machine(bundle, monkeypatch, "tensorrt-rtx")

    def kept(self) -> Path:
        (plan,) = PlanStore().list()
        return plan.kernels

    def test_they_are_there_for_the_next_process(
        self, rtx: FakeMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for _ in range(2):
            with open_stored(rtx, monkeypatch, tmp_path) as engine:
                engine.run(tiny_feeds(BATCH))
        assert rtx.module.compiled == 1
        assert read_kernels(self.kept()) == b"kernels"

    def test_those_of_another_driver_are_made_again(
        self, rtx: FakeMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        open_stored(rtx, monkeypatch, tmp_path).close()
        rtx.module.kernels = b"others"
        open_stored(rtx, monkeypatch, tmp_path).close()
        assert rtx.module.compiled == 2
        assert read_kernels(self.kept()) == b"others"

    def test_damaged_ones_are_made_again(
        self, rtx: FakeMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        open_stored(rtx, monkeypatch, tmp_path).close()
        self.kept().write_bytes(self.kept().read_bytes()[:-1])
        assert read_kernels(self.kept()) == b""
        open_stored(rtx, monkeypatch, tmp_path).close()
        assert read_kernels(self.kept()) == b"kernels"

    def test_they_go_with_their_plan(
        self, rtx: FakeMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        open_stored(rtx, monkeypatch, tmp_path).close()
        (plan,) = PlanStore().list()
        PlanStore().build_once(plan.key, plan_files.builder(b"anew"), plan_files.ORIGIN, rebuild=True)
        assert not plan.kernels.exists()
        write_kernels(plan.kernels, b"kernels")
        PlanStore().remove(plan.path)
        assert not plan.kernels.exists()

    def test_a_folder_that_cannot_be_written_is_no_loss(self, rtx: FakeMachine, tmp_path: Path) -> None:
        rtx.open(kernels=tmp_path / "nowhere" / "plan.kernels").close()
        assert rtx.cuda.is_empty
