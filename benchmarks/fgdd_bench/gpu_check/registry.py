"""Every check is a function, registered with what it stands for; what it is asked about is a case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fgdd_bench.gpu_check.kit import Kit
from fgdd_engines.base import Device, Precision
from fgdd_fast.errors import FgddError


class AbsentError(FgddError):
    """What a check needs is not on this machine; nothing is wrong."""


@dataclass(frozen=True)
class Found:
    """What a check found: the telling figures in words, all of them, and what is not as claimed."""

    words: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    wrong: Sequence[str] = ()


@dataclass(frozen=True)
class Case:
    """What a check is asked about: a bundle of the kit, or a path of the pipeline, on a device."""

    check: str
    device: Device
    subject: str = ""
    precision: Precision = "auto"

    @property
    def place(self) -> tuple[str, ...]:
        """What one process opens, for all cases of the same place."""
        return self.device, self.subject, self.precision


Run = Callable[[Kit, Case], Found]


@dataclass(frozen=True)
class Check:
    """What is true where a check passes, and the seconds after which it is given up.

    `run` raises AbsentError where something that it needs is not here; with any other error it fails.
    """

    claim: str
    seconds: float
    run: Run


CHECKS: dict[str, Check] = {}


def check(claim: str, *, seconds: float) -> Callable[[Run], Run]:
    """Register a check under its function's name; see `Check`."""

    def register(run: Run) -> Run:
        CHECKS[run.__name__] = Check(claim, seconds, run)
        return run

    return register
