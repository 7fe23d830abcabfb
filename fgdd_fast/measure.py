"""Measure a pool of images once: occupancy, and the teacher's loss on the whole and on each candidate crop.

The store is asked first, so only what is missing is read and measured. Reading and resizing, inference, and
storing overlap: they are chained by bounded windows, so memory does not grow with the pool.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_fast.crops import candidate_boxes
from fgdd_fast.dataset import Skipped, SourceImage
from fgdd_fast.decode import FileContent, decode_image, read_file
from fgdd_fast.errors import ImageError
from fgdd_fast.networks import ForegroundModel, Teacher, fingerprint_text
from fgdd_fast.records import Box, ImageRecord, View
from fgdd_fast.resize import ResizeMethod, resize
from fgdd_fast.store import KnownFile, Measurement, Store, file_signature
from fgdd_fast.streaming import batched, ordered_map
from fgdd_fast.views import tile_pixels

Images = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class MeasureSettings:
    """How images are measured.

    Attributes:
        crops: candidate crops of each image.
        seed: of the candidate crops.
        resize: how images and tiles are resized.
        batch: images an inference.
        threads: processor threads.
    """

    crops: int
    seed: int
    resize: ResizeMethod
    batch: int
    threads: int


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
class _Needs:
    """What is missing of an image whose size is known."""

    occupancy: bool
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class _Work:
    """A file that was read; `needs` is None when its content was never measured in any way."""

    image: SourceImage
    signature: str
    file: FileContent
    needs: _Needs | None


@dataclass(frozen=True)
class _Prepared:
    """A decoded image, reduced to what the networks take of it."""

    image: SourceImage
    signature: str
    known: KnownFile
    foreground: Images | None
    boxes: tuple[Box, ...]
    views: tuple[Images, ...]


class Measurer:
    """Measures images with two networks, and reads the records back.

    Args:
        foreground: measures occupancies.
        teacher: measures losses; knows every class of the images.
        settings: how.
        store: holds the measurements; used from the thread that calls the methods.
    """

    def __init__(
        self, foreground: ForegroundModel, teacher: Teacher, settings: MeasureSettings, store: Store
    ) -> None:
        self._foreground = foreground
        self._teacher = teacher
        self._settings = settings
        self._store = store
        resized = {"resize": settings.resize}
        self._occupancy_key = store.fingerprint(fingerprint_text(foreground.fingerprint, resized))
        views = {"view": teacher.view, "tile": str(teacher.tile_size)}
        self._loss_key = store.fingerprint(fingerprint_text(teacher.fingerprint, views, resized))

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
                self._store.add(results, foreground=self._occupancy_key, teacher=self._loss_key)
                outcome.count_measured(len(results))
        return outcome.measured()

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """What the store holds of the images, in their order; `Skipped` for one that changed since."""
        for image in images:
            known = self._known(image)
            record = None if known is None else self._record(image, known)
            yield record or Skipped(image.source, "changed while it was being measured")

    def _known(self, image: SourceImage) -> KnownFile | None:
        try:
            return self._store.known_file(image.path, file_signature(image.path))
        except OSError:
            return None

    def _record(self, image: SourceImage, known: KnownFile) -> ImageRecord | None:
        occupancy = self._store.occupancy(known.sha256, self._occupancy_key)
        losses = self._losses(image, known)
        boxes = self._boxes(image, known.width, known.height)
        if occupancy is None or not losses.keys() >= set(boxes):
            return None
        full, *crops = (View(box, losses[box]) for box in boxes)
        return ImageRecord(image.source, known.sha256, image.class_name, occupancy, full, tuple(crops))

    def _unknown(self, images: Iterable[SourceImage], outcome: _Outcome) -> Iterator[SourceImage]:
        """The images that have to be read: changed, never seen, or not measured in full."""
        for image in images:
            known = self._known(image)
            if known is None or self._needs(image, known) is not None:
                yield image
            else:
                outcome.count_reused()

    def _missing(self, files: Iterable[_Read], outcome: _Outcome) -> Iterator[_Work]:
        """The files of whose content something is missing; a file that was only moved may lack nothing."""
        for read in files:
            known = self._store.known_content(read.file.sha256)
            needs = None if known is None else self._needs(read.image, known)
            if known is not None and needs is None:
                label = self._teacher.label(read.image.class_name)
                nothing = Measurement(read.image.path, read.signature, known, None, label, {})
                self._store.add([nothing], foreground=self._occupancy_key, teacher=self._loss_key)
                outcome.count_reused()
            else:
                yield _Work(read.image, read.signature, read.file, needs)

    def _needs(self, image: SourceImage, known: KnownFile) -> _Needs | None:
        """What is missing of an image; None when nothing is."""
        occupancy = self._store.occupancy(known.sha256, self._occupancy_key) is None
        losses = self._losses(image, known)
        distinct = dict.fromkeys(self._boxes(image, known.width, known.height))
        boxes = tuple(box for box in distinct if box not in losses)
        return _Needs(occupancy, boxes) if occupancy or boxes else None

    def _losses(self, image: SourceImage, known: KnownFile) -> dict[Box, float]:
        return self._store.losses(known.sha256, self._loss_key, self._teacher.label(image.class_name))

    def _boxes(self, image: SourceImage, width: int, height: int) -> tuple[Box, ...]:
        """The whole image first, then its candidate crops."""
        settings = self._settings
        crops = candidate_boxes(image.source, width, height, count=settings.crops, seed=settings.seed)
        return (Box(0, 0, width, height), *crops)

    def _prepare(self, work: _Work) -> _Prepared | Skipped:
        """Decode an image and cut from it what is missing; runs in a reading thread."""
        try:
            pixels = decode_image(work.file.content)
        except ImageError as error:
            return Skipped(work.image.source, error.problem)
        height, width = pixels.shape[:2]
        needs = work.needs or _Needs(True, tuple(dict.fromkeys(self._boxes(work.image, width, height))))
        return _Prepared(
            work.image,
            work.signature,
            KnownFile(work.file.sha256, width, height),
            resize(pixels, self._foreground.size, self._settings.resize) if needs.occupancy else None,
            needs.boxes,
            tuple(self._view(pixels, box) for box in needs.boxes),
        )

    def _view(self, pixels: Images, box: Box) -> Images:
        tile = tile_pixels(pixels, box, self._teacher.tile_size, self._settings.resize)
        return self._teacher.show(tile)

    def _infer(self, batch: Sequence[_Prepared]) -> list[Measurement]:
        """Measure what was prepared; runs in an inference thread."""
        inputs = [item.foreground for item in batch if item.foreground is not None]
        occupancies = iter(self._foreground.occupancies(np.stack(inputs)) if inputs else ())
        labels = [self._teacher.label(item.image.class_name) for item in batch for _ in item.views]
        views = [view for item in batch for view in item.views]
        losses = iter(self._teacher.losses(np.stack(views), np.array(labels, np.int32)) if views else ())
        return [
            Measurement(
                item.image.path,
                item.signature,
                item.known,
                None if item.foreground is None else float(next(occupancies)),
                self._teacher.label(item.image.class_name),
                {box: float(next(losses)) for box in item.boxes},
            )
            for item in batch
        ]


@dataclass(frozen=True)
class _Read:
    """A file's bytes, and its signature from before they were read."""

    image: SourceImage
    signature: str
    file: FileContent


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
