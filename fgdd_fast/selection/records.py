"""What is measured of an image, and what is chosen from it: plain data, no model in sight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgdd_fast.images.crops import Box

TileKind = Literal["full", "crop"]


@dataclass(frozen=True)
class View:
    """A part of an image.

    Attributes:
        box: which part.
        loss: the teacher's cross-entropy (nats) on it for the image's class; nan where no teacher was asked.
        foreground: share of the image's foreground that lies within the box, in [0, 1]; None where no
            decision needs it.
    """

    box: Box
    loss: float
    foreground: float | None = None


@dataclass(frozen=True)
class ImageRecord:
    """Everything that the decisions need to know of one image.

    Attributes:
        source: POSIX path within the data set; bytes that are no UTF-8 are kept by surrogateescape.
        sha256: hexadecimal hash of the file's bytes.
        class_name: the image's class, which is its folder.
        occupancy: share of the image that its foreground covers, in [0, 1].
        full: the whole image.
        crops: the candidate crops, in the order in which they were drawn.
        perceptual_hash: 64 bits that tell near-duplicates; None where no decision needs them.
        looked: whether the foreground is that of the model which was asked for, not of a quicker one.
    """

    source: str
    sha256: str
    class_name: str
    occupancy: float
    full: View
    crops: tuple[View, ...]
    perceptual_hash: int | None = None
    looked: bool = True


@dataclass(frozen=True)
class Tile:
    """A part of an image that becomes one cell of a mosaic."""

    source: str
    sha256: str
    box: Box
    kind: TileKind
    occupancy: float
    threshold: float
    loss: float
