"""Signs of NVIDIA's hardware that need no package to be read."""

from __future__ import annotations

from pathlib import Path

NO_GPU = "no NVIDIA GPU or driver was found"
# What NVIDIA's drivers create: those of graphics cards and of Jetson Thor, of Orin's integrated GPU in
# JetPack 6 and before it, and Windows' subsystem for Linux.
_DEVICE_NODES = (
    "dev/nvidiactl",
    "dev/nvidia0",
    "dev/nvgpu/igpu0/ctrl",
    "dev/nvhost-ctrl-gpu",
    "dev/nvhost-gpu",
    "dev/dxg",
)


def has_nvidia_device(root: Path = Path("/")) -> bool:
    """Return whether a driver has made an NVIDIA GPU known to the system; it may be unfit to compute."""
    return any((root / node).exists() for node in _DEVICE_NODES)


def jetson_model(root: Path = Path("/")) -> str | None:
    """Return the name of the Jetson board that this is, such as `NVIDIA Jetson AGX Orin Developer Kit`."""
    try:
        # The device tree ends its strings with a null byte.
        model = (root / "proc/device-tree/model").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
    except OSError:
        return None
    return model.strip() if "jetson" in model.lower() else None
