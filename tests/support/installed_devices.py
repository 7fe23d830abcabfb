"""Which devices a test can count on."""

from __future__ import annotations

from importlib.util import find_spec

from fgdd_engines.backends import DEVICES, find_backend


def available_devices() -> tuple[str, ...]:
    """The devices that need no GPU and whose packages are installed; nothing of theirs is imported."""
    return tuple(
        device
        for device in DEVICES
        if (backend := find_backend(device)).on_processor
        and all(find_spec(package) is not None for package in backend.packages)
    )
