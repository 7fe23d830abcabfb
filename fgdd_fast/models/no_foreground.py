"""No foreground model: all of each image counts as foreground, and no network looks for it.

For rules that ask for no foreground (RDED, all images whole), whose work is the teacher's alone then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.foreground import Foreground, ForegroundChoice, ForegroundFamily, Inputs, Pixels
from fgdd_fast.models.network import Runtime

_EVERYTHING = np.full((32, 32), 255, np.uint8)


class NoForeground:
    """A `ForegroundModel` to which all of every image is foreground: occupancy 1."""

    name = "none"
    description = "no foreground model"
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    streams = 1

    def fingerprint(self, class_name: str) -> Mapping[str, str]:  # noqa: ARG002 - all classes are alike
        """See `ForegroundModel.fingerprint`."""
        return {"foreground": self.name}

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:  # noqa: ARG002 - whatever they are
        """See `ForegroundModel.prepare`."""
        return {}

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """See `ForegroundModel.find`."""
        return [Foreground(1.0, mask=_EVERYTHING if masks else None) for _ in prepared]

    def close(self) -> None:
        """Nothing is held."""


class _None(ForegroundFamily):
    name = spelling = "none"

    def find(self, argument: str) -> str:  # noqa: ARG002 - there is one
        return self.name

    def open(
        self,
        choice: ForegroundChoice,  # noqa: ARG002 - there is nothing to choose
        *,
        runtime: Callable[[Bundle], Runtime],  # noqa: ARG002
        batch: int,  # noqa: ARG002
        resize: ResizeMethod,  # noqa: ARG002
        threads: int,  # noqa: ARG002
    ) -> NoForeground:
        return NoForeground()


NONE = _None()
