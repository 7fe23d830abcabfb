"""The foreground of cut-outs: what their own transparency leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import decode_alpha, read_file
from fgdd_fast.models.foreground import Pixels
from fgdd_fast.models.given.given import GivenFamily, GivenForeground, Mask


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
        alpha = decode_alpha(read_file(image.location).content)
        return np.zeros(pixels.shape[:2], bool) if alpha is None else alpha > 127


class _Alpha(GivenFamily):
    name = spelling = AlphaForeground.name

    def find(self, argument: str) -> Path:  # noqa: ARG002 - the images say it themselves
        return Path()

    def model(self, path: Path, classes: Sequence[str], streams: int) -> AlphaForeground:  # noqa: ARG002
        return AlphaForeground(streams=streams)


ALPHA = _Alpha()
