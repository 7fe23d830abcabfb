"""A distilled data set for PyTorch: map-style data sets of pairs (image, target).

    DistilledImages    each mosaic as one image
    DistilledTiles     each tile of the mosaics as one image
    DistilledViews     RDED's training views, epoch by epoch, with the labels that a teacher gave to them
    ValidationImages   a folder of photographs, to judge students by

An image is float32 [3, height, width], RGB, normalised by ImageNet's mean and standard deviation; or whatever
a `transform` of your own makes of the uint8 tensor [3, height, width]. All pixels are decoded when a data set
is made, so that a damaged file is found then. They stay in memory as uint8, a mosaic of 224 pixels in 150 KB;
of distilled images 1 GiB does, and what is beyond is decoded anew whenever it is asked for. Everything is
deterministic, holds no open file, and can be pickled, so any `DataLoader` will do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fgdd_fast.errors import DataError, SettingsError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.stored import open_labels
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe, render
from fgdd_fast.output.distilled import Pictures, open_distilled, split_tiles
from fgdd_fast.students.inputs.labelled_images import DEVIATION, MEAN, read_validation
from fgdd_fast.students.inputs.training_set import SoftLabels, TrainingSet

Triple = tuple[float, float, float]
Transform = Callable[[Tensor], Tensor]
Target = int | Tensor


@dataclass(frozen=True)
class Normalise:
    """Turns uint8 [..., 3, height, width] into float32 of the same shape: (pixel / 255 - mean) / std.

    Attributes:
        mean: of red, green and blue, for values in 0 to 1.
        std: their standard deviation.
    """

    mean: Triple = MEAN
    std: Triple = DEVIATION

    def __call__(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).mul_(255).view(3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


class InMemoryImages(Dataset[tuple[Tensor, Target]]):
    """Images of one size with their classes, or with a teacher's logits.

    An item is (image, target): `transform`'s tensor; and the class's index as an int, or, with soft labels,
    the teacher's logits, float32 [classes].

    Attributes:
        classes: names, in the order of the indices and of the columns of logits.
        targets: the class's index of each image, as torchvision's data sets have it.
        size: side of an image in pixels.
    """

    def __init__(
        self,
        pixels: Pixels | Pictures | _Tiles,
        targets: NDArray[np.int64],
        classes: Sequence[str],
        *,
        logits: NDArray[np.float32] | None,
        transform: Transform,
    ) -> None:
        self.classes = tuple(classes)
        self.targets: list[int] = targets.tolist()
        self.size = pixels.shape[1]
        self._pixels = pixels
        self._logits = logits
        self._transform = transform

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        image = self._transform(_channels_first(self._pixels[index]))
        return image, self.targets[index] if self._logits is None else torch.tensor(self._logits[index])


class DistilledImages(InMemoryImages):
    """Each mosaic of a distilled data set as one image, in the order of its manifest.

    Args:
        out: the folder that `fgdd-fast distill` wrote.
        soft_labels: whether targets are the teacher's stored logits for each mosaic, instead of classes.
        transform: from a uint8 tensor [3, size, size] to the image wanted.

    Raises:
        DataError: the data set is damaged or incomplete, or has no such labels.
    """

    def __init__(
        self, out: str | os.PathLike[str], *, soft_labels: bool = False, transform: Transform = Normalise()
    ) -> None:
        distilled = open_distilled(Path(out))
        logits = open_labels(distilled).mosaics() if soft_labels else None
        super().__init__(
            distilled.read_all(),
            distilled.labels,
            distilled.manifest.classes,
            logits=logits,
            transform=transform,
        )


class _Tiles:
    """The tiles of pictures, uint8 [n * factor * factor, side, side, 3], cut when they are asked for."""

    def __init__(self, pictures: Pictures, factor: int) -> None:
        side = pictures.shape[1] // factor
        self.shape = (len(pictures) * factor**2, side, side, 3)
        self._pictures = pictures
        self._factor = factor

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Pixels:
        picture, cell = divmod(index, self._factor**2)
        tile: Pixels = split_tiles(self._pictures[picture], self._factor)[cell]
        return tile


class DistilledTiles(InMemoryImages):
    """Each tile of a distilled data set as one image: mosaic by mosaic, row by row.

    Args:
        out: the folder that `fgdd-fast distill` wrote.
        soft_labels: whether targets are the teacher's stored logits for each tile, instead of classes.
        transform: from a uint8 tensor [3, size // factor, size // factor] to the image wanted.

    Raises:
        DataError: the data set is damaged or incomplete, or has no such labels.
    """

    def __init__(
        self, out: str | os.PathLike[str], *, soft_labels: bool = False, transform: Transform = Normalise()
    ) -> None:
        distilled = open_distilled(Path(out))
        count = distilled.factor**2
        logits = open_labels(distilled).tiles() if soft_labels else None
        super().__init__(
            _Tiles(distilled.read_all(), distilled.factor),
            distilled.labels.repeat(count),
            distilled.manifest.classes,
            logits=None if logits is None else logits.reshape(-1, logits.shape[2]),
            transform=transform,
        )


class ValidationImages(InMemoryImages):
    """Photographs that no student has seen, one folder for each class, as RDED validates.

    The shorter side becomes `size // 7 * 8` pixels, and the centre is cut out. Images that cannot be used are
    left out, and listed in `skipped`.

    Args:
        folder: holds one folder of images for each class.
        classes: the student's, in the order of its outputs; the folder has no others.
        size: side of an image in pixels.
        threads: that decode.
        transform: from a uint8 tensor [3, size, size] to the image wanted.

    Raises:
        DataError: the folder has other classes, or no image that can be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        classes: Sequence[str],
        size: int,
        *,
        threads: int = 4,
        transform: Transform = Normalise(),
    ) -> None:
        found = read_validation(Path(folder), classes, size, threads=threads)
        self.skipped = found.skipped
        super().__init__(found.images, found.labels, found.classes, logits=None, transform=transform)


class DistilledViews(Dataset[tuple[Tensor, Tensor]]):
    """RDED's training views of a distilled data set: one of each mosaic in every epoch.

    An item is (image, target): `transform`'s tensor of the view; and the logits, float32 [classes], that the
    teacher of `fgdd-fast label` gave to that very view. With a `recipe`, no stored labels are needed: views
    are drawn by it, and the target is each class's share in the view's area, for training without a teacher,
    or with one that labels the batches online.

    Views come in the epoch's own, shuffled order, and CutMix mixes neighbours: so load them with
    `batch_size=views.recipe.batch` and no further shuffling. Call `set_epoch` before each epoch; it reaches
    the workers of a `DataLoader` too, persistent ones included.

    Args:
        out: the folder that `fgdd-fast distill` wrote.
        recipe: how views are drawn; None for those that are stored with their labels.
        transform: from a uint8 tensor [3, size, size] to the image wanted.

    Attributes:
        classes: names, in the order of a target's columns.
        size: side of a view in pixels.
        recipe: how the views are drawn.
        epochs: how many are stored; None where views are drawn, for there is no end of these.

    Raises:
        DataError: the data set is damaged or incomplete, or its stored labels are missing, damaged, or of
            another data set.
        SettingsError: the recipe does not fit the mosaics.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        recipe: ViewRecipe | None = None,
        transform: Transform = Normalise(),
    ) -> None:
        distilled = open_distilled(Path(out))
        self.epochs: int | None = None
        soft: SoftLabels | None = None
        if recipe is None:
            labels = open_labels(distilled)
            if labels.recipe is None:
                raise DataError(
                    f"The labels of {distilled.folder} are of mosaics and tiles alone, not of training views",
                    "Label some: fgdd-fast label OUT --teacher BUNDLE --epochs 300",
                )
            recipe, self.epochs, soft = labels.recipe, labels.epochs, labels.epoch
        self.classes = distilled.manifest.classes
        self.recipe = recipe
        self.size = recipe.size
        self._transform = transform
        self._set = TrainingSet(distilled.read_all(), distilled.labels, self.classes, recipe, soft)
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # so that workers see it change
        self._loaded = (0, *self._set.epoch(0))

    def __len__(self) -> int:
        return len(self._set.labels)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose views come next.

        Raises:
            SettingsError: there are fewer epochs of stored labels.
        """
        if self.epochs is not None and not 0 <= epoch < self.epochs:
            raise SettingsError(
                f"There is no epoch {epoch}: views and labels of {self.epochs} are stored, from 0 on",
                "Go round them with 'epoch % views.epochs', or label more: fgdd-fast label OUT --epochs N",
            )
        self._epoch.fill_(epoch)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Several views at once, as a `DataLoader` asks for a batch: each is rendered once."""
        views, targets = self._views()
        pixels = render(self._set.images, views, self.recipe, places)
        return [
            (self._transform(_channels_first(view)), torch.tensor(targets[place]))
            for view, place in zip(pixels, places, strict=True)
        ]

    def _views(self) -> tuple[EpochViews, NDArray[np.float32]]:
        epoch = int(self._epoch)
        if self._loaded[0] != epoch:
            self._loaded = (epoch, *self._set.epoch(epoch))
        return self._loaded[1:]


def _channels_first(pixels: Pixels) -> Tensor:
    """uint8 [height, width, 3] as a new tensor uint8 [3, height, width]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
