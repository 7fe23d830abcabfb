"""Looks: a quick one at the foreground of every image, and a closer one at that of some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.cluster.cluster import Cluster
from fgdd_fast.images.dataset import Skipped, SourceImage
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.measurement.measurer import Measured, Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.foreground import Foreground, ForegroundModel, Inputs, Pixels
from fgdd_fast.models.network import Teacher
from fgdd_fast.parallel import batched
from fgdd_fast.selection.records import ImageRecord

_READ = 256  # records at once


class Mirrored:
    """A `ForegroundModel` that looks at images in a mirror: how far it then is off tells how sure it is.

    Args:
        model: looks; whoever opened it closes it.
    """

    def __init__(self, model: ForegroundModel) -> None:
        self._model = model
        self.name, self.sha256 = model.name, model.sha256
        self.description, self.streams = model.description, model.streams

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`."""
        return {**self._model.fingerprint(class_name), "mirrored": "True"}

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        """See `ForegroundModel.prepare`."""
        return self._model.prepare(np.ascontiguousarray(pixels[:, ::-1]), image)

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """See `ForegroundModel.find`; masks are turned back, and there are no boxes."""
        return [
            Foreground(
                found.occupancy,
                mask=None if found.mask is None else np.ascontiguousarray(found.mask[:, ::-1]),
            )
            for found in self._model.find(prepared, masks=masks)
        ]

    def close(self) -> None:
        """Nothing is held."""


class Looks:
    """Measures images as a `Measurer` does with a quick foreground model, and some with the one asked for.

    What is measured lies in the store as always. Records have the closer look of those images alone that
    `look` was told of, whatever else the store holds, so that decisions do not depend on what that is.

    Args:
        quick: looks at every image.
        foreground: was asked for, and looks where it is told to.
        teacher, settings, store, classes, cluster: see `Measurer`.
    """

    def __init__(
        self,
        quick: ForegroundModel,
        foreground: ForegroundModel,
        teacher: Teacher,
        settings: MeasureSettings,
        store: Store,
        classes: Sequence[str],
        cluster: Cluster | None = None,
    ) -> None:
        self._quick = Measurer(quick, teacher, settings, store, classes, cluster)
        settings = replace(settings, hashes=False)
        self._foreground = Measurer(foreground, None, settings, store, classes, cluster)
        self._mirrored = Measurer(Mirrored(foreground), None, settings, store, classes, cluster)
        self._looked: dict[str, Skipped | None] = {}

    @property
    def features(self) -> TileFeatures:
        """See `Measurer.features`."""
        return self._quick.features

    @property
    def looked(self) -> frozenset[str]:
        """The sources of the images that `look` was told of."""
        return frozenset(self._looked)

    def measure(self, images: Sequence[SourceImage], *, progress: Progress = SILENT) -> Measured:
        """Measure what is missing, by the quick look; see `Measurer.measure`."""
        return self._quick.measure(images, progress=progress)

    def missing(self, images: Sequence[SourceImage], *, progress: Progress = SILENT) -> list[SourceImage]:
        """Return the images for the quick look; see `Measurer.missing`."""
        return self._quick.missing(images, progress=progress)

    def look(self, images: Iterable[SourceImage], *, progress: Progress = SILENT) -> None:
        """Look closer at images, unless that was done before; see `Measurer.measure`."""
        new = [image for image in images if image.source not in self._looked]
        skipped = self._foreground.measure(new, progress=progress).skipped
        self._looked.update(dict.fromkeys(image.source for image in new))
        self._looked.update((item.source, item) for item in skipped)

    def compare(
        self, images: Sequence[SourceImage], *, progress: Progress = SILENT
    ) -> tuple[list[float], list[float]]:
        """Look closer at images, and once more in a mirror.

        Returns:
            The occupancies found so less those of the quick look; and those in the mirror less these.
        """
        self.look(images, progress=progress)
        self._mirrored.measure(images, progress=progress)
        looks = (measurer.records(images) for measurer in (self._quick, self._foreground, self._mirrored))
        seen = [
            [record.occupancy for record in records if isinstance(record, ImageRecord)]
            for records in zip(*looks, strict=True)
        ]
        found = [each for each in seen if len(each) == 3]
        return [plain - quick for quick, plain, _ in found], [again - plain for _, plain, again in found]

    def masks(self, images: Iterable[SourceImage]) -> Iterator[Pixels | None]:
        """Return the mask of each image, by the closer look where there was one; see `Measurer.masks`."""
        for some in batched(images, _READ):
            chosen = [image for image in some if image.source in self._looked]
            seen = dict(zip(chosen, self._foreground.masks(chosen), strict=True))
            for image, mask in zip(some, self._quick.masks(some), strict=True):
                yield seen.get(image, mask)

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """Return what is known of images; see `Measurer.records`.

        Of one that was not looked at closer, `looked` is False.
        """
        for some in batched(images, _READ):
            chosen = [image for image in some if image.source in self._looked]
            seen = dict(zip(chosen, self._foreground.records(chosen), strict=True))
            for image, record in zip(some, self._quick.records(some), strict=True):
                skipped = self._looked.get(image.source)
                yield skipped or _merged(record, seen.get(image))


def _merged(record: ImageRecord | Skipped, seen: ImageRecord | Skipped | None) -> ImageRecord | Skipped:
    """One record with the foreground of another, if there is one."""
    if isinstance(record, Skipped) or isinstance(seen, Skipped):
        return seen if isinstance(seen, Skipped) else record
    if seen is None:
        return replace(record, looked=False)
    crops = tuple(
        replace(crop, foreground=other.foreground)
        for crop, other in zip(record.crops, seen.crops, strict=True)
    )
    return replace(record, occupancy=seen.occupancy, crops=crops)
