"""Processor time counts children, energy and memory are read where they can be, and NVML as documented."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fgdd_bench.machine import nvidia, resources
from fgdd_bench.machine.nvidia import Management, parse_gpus, read_gpus
from fgdd_bench.machine.resources import (
    Counter,
    Meter,
    descendants,
    energy,
    forget_peak,
    peak_memory,
    processor_seconds,
)

BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"


class FakeLibrary:
    """NVML with one GPU.

    Args:
        fails: the functions that return an error.
    """

    def __init__(self, *fails: str) -> None:
        self.fails = fails
        self.joules = 12.5
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.asked.append(name)
            if name == "nvmlDeviceGetHandleByIndex_v2":
                arguments[1]._obj.value = 77
            elif name == "nvmlDeviceGetTotalEnergyConsumption":
                assert arguments[0].value == 77
                arguments[1]._obj.value = int(self.joules * 1000)
            elif name == "nvmlDeviceGetMemoryInfo":
                arguments[1]._obj.used = 3 * 2**30
            return 999 if name in self.fails else 0

        return call


def test_a_run_is_charged_with_what_its_children_compute() -> None:
    before = processor_seconds()
    with subprocess.Popen([sys.executable, "-c", BUSY + "input()"], stdin=subprocess.PIPE) as child:
        while processor_seconds() - before < 0.25:  # while it runs
            time.sleep(0.01)
        assert child.pid in descendants()
        child.communicate(b"\n")
    assert child.pid not in descendants()
    assert processor_seconds() - before >= 0.25  # and when it has ended


def test_what_was_started_is_ended() -> None:
    script = (
        "import subprocess, sys\n"
        "from fgdd_bench.machine.resources import descendants, end_descendants\n"
        "sleeper = [sys.executable, '-c', 'import time; print(flush=True); time.sleep(60)']\n"
        "children = [subprocess.Popen(sleeper, stdout=subprocess.PIPE) for _ in range(2)]\n"
        "for child in children: child.stdout.readline()\n"
        "end_descendants()\n"
        "print([child.wait() for child in children])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "[-15, -15]\n"


def test_the_peak_of_memory_starts_anew() -> None:
    forget_peak()
    before = peak_memory().process
    block = bytearray(80_000_000)
    grown = peak_memory().process
    assert grown - before > 70_000_000
    del block
    forget_peak()
    assert grown - peak_memory().process > 70_000_000


def zone(folder: Path, name: str, microjoules: int) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text("262143328850\n")


def test_energy_of_the_processor(tmp_path: Path) -> None:
    assert "processor" not in energy(tmp_path)
    zone(tmp_path, "intel-rapl:0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", 1_000_000)  # a part of the package
    assert energy(tmp_path)["processor"] == Counter(5.0, 262143.32885)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()  # for root alone
    assert "processor" not in energy(tmp_path)


def test_a_counter_may_start_again() -> None:
    assert Counter(7.0, 100.0).since(Counter(5.0, 100.0)) == 2
    assert Counter(1.0, 100.0).since(Counter(98.0, 100.0)) == 3


def test_a_gpu_is_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary()
    gpu = Management(library)
    monkeypatch.setattr(resources, "management", lambda: gpu)
    with Meter() as meter:
        library.joules += 30
    assert meter.sample.joules["gpu"] == pytest.approx(30)
    assert peak_memory().device == 3 * 2**30
    assert library.asked[:2] == ["nvmlInit_v2", "nvmlDeviceGetHandleByIndex_v2"]


def test_what_a_gpu_does_not_tell_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Management(FakeLibrary("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetMemoryInfo"))
    monkeypatch.setattr(resources, "management", lambda: gpu)
    assert "gpu" not in energy(Path("nowhere"))
    assert peak_memory().device is None


@pytest.mark.parametrize("fails", ["nvmlInit_v2", "nvmlDeviceGetHandleByIndex_v2"])
def test_a_library_without_a_gpu_is_none(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeLibrary(fails))
    nvidia.management.cache_clear()
    assert nvidia.management() is None
    nvidia.management.cache_clear()


def test_gpus_as_nvidia_smi_tells_them() -> None:
    line = "NVIDIA H100 80GB HBM3, 550.90.07, 81559, P0, 1980, 1980, 2619, 71.34, 700.00, 31\n"
    jetson = "Orin (nvgpu), 540.4.0, [N/A], P0, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\n"
    first, second = parse_gpus(line + jetson + "\n")
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert (first["clock_mhz"], first["power_limit_watts"]) == ("1980", "700.00")
    assert second == {"name": "Orin (nvgpu)", "driver": "540.4.0", "performance_state": "P0"}


def test_without_nvidia_smi_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpus() == []
