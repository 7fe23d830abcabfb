"""What foreground models have in common whose masks are known already, and what their families have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import ImageError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.foreground import (
    Foreground,
    ForegroundChoice,
    ForegroundFamily,
    Inputs,
    Pixels,
)
from fgdd_fast.models.network import Runtime

LARGEST_SIDE = 512  # pixels of a mask that `find` gives

Mask = NDArray[np.bool_]


class GivenForeground(ABC):
    """A `ForegroundModel` to which the mask of every image is given.

    What `prepare` takes of an image: `occupancy` float64 [] of the mask as it is, and `mask` uint8
    [height, width], 0 to 255, reduced to `LARGEST_SIDE`.
    """

    name: str
    description: str
    sha256: str
    streams: int

    @abstractmethod
    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`."""

    @abstractmethod
    def read(self, pixels: Pixels, image: SourceImage) -> Mask:
        """Return where an image's foreground is: bool [height, width], upright, in the image's aspect.

        Raises:
            ImageError: nothing is given for this image, or it cannot be used.
        """

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        """See `ForegroundModel.prepare`."""
        foreground = self.read(pixels, image)
        check_aspect(foreground.shape, pixels.shape[:2])
        return {"occupancy": np.asarray(foreground.mean()), "mask": _reduced(foreground)}

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """See `ForegroundModel.find`."""
        return [
            Foreground(float(inputs["occupancy"]), mask=inputs["mask"] if masks else None)
            for inputs in prepared
        ]

    def close(self) -> None:  # noqa: B027 - of every kind
        """Nothing is held."""


class GivenFamily(ForegroundFamily):
    """A family of models that run nothing, and read what lies at the path that a user names."""

    @abstractmethod
    def model(self, path: Path, classes: Sequence[str], streams: int) -> GivenForeground:
        """Return a model of that path, for images of these classes and so many reading threads."""

    def find(self, argument: str) -> Path:
        if not argument:
            what = self.spelling.partition(":")[2].lower()
            raise SettingsError(
                f"The foreground model {self.name}: names no {what}", f"Write {self.spelling}."
            )
        return Path(argument)

    def open(
        self,
        choice: ForegroundChoice,
        *,
        runtime: Callable[[Bundle], Runtime],  # noqa: ARG002 - nothing runs
        batch: int,  # noqa: ARG002
        resize: ResizeMethod,  # noqa: ARG002
        threads: int,
    ) -> GivenForeground:
        assert isinstance(choice.source, Path)
        return self.model(choice.source, choice.classes, threads)


def check_aspect(mask: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Check that a mask (height, width) has an image's aspect, but for a pixel by which one was rounded."""
    if abs(mask[0] * image[1] - mask[1] * image[0]) > max(*mask, *image):
        raise ImageError(
            f"its mask has {mask[1]} x {mask[0]} pixels, which is not the aspect of the upright image's "
            f"{image[1]} x {image[0]}"
        )


def _reduced(foreground: Mask) -> Pixels:
    mask = foreground.astype(np.uint8) * 255
    height, width = mask.shape
    scale = LARGEST_SIDE / max(height, width)
    if scale >= 1:
        return mask
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
