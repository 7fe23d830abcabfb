"""Processor time counts children, memory has a peak, and GPUs are described as nvidia-smi tells them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fgdd_bench.machine.environment import read_gpus
from fgdd_bench.machine.resources import descendants, forget_peak, peak_memory, processor_seconds

BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"


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


def test_the_memory_of_a_gpu_is_what_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_reserved=lambda gpu: gpu,  # the second is in use
        mem_get_info=lambda gpu: ((7 - 2 * gpu) * 2**30, 8 * 2**30),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert peak_memory().device == 3 * 2**30
    cuda.is_initialized = lambda: False
    assert peak_memory().device is None


def test_gpus_as_nvidia_smi_tells_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = "NVIDIA H100 80GB HBM3, 550.90.07, 81559, 512, P0, 1980, 1980, 2619, 71.34, 700.00, 31"
    jetson = "Orin (nvgpu), 540.4.0, [N/A], [N/A], P0, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]"
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{line}'\necho '{jetson}'\necho\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    first, second = read_gpus()
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert (first["clock_mhz"], first["power_limit_watts"]) == ("1980", "700.00")
    assert second == {"name": "Orin (nvgpu)", "driver": "540.4.0", "performance_state": "P0"}
    program.unlink()
    assert read_gpus() == []
