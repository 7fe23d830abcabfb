"""Whole images first: crops only where a class has too few images to fill its mosaics with whole ones."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.images.dataset import Skipped, SourceImage
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.measurement.measurer import Measured, Measurer
from fgdd_fast.selection.records import ImageRecord


class WholeMeasurer:
    """Measures as a `Measurer` does, but crops of those classes alone that cannot do without them.

    Where all images are kept whole, crops are further tiles of a class that has fewer images than tiles. The
    teacher otherwise looks at each image once, instead of once more for each candidate crop.

    Args:
        whole: measures whole images alone.
        cropped: measures their candidate crops as well.
        tiles: how many each class needs.

    Attributes:
        whole: see above.
    """

    def __init__(self, whole: Measurer, cropped: Measurer, *, tiles: Callable[[str], int]) -> None:
        self.whole = whole
        self._cropped = cropped
        self._tiles = tiles
        self._small: set[str] = set()

    @property
    def features(self) -> TileFeatures:
        """See `Measurer.features`."""
        return self.whole.features

    def measure(self, images: Sequence[SourceImage], *, progress: Progress = SILENT) -> Measured:
        """Measure what is missing; see `Measurer.measure`."""
        measured = self.whole.measure(images, progress=progress)
        by_class: defaultdict[str, list[SourceImage]] = defaultdict(list)
        for image in images:
            by_class[image.class_name].append(image)
        self._small = {name for name, members in by_class.items() if self._is_small(name, members)}
        if not self._small:
            return measured
        members = [image for image in images if image.class_name in self._small]
        again = self._cropped.measure(members, progress=progress)
        return replace(measured, skipped=tuple(dict.fromkeys((*measured.skipped, *again.skipped))))

    def _is_small(self, name: str, images: Sequence[SourceImage]) -> bool:
        """Whether a class lacks whole images; no more of them are read back than it needs."""
        contents: set[str] = set()
        for record in self.whole.records(images):
            if isinstance(record, ImageRecord) and math.isfinite(record.full.loss):
                contents.add(record.sha256)
            if len(contents) >= self._tiles(name):
                return False
        return True

    def masks(self, images: Iterable[SourceImage]) -> Iterator[None]:
        """Return None for each image: no foreground was looked for."""
        return (None for _ in images)

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """Return what is known of images; see `Measurer.records`."""
        for small, members in groupby(images, lambda image: image.class_name in self._small):
            yield from (self._cropped if small else self.whole).records(members)
