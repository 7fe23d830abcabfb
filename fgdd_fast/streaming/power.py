"""The power that this machine takes, where its sensors tell.

A Jetson has INA3221 sensors of its rails. VDD_IN is all that the module takes; AGX boards have none, and
their rails are added up. On x86-64 the processor counts its own energy (RAPL): memory, GPU and disks come on
top.

Sources: https://docs.kernel.org/hwmon/ina3221.html, https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from fgdd_fast.errors import SettingsError

SYS = Path("/sys")
_SENSORS = "bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[123]_label"
_COUNTERS = "class/powercap/intel-rapl:*/energy_uj"
_MODULE = "VDD_IN"
_SMOOTH = 5.0  # seconds over which power is averaged
_APART = 0.1  # seconds between two readings, at least: counters move in steps
_SILENT = 20  # readings that fail one after another, until the sensors are given up


class PowerMeter:
    """Tells the power that the machine takes, averaged over some seconds.

    Args:
        root: of the system's files on its devices.

    Attributes:
        counts: what it tells the power of: rails, or counters of energy. Empty where nothing tells it.
    """

    def __init__(self, root: Path = SYS) -> None:
        self._rails = _rails(root)
        self._counted, self._refused = ({}, False) if self._rails else _counters(root)
        self.counts = (*self._rails, *(str(file) for file in self._counted))
        self._average: float | None = None
        self._before = time.monotonic()
        self._failed = 0

    def check(self) -> None:
        """Make sure that something tells the power.

        Raises:
            SettingsError: nothing does.
        """
        if self.counts:
            return
        if self._refused:
            raise SettingsError(
                "Only root may read what this processor says of its power",
                f"Run: sudo chmod a+r {SYS / _COUNTERS}   or leave --power out, and limit --fps",
            )
        raise SettingsError(
            "Nothing tells the power that this machine takes: it has no INA3221 sensors, as a Jetson has, "
            "and no RAPL counters",
            "Leave --power out, and limit --fps instead.",
        )

    def watts(self) -> float | None:
        """Return the power; None before there was time to measure it, or after its sensors failed."""
        now = time.monotonic()
        passed = now - self._before
        if self.counts and passed >= _APART:
            try:
                found = self._measured(passed)
            except (OSError, ValueError):
                self._failed += 1
            else:
                before = found if self._average is None else self._average
                self._average = before + (found - before) * (1 - math.exp(-passed / _SMOOTH))
                self._failed, self._before = 0, now
        return self._average if self._failed < _SILENT else None

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
        try:
            name = label.read_text(encoding="ascii").strip()
            _ = [_number(file) for file in files]
        except (OSError, ValueError):
            continue  # a channel that is switched off
        if name != "NC":  # not connected
            found[name] = files
    return {_MODULE: found[_MODULE]} if _MODULE in found else found


def _counters(root: Path) -> tuple[dict[Path, int], bool]:
    """What each processor counted (µJ), by its file; and whether that may not be read."""
    counted, refused = {}, False
    for file in sorted(root.glob(_COUNTERS)):
        try:
            if file.with_name("name").read_text(encoding="ascii").startswith("package"):
                counted[file] = _number(file)
        except PermissionError:
            refused = True
        except (OSError, ValueError):
            continue
    return counted, refused and not counted


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
