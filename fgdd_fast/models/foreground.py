"""What a foreground model finds in an image, and what every such model can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import Array
from fgdd_fast.images.dataset import SourceImage

Pixels = NDArray[np.uint8]
Inputs = Mapping[str, Array]


class ScoredBox(NamedTuple):
    """An object found: its edges as shares of the image's width and height, and its score in [0, 1].

    Edges are the network's own, so they may lie outside [0, 1] by a little.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float


@dataclass(frozen=True)
class Foreground:
    """What was found of one image's foreground.

    Attributes:
        occupancy: share of the image that the foreground covers, in [0, 1].
        boxes: the objects found, best first; empty for a model that looks for none.
        mask: foreground probability uint8 [height, width], 0 to 255, of the whole image at the model's own
            resolution; None where it was not asked for.
    """

    occupancy: float
    boxes: tuple[ScoredBox, ...] = ()
    mask: Pixels | None = None


class ForegroundModel(Protocol):
    """Says how much of each image its foreground covers.

    Attributes:
        name: for reports, free of machine paths.
        sha256: hexadecimal hash that names the model (or the masks) exactly.
        description: model and runtime, for reports; equal for equal arithmetic, whatever the threads.
        streams: how many calls of `find` are worth having in flight.
    """

    name: str
    sha256: str
    description: str
    streams: int

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """Everything but the image's bytes that a result for an image of this class depends on."""

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        """What the model takes of an image, one sample without a batch axis; for reading threads.

        Args:
            pixels: the decoded image, uint8 [height, width, 3], RGB.
            image: where it comes from, and its class.

        Raises:
            ImageError: the model has nothing to say of this image, which is then skipped.
        """

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """The foregrounds of images that `prepare` took; for inference threads.

        Args:
            prepared: one for each image; any number.
            masks: whether the masks are wanted as well.
        """

    def close(self) -> None:
        """Free what the model holds."""
