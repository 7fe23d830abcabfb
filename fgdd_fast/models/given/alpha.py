"""The foreground of cut-outs: what their own transparency leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import decode_alpha, read_file
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.foreground import ForegroundChoice, ForegroundFamily, Pixels
from fgdd_fast.models.given.given import GivenForeground, Mask
from fgdd_fast.models.network import Runtime


class AlphaForeground(GivenForeground):
    """A `GivenForeground` to which an image's foreground is where it is more opaque than transparent.

    In an image without transparency nothing is found: its occupancy is 0.

    Args:
        streams: see `ForegroundModel`.
    """

    name = "alpha"
    description = "alpha channels"
    sha256 = hashlib.sha256(name.encode()).hexdigest()

    def __init__(self, *, streams: int) -> None:
        self.streams = streams

    def fingerprint(self, class_name: str) -> Mapping[str, str]:  # noqa: ARG002 - all classes are alike
        """See `ForegroundModel.fingerprint`: the image's bytes are all that matters."""
        return {"foreground": self.name}

    def read(self, pixels: Pixels, image: SourceImage) -> Mask:
        """See `GivenForeground.read`."""
        alpha = decode_alpha(read_file(image.path).content)
        return np.zeros(pixels.shape[:2], bool) if alpha is None else alpha > 127


class _Alpha(ForegroundFamily):
    name = spelling = AlphaForeground.name

    def find(self, argument: str) -> str:  # noqa: ARG002 - there is one
        return self.name

    def open(
        self,
        choice: ForegroundChoice,  # noqa: ARG002 - there is nothing to choose
        *,
        runtime: Callable[[Bundle], Runtime],  # noqa: ARG002 - nothing runs
        batch: int,  # noqa: ARG002
        resize: ResizeMethod,  # noqa: ARG002
        threads: int,
    ) -> AlphaForeground:
        return AlphaForeground(streams=threads)


ALPHA = _Alpha()
