"""The power that this machine takes, where its sensors tell.

A Jetson has INA3221 sensors of its rails: VDD_IN is the whole module; AGX boards have none, and their rails
are added up. On x86-64 the processor counts its own energy (RAPL), without memory, GPU and disks.

Sources: https://docs.kernel.org/hwmon/ina3221.html, https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fgdd_fast.errors import SettingsError

SYS = Path("/sys")
_SENSORS = "bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[123]_label"
_COUNTERS = "class/powercap/intel-rapl:*/energy_uj"
_MODULE = "VDD_IN"
_SMOOTH = 5.0  # seconds over which power is averaged
_APART = 0.1  # seconds between two readings, at least: counters move in steps


class PowerMeter:
    """Tells the power that the machine takes, averaged over some seconds.

    Args:
        root: of the system's files on its devices.
    """

    def __init__(self, root: Path = SYS) -> None:
        self._rails = _rails(root)
        self._counted = {} if self._rails else _counters(root)
        self._average: float | None = None
        self._before = time.monotonic()

    def check(self) -> None:
        """Make sure that something tells the power; SettingsError where nothing does."""
        if not (self._rails or self._counted):
            raise SettingsError(
                "Nothing tells the power that this machine takes: neither INA3221 sensors, as a Jetson has, "
                "nor RAPL counters that you may read",
                "Leave --power out, and limit --fps instead; or, where there are counters that only root may "
                f"read, run: sudo chmod a+r {SYS / _COUNTERS}",
            )

    def watts(self) -> float | None:
        """Return the power; None where nothing tells it now, or there was no time yet to measure it."""
        now = time.monotonic()
        passed = now - self._before
        if passed >= _APART and (self._rails or self._counted):
            try:
                found = self._measured(passed)
            except (OSError, ValueError):
                return None
            before = found if self._average is None else self._average
            self._average = before + (found - before) * (1 - math.exp(-passed / _SMOOTH))
            self._before = now
        return self._average

    def _measured(self, passed: float) -> float:
        """The power now, or that of the seconds that passed."""
        if self._rails:
            return sum(_number(volts) * _number(amperes) / 1e6 for volts, amperes in self._rails.values())
        joules = 0.0
        for file, before in self._counted.items():
            self._counted[file] = after = _number(file)
            wrapped = _number(file.with_name("max_energy_range_uj")) if after < before else 0
            joules += (after - before + wrapped) / 1e6
        return joules / passed


def _rails(root: Path) -> Mapping[str, tuple[Path, Path]]:
    """Files of the voltage (mV) and the current (mA) of rails that together are all there is, by name."""
    found: dict[str, tuple[Path, Path]] = {}
    for label in sorted(root.glob(_SENSORS)):
        channel = label.name[2]
        files = label.with_name(f"in{channel}_input"), label.with_name(f"curr{channel}_input")
        with suppress(OSError, ValueError):  # of a channel that is switched off
            name, _ = label.read_text(encoding="ascii").strip(), [_number(file) for file in files]
            if name != "NC":  # not connected
                found[name] = files
    return {_MODULE: found[_MODULE]} if _MODULE in found else found


def _counters(root: Path) -> dict[Path, int]:
    """What each processor counted (µJ), by its file."""
    counted = {}
    for file in sorted(root.glob(_COUNTERS)):
        with suppress(OSError, ValueError):
            if file.with_name("name").read_text(encoding="ascii").startswith("package"):
                counted[file] = _number(file)
    return counted


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
