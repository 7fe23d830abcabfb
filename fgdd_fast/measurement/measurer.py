"""Measure a pool of images once: foreground, and the teacher's loss on the whole and on each candidate crop.

How much of the foreground each crop keeps comes with the foreground, at next to no cost; a perceptual
hash only where a decision needs it, since it can be had later without any network.

The store is asked first, so only what is missing is read and measured. Reading and resizing, inference, and
storing overlap: they are chained by bounded windows, so memory does not grow with the pool.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from fgdd_fast.errors import ImageError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import Skipped, SourceImage
from fgdd_fast.images.decode import FileContent, decode_image, read_file
from fgdd_fast.images.near_duplicates import perceptual_hash
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.measurement.missing import MeasureSettings, MissingWork, StoreLookup
from fgdd_fast.measurement.store import KnownFile, Measurement, Store, file_signature
from fgdd_fast.models.foreground import Foreground, ForegroundModel, Inputs
from fgdd_fast.models.network import Images, Teacher
from fgdd_fast.parallel import batched, ordered_map
from fgdd_fast.selection.records import ImageRecord

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """The outcome of measuring a pool.

    Attributes:
        measured: images of which something was measured now.
        reused: images of which the store held everything.
        skipped: images that cannot be used, with the reason.
    """

    measured: int
    reused: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class _Read:
    """A file's bytes, and its signature from before they were read."""

    image: SourceImage
    signature: str
    file: FileContent


@dataclass(frozen=True)
class _Work:
    """A file that was read; `needs` is None when its content was never measured in any way."""

    read: _Read
    needs: MissingWork | None


@dataclass(frozen=True)
class _Prepared:
    """A decoded image, reduced to what the networks take of it."""

    image: SourceImage
    signature: str
    known: KnownFile
    foreground: Inputs | None
    boxes: tuple[Box, ...]
    views: tuple[Images, ...]
    crops: tuple[Box, ...]
    perceptual_hash: int | None


class Measurer:
    """Measures images with two networks, and reads the records back.

    Args:
        foreground: finds foregrounds.
        teacher: measures losses; knows every class.
        settings: how.
        store: holds the measurements; used from the thread that calls the methods.
        classes: of the images.

    Attributes:
        features: what the teacher sees in tiles, for rankings that need it.
    """

    def __init__(
        self,
        foreground: ForegroundModel,
        teacher: Teacher,
        settings: MeasureSettings,
        store: Store,
        classes: Sequence[str],
    ) -> None:
        self._foreground = foreground
        self._teacher = teacher
        self._settings = settings
        self._store = store
        self._inventory = StoreLookup(foreground, teacher, settings, store, classes)
        self.features = TileFeatures(teacher, settings, store, self._inventory.view_fingerprint)

    def measure(self, images: Sequence[SourceImage], advance: Callable[[], None] = lambda: None) -> Measured:
        """Measure what is missing of the images.

        Args:
            images: the pool.
            advance: called in the caller's thread once for each image that is done, whatever its outcome.

        Raises:
            FgddError: a network or the store failed; everything stored until then is kept.
        """
        # One thread a task: the pools below are the parallelism, and OpenCV's own would fight with them.
        cv2.setNumThreads(1)
        threads, batch = self._settings.threads, self._settings.batch
        streams = max(self._foreground.streams, self._teacher.streams)
        ahead = 2 * batch * streams + 2 * threads
        outcome = _Outcome(advance)
        with ThreadPoolExecutor(threads, "read") as readers, ThreadPoolExecutor(streams, "infer") as runners:
            files = ordered_map(readers, _read, self._unknown(images, outcome), ahead)
            work = self._missing(outcome.usable(files), outcome)
            prepared = outcome.usable(ordered_map(readers, self._prepare, work, ahead))
            for results in ordered_map(runners, self._infer, batched(prepared, batch), 2 * streams):
                self._store.add(results)
                outcome.count_measured(len(results))
        return outcome.measured()

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """What the store holds of the images, in their order; `Skipped` for one that changed since."""
        for image in images:
            known = self._inventory.known_file(image)
            record = None if known is None else self._inventory.record(image, known)
            yield record or Skipped(image.source, "changed while it was being measured")

    def _unknown(self, images: Iterable[SourceImage], outcome: _Outcome) -> Iterator[SourceImage]:
        """The images that have to be read: changed, never seen, or not measured in full."""
        for image in images:
            known = self._inventory.known_file(image)
            if known is None or self._inventory.needs(image, known) is not None:
                yield image
            else:
                outcome.count_reused()

    def _missing(self, files: Iterable[_Read], outcome: _Outcome) -> Iterator[_Work]:
        """The files of whose content something is missing; a file that was only moved may lack nothing."""
        for read in files:
            known = self._store.known_content(read.file.sha256)
            needs = None if known is None else self._inventory.needs(read.image, known)
            if known is not None and needs is None:
                nothing = self._inventory.measurement(read.image, read.signature, known, None, {})
                self._store.add([nothing])
                outcome.count_reused()
            else:
                yield _Work(read, needs)

    def _prepare(self, work: _Work) -> _Prepared | Skipped:
        """Decode an image and take from it what is missing; runs in a reading thread."""
        image, file = work.read.image, work.read.file
        try:
            pixels = decode_image(file.content)
            height, width = pixels.shape[:2]
            needs = work.needs or self._inventory.missing_of_unknown(image, width, height)
            foreground = self._foreground.prepare(pixels, image) if needs.foreground else None
        except ImageError as error:
            return Skipped(image.source, error.problem)
        return _Prepared(
            image,
            work.read.signature,
            KnownFile(file.sha256, width, height),
            foreground,
            needs.boxes,
            tuple(self._view(pixels, box) for box in needs.boxes),
            needs.crops,
            perceptual_hash(pixels) if needs.hash else None,
        )

    def _view(self, pixels: Images, box: Box) -> Images:
        tile = tile_pixels(pixels, box, self._teacher.tile_size, self._settings.resize)
        return self._teacher.show(tile)

    def _infer(self, batch: Sequence[_Prepared]) -> list[Measurement]:
        """Measure what was prepared; runs in an inference thread."""
        inputs = [item.foreground for item in batch if item.foreground is not None]
        foregrounds = iter(self._foreground.find(inputs, masks=True) if inputs else ())
        labels = [self._teacher.label(item.image.class_name) for item in batch for _ in item.views]
        views = [view for item in batch for view in item.views]
        losses = iter(self._teacher.losses(np.stack(views), np.array(labels, np.int32)) if views else ())
        return [
            self._measurement(
                item,
                None if item.foreground is None else next(foregrounds),
                {box: float(next(losses)) for box in item.boxes},
            )
            for item in batch
        ]

    def _measurement(
        self, item: _Prepared, foreground: Foreground | None, losses: Mapping[Box, float]
    ) -> Measurement:
        shares: dict[Box, float] = {}
        if foreground is not None and foreground.mask is not None:
            kept = kept_shares(foreground.mask, item.crops, item.known.width, item.known.height)
            shares = dict(zip(item.crops, kept, strict=True))
        return self._inventory.measurement(
            item.image, item.signature, item.known, foreground, losses, shares, item.perceptual_hash
        )


def _read(image: SourceImage) -> _Read | Skipped:
    """Read and hash a file; runs in a reading thread."""
    try:
        return _Read(image, file_signature(image.path), read_file(image.path))
    except OSError as error:
        return Skipped(image.source, f"cannot be read: {error.strerror}")
    except ImageError as error:
        return Skipped(image.source, error.problem)


class _Outcome:
    """Counts what becomes of the images, and reports each that is done."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self._advance = advance
        self._measured = 0
        self._reused = 0
        self._skipped: list[Skipped] = []

    def usable(self, items: Iterable[T | Skipped]) -> Iterator[T]:
        """The items that are not skipped."""
        for item in items:
            if isinstance(item, Skipped):
                self._skipped.append(item)
                self._advance()
            else:
                yield item

    def count_reused(self) -> None:
        self._reused += 1
        self._advance()

    def count_measured(self, count: int) -> None:
        self._measured += count
        for _ in range(count):
            self._advance()

    def measured(self) -> Measured:
        skipped = tuple(sorted(self._skipped, key=lambda item: os.fsencode(item.source)))
        return Measured(self._measured, self._reused, skipped)
