"""What this machine is made of, read from the system; what cannot be read is None."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fgdd_engines.probing.nvidia import NO_GPU, has_nvidia_device, jetson_model
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device

ROOT = Path("/")
_TIME_LIMIT = 20  # seconds; nvidia-smi takes a few where the driver is not kept loaded
# What neural networks gain from, as Linux calls it on x86-64 and on AArch64.
_VECTOR_UNITS = frozenset(
    {
        "avx2",
        "avx512f",
        "avx512_bf16",
        "avx512_vnni",
        "amx_bf16",
        "amx_int8",
        "asimddp",
        "bf16",
        "i8mm",
        "sve",
    }
)
# From NVIDIA's archive of JetPack releases, https://developer.nvidia.com/embedded/jetpack-archive.
_JETPACK_OF_JETSON_LINUX = {
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.5.0": "6.2.2",
    "36.5.2": "6.2.3",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}


@dataclass(frozen=True)
class Machine:
    """Processor, memory and system.

    Attributes:
        processor: its model; where the system does not tell, its architecture.
        vector_units: those that neural networks gain from, by Linux's names, sorted.
        cores: those that this process may use.
        memory: all of the memory, in bytes.
        memory_available: what can be had without swapping, in bytes.
        system: operating system and architecture, such as `Linux x86_64`.
        python: Python's version.
    """

    processor: str
    vector_units: tuple[str, ...]
    cores: int
    memory: int
    memory_available: int | None
    system: str
    python: str


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        name: as its driver calls it.
        compute_capability: such as `9.0`.
        memory: all of it in bytes; on a Jetson the memory that it shares with the processor.
    """

    name: str
    compute_capability: str | None
    memory: int | None


@dataclass(frozen=True)
class Nvidia:
    """NVIDIA's GPUs and driver.

    Attributes:
        gpus: the GPUs.
        driver: the driver's version.
        cuda: the newest CUDA version that the driver supports.
        reason: why there is no GPU; empty where there is one.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Jetson:
    """A Jetson board.

    Attributes:
        model: its name.
        jetson_linux: the release of its system (L4T), such as `36.4.3`.
        jetpack: the version of JetPack.
        power_mode: such as `MAXN`.
    """

    model: str
    jetson_linux: str | None
    jetpack: str | None
    power_mode: str | None


def read_machine(root: Path = ROOT) -> Machine:
    """Read processor, memory and system.

    Args:
        root: the root of the file system that `/proc` is read from.
    """
    processor = _fields(root / "proc/cpuinfo")
    memory = _fields(root / "proc/meminfo")
    units = _VECTOR_UNITS & set(processor.get("flags", processor.get("Features", "")).split())
    return Machine(
        processor=processor.get("model name") or platform.processor() or platform.machine(),
        vector_units=tuple(sorted(units)),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        memory_available=_kibibytes(memory.get("MemAvailable")),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )


def _fields(path: Path) -> dict[str, str]:
    """Fields of a file of lines `name: value`; of a name that comes again, the last."""
    pairs = (line.partition(":") for line in _text(path).splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _kibibytes(value: str | None) -> int | None:
    """Bytes of a value such as `1024 kB`."""
    match = re.fullmatch(r"(\d+) kB", value or "")
    return int(match[1]) * 1024 if match else None


def _output(*command: str) -> str:
    """What a command prints; empty where it is absent, fails or does not end."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout


def read_nvidia() -> Nvidia:
    """Ask the driver for its GPUs: through `nvidia-smi`, and through `cuda-bindings` where it is installed.

    A Jetson's `nvidia-smi`, where it has one, knows little of the board's GPU.
    """
    if not has_nvidia_device():
        return Nvidia(reason=NO_GPU)
    query = "--query-gpu=name,compute_cap,memory.total,driver_version"
    gpus, driver = _parse_gpus(_output("nvidia-smi", query, "--format=csv,noheader,nounits"))
    cuda = _parse_cuda(_output("nvidia-smi"))
    device = find_cuda_device()
    if device is not None:
        cuda = device.driver
        if not gpus or gpus[0].compute_capability is None or gpus[0].memory is None:
            capability = ".".join(map(str, device.compute_capability))
            gpus = (Gpu(device.name, capability, device.memory),)
    reason = "" if gpus else "neither nvidia-smi nor the Python package cuda-bindings found a GPU"
    return Nvidia(gpus, driver, cuda, reason)


def _parse_gpus(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """GPUs and driver of nvidia-smi's lines `name, compute capability, MiB, driver`."""
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 4]
    gpus = tuple(
        Gpu(
            name,
            capability if re.fullmatch(r"\d+\.\d+", capability) else None,
            int(mebibytes) * 2**20 if mebibytes.isdecimal() else None,
        )
        for name, capability, mebibytes, _ in rows
    )
    return gpus, rows[0][3] if rows else None


def _parse_cuda(text: str) -> str | None:
    """The CUDA version in the heading of nvidia-smi's table."""
    match = re.search(r"CUDA\b[^|\n]*?Version\s*:\s*(\d+\.\d+)", text)
    return match[1] if match else None


def read_jetson(root: Path = ROOT) -> Jetson | None:
    """Read what Jetson board this is; None on another machine.

    Args:
        root: the root of the file system that is read.
    """
    model = jetson_model(root)
    if model is None:
        return None
    release = _parse_release(_text(root / "etc/nv_tegra_release"))
    package = _parse_package(_output("dpkg-query", "--show", "--showformat=${Version}", "nvidia-jetpack"))
    jetpack = package or _JETPACK_OF_JETSON_LINUX.get(release or "")
    return Jetson(model, release, jetpack, _parse_power_mode(_output("nvpmodel", "-q")))


def _parse_release(text: str) -> str | None:
    """The release in a line such as `# R36 (release), REVISION: 4.3, GCID: 38968081`, as three numbers."""
    match = re.search(r"R(\d+) \(release\), REVISION: (\d+)(?:\.(\d+))?", text)
    return f"{match[1]}.{match[2]}.{match[3] or 0}" if match else None


def _parse_package(version: str) -> str | None:
    """JetPack's version of that of its Debian package, such as `6.2.1+b38`."""
    match = re.match(r"\d+(?:\.\d+)+", version)
    return match[0] if match else None


def _parse_power_mode(text: str) -> str | None:
    """The mode in a line such as `NV Power Mode: MAXN`."""
    match = re.search(r"NV Power Mode:\s*(\S+)", text)
    return match[1] if match else None
