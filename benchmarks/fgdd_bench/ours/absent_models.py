"""A foreground model that finds nothing and a teacher that scores nothing, at next to no cost.

With one of them in its place, a pipeline measures with the other model alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.foreground import Foreground, Inputs, Pixels
from fgdd_fast.models.network import Images, Teacher

# ruff: noqa: ARG002 - interfaces fix the arguments


class NoForeground:
    """A `ForegroundModel` that finds nothing in any image; its methods are described there."""

    name = description = "none"
    sha256 = "0" * 64
    streams = 1

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        return {"model": self.name}

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        return {}

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        return [Foreground(0.0) for _ in prepared]

    def close(self) -> None:
        pass


class NoTeacher(Teacher):
    """A teacher that takes tiles of one pixel, and to which every loss is zero."""

    def __init__(self) -> None:
        self.view, self.tile_size, self.size = "native", 1, (1, 1)
        self.streams = self.batch = 1
        self.fingerprint = {"model": "none"}

    def label(self, class_name: str) -> int:
        return 0

    def show(self, tile: Images) -> Images:
        return tile

    def losses(self, images: Images, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.zeros(len(images), np.float32)

    def close(self) -> None:
        pass
