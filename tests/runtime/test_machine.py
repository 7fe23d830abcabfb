"""The machine is described from what the system tells, and what it does not tell is missing, not an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fgdd_bench.machine.environment import environment
from fgdd_engines.tensorrt_backend.cuda_device import CudaDevice
from fgdd_fast.runtime import machine
from fgdd_fast.runtime.machine import Gpu, Jetson, Nvidia, read_jetson, read_machine, read_nvidia

X86 = """\
processor\t: 0
model name\t: INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8

processor\t: 1
model name\t: INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8
"""
ORIN = """\
processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd42
"""
ROWS = "NVIDIA H100 80GB HBM3, 9.0, 81559, 580.95.05\nNVIDIA H100 80GB HBM3, 9.0, 81559, 580.95.05\n"
ORIN_ROWS = "Orin (nvgpu), [N/A], [N/A], 540.4.0\n"
TABLE = """\
Sun Nov 22 12:00:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
"""


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def commands(monkeypatch: pytest.MonkeyPatch, outputs: Mapping[str, str]) -> None:
    """Make commands print: the output whose key is part of the command line, or nothing."""

    def output(*command: str) -> str:
        line = " ".join(command)
        return next((text for part, text in outputs.items() if part in line), "")

    monkeypatch.setattr(machine, "_output", output)


def test_this_machine() -> None:
    found = read_machine()
    assert found.cores >= 1
    assert found.memory > (found.memory_available or 0) > 0
    assert found.processor
    assert found.system.startswith("Linux ")


def test_what_the_system_tells(tmp_path: Path) -> None:
    nothing = read_machine(tmp_path)
    assert (nothing.vector_units, nothing.memory_available) == ((), None)
    assert nothing.memory > 0
    memory = "MemTotal:       65893380 kB\nMemAvailable:    1024 kB\n"
    found = read_machine(write(tmp_path, {"proc/cpuinfo": X86, "proc/meminfo": memory}))
    assert found.processor.startswith("INTEL(R) XEON(R)")
    assert found.vector_units == ("amx_bf16", "amx_int8", "avx2", "avx512_bf16", "avx512_vnni", "avx512f")
    assert found.memory_available == 2**20
    arm = read_machine(write(tmp_path, {"proc/cpuinfo": ORIN}))
    assert arm.vector_units == ("asimddp",)
    assert arm.processor  # the architecture, since the system does not name the model


def test_the_benchmarks_environment_keeps_its_fields() -> None:
    fields = "processor vector_units cores clocks load_average memory_gib gpus jetson system python"
    assert " ".join(environment()) == f"{fields} packages threads"


def test_no_nvidia_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_nvidia_device", lambda: False)
    monkeypatch.setattr(machine, "_output", None)
    assert read_nvidia() == Nvidia(reason="no NVIDIA GPU or driver was found")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_nvidia_device", lambda: True)
    monkeypatch.setattr(machine, "find_cuda_device", lambda: None)


@pytest.mark.usefixtures("gpu")
def test_gpus_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, {"--query-gpu": ROWS, "nvidia-smi": TABLE})
    gpu = Gpu("NVIDIA H100 80GB HBM3", "9.0", 81559 * 2**20)
    assert read_nvidia() == Nvidia((gpu, gpu), "580.95.05", "13.0")
    device = CudaDevice(gpu.name, (9, 0), 2**36, "13.0", "13.0")
    monkeypatch.setattr(machine, "find_cuda_device", lambda: device)
    assert len(read_nvidia().gpus) == 2  # CUDA's first device does not hide the other


@pytest.mark.usefixtures("gpu")
def test_a_jetsons_gpu_is_known_to_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, {"--query-gpu": ORIN_ROWS})
    assert read_nvidia() == Nvidia((Gpu("Orin (nvgpu)", None, None),), "540.4.0", None)
    device = CudaDevice("Orin", (8, 7), 2**36, "12.6", "12.9")
    monkeypatch.setattr(machine, "find_cuda_device", lambda: device)
    assert read_nvidia() == Nvidia((Gpu("Orin", "8.7", 2**36),), "540.4.0", "12.6")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("rows", ["", "No devices were found\n", "Failed to initialize NVML: a, b\n"])
def test_a_driver_that_answers_nothing(monkeypatch: pytest.MonkeyPatch, rows: str) -> None:
    commands(monkeypatch, {"--query-gpu": rows})
    found = read_nvidia()
    assert (found.gpus, found.driver, found.cuda) == ((), None, None)
    assert "found a GPU" in found.reason


def test_a_command_that_is_absent_or_fails_says_nothing() -> None:
    assert machine._output("a-command-that-is-not-there") == ""
    assert machine._output("false") == ""
    assert machine._output("echo", "something") == "something\n"


def jetson(tmp_path: Path, release: str) -> Path:
    model = "NVIDIA Jetson AGX Orin Developer Kit\0"
    return write(tmp_path, {"proc/device-tree/model": model, "etc/nv_tegra_release": release})


@pytest.mark.parametrize(
    ("release", "number", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic", "36.4.0", "6.1"),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic", "36.4.3", "6.2"),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic", "38.2.0", "7.0"),
        ("# R40 (release), REVISION: 1, GCID: 1", "40.1.0", None),
        ("something else", None, None),
    ],
)
def test_jetpack_of_the_systems_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, number: str | None, jetpack: str | None
) -> None:
    commands(monkeypatch, {})
    found = read_jetson(jetson(tmp_path, release))
    assert found == Jetson("NVIDIA Jetson AGX Orin Developer Kit", number, jetpack, None)


def test_jetpacks_own_package_is_believed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, {"dpkg-query": "6.2.1+b38", "nvpmodel": "NV Power Mode: MAXN_SUPER\n2\n"})
    found = read_jetson(jetson(tmp_path, "# R36 (release), REVISION: 4.3, GCID: 38968081"))
    assert found == Jetson("NVIDIA Jetson AGX Orin Developer Kit", "36.4.3", "6.2.1", "MAXN_SUPER")


def test_another_machine_is_no_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_output", None)
    assert read_jetson(tmp_path) is None
