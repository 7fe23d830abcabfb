"""What a board allows: memory, power and frames a second, and what it says of itself."""

from __future__ import annotations

import ctypes
import math
import os
import time
from contextlib import suppress
from pathlib import Path

from fgdd_fast.errors import ImageError, SettingsError
from fgdd_fast.images.headers import read_header
from fgdd_fast.streaming.power import PowerMeter
from fgdd_fast.streaming.sources import Frame

THERMAL = Path("/sys/class/thermal")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_COPIES = 3  # times its decoded pixels that a frame takes while it is read, see `fgdd_fast.images.decode`
_MIB = 1 << 20
_HOPELESS = 20  # frames in a row that find the memory taken
_PATIENCE = 60.0  # seconds without work after which less power is not to be expected
_PAUSE = 0.2  # seconds


def memory_used() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def temperature() -> float | None:
    """Return the highest temperature of the machine in degrees Celsius; None where nothing tells it."""
    found = []
    for file in THERMAL.glob("thermal_zone*/temp"):
        with suppress(OSError, ValueError):
            found.append(int(file.read_text(encoding="ascii")) / 1000)
    return max((each for each in found if 0 < each < 150), default=None)


class Budgets:
    """Lets frames through, as long as they stay within what is allowed.

    Args:
        memory: MiB that this process may hold, models included; None for any number.
        fps: frames a second; None for any number.
        power: watts that the machine may take; None for any number.
        live: whether frames that are too many are dropped; otherwise they wait.

    Attributes:
        dropped: frames that were not let through.
        meter: tells the power.

    Raises:
        SettingsError: nothing tells the power that is limited.
    """

    def __init__(
        self, *, memory: int | None, fps: float | None, power: float | None = None, live: bool
    ) -> None:
        self._memory = None if memory is None else memory * _MIB
        self._fps = fps
        self._power = power
        self.meter = PowerMeter()
        if power is not None:
            self.meter.check()
        self._paused = math.inf  # since when
        self._live = live
        self._next = 0.0
        self._in_a_row = 0
        self.dropped = 0

    def admit(self, frame: Frame) -> bool:
        """Let a frame through, maybe after a while, or count it as dropped.

        Raises:
            SettingsError: many frames one after another find all of the memory taken, or a pause does not
                lower the power.
        """
        if self._power is not None and not self._within_power(self._power):
            self.dropped += 1
            return False
        if self._fps is not None:
            now = time.monotonic()
            if now < self._next and self._live:
                self.dropped += 1
                return False
            time.sleep(max(0.0, self._next - now))
            self._next = max(now, self._next) + 1 / self._fps
        if self._memory is None or memory_used() + (size := _size(frame)) <= self._memory:
            self._in_a_row = 0
            return True
        _give_back()
        used = memory_used()
        if used + size <= self._memory:
            return True
        self.dropped += 1
        self._in_a_row = self._in_a_row + 1 if used > self._memory else 0
        if self._in_a_row >= _HOPELESS:
            raise SettingsError(
                f"{self._memory // _MIB} MiB of memory are too little: {used // _MIB} are taken anyway",
                "Raise --memory, lower --threads, or choose smaller models.",
            )
        return False

    def _within_power(self, limit: float) -> bool:
        """Whether there is power for a frame; what is not live is waited for."""
        while (watts := self.meter.watts()) is None or watts > limit:
            self._paused = min(self._paused, time.monotonic())
            if time.monotonic() - self._paused > _PATIENCE:
                taken = "its sensors fell silent" if watts is None else f"{watts:.1f} W are taken anyway"
                raise SettingsError(
                    f"The power cannot be held at {limit:g} W: {taken}",
                    "Raise --power, choose a lower power mode, or end what else runs.",
                )
            if self._live:
                return False
            time.sleep(_PAUSE)
        self._paused = math.inf
        return True

    @property
    def told(self) -> list[str]:
        """What the machine says of itself, such as `41 °C`; nothing where it says nothing."""
        watts, warm = self.meter.watts(), temperature()
        limit = "" if self._power is None else f" of {self._power:g}"
        return [
            f"{memory_used() >> 20} MiB",
            *([] if watts is None else [f"{watts:.1f}{limit} W"]),
            *([] if warm is None else [f"{warm:.0f} °C"]),
        ]


def _size(frame: Frame) -> int:
    """Bytes that a frame takes while it is read; 0 for one that will be refused anyway."""
    if frame.pixels is not None:
        return _COPIES * frame.pixels.nbytes
    try:
        content = frame.content
        if content is None and frame.path is not None:
            content = frame.path.read_bytes()
        header = read_header(content or b"")
    except (OSError, ImageError):
        return 0
    return _COPIES * header.decoded_bytes + len(content or b"")


def _give_back() -> None:
    """Have the C library give memory back that nobody uses."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
