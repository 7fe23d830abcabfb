"""Measure a pool of images once: foreground, and the teacher's loss on the whole and on each candidate crop.

How much of the foreground each crop keeps comes with the foreground, at next to no cost; a perceptual
hash only where a decision needs it, since it can be had later without any network.

The store is asked first, so only what is missing is read and measured. Reading and resizing, inference, and
storing overlap: they are chained by bounded windows, so memory does not grow with the pool.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from fgdd_engines.progress import SILENT, Progress, Task
from fgdd_fast.errors import ImageError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import Skipped, SourceImage
from fgdd_fast.images.decode import FileContent, decoding, read_file
from fgdd_fast.images.depth import at_depth
from fgdd_fast.images.near_duplicates import perceptual_hash
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.measurement.missing import Found, MeasureSettings, MissingWork, StoreLookup
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import KnownFile, encode_mask, file_signature
from fgdd_fast.models.foreground import ForegroundModel, Inputs, Pixels
from fgdd_fast.models.network import Images, Teacher, stacked
from fgdd_fast.parallel import batched, ordered_map, single_threaded_opencv
from fgdd_fast.selection.records import ImageRecord

T = TypeVar("T")

_LOOKED_UP = 256  # images at once
_CHUNKS = 8  # in which the images of a batch are read


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
    """A file that was read; `missing` is None when its content was never measured in any way."""

    read: _Read
    missing: MissingWork | None


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
        teacher: measures losses; knows every class. Without one, foregrounds alone are measured, and the
            losses of records are nan.
        settings: how.
        store: holds the measurements; used from the thread that calls the methods.
        classes: of the images.
    """

    def __init__(
        self,
        foreground: ForegroundModel,
        teacher: Teacher | None,
        settings: MeasureSettings,
        store: Store,
        classes: Sequence[str],
    ) -> None:
        self._foreground = foreground
        self._teacher = teacher
        self._settings = settings
        self._store = store
        self._lookup = StoreLookup(foreground, teacher, settings, store, classes)

    @cached_property
    def features(self) -> TileFeatures:
        """What the teacher sees in tiles, for rankings that need it; not without a teacher."""
        assert self._teacher is not None
        return TileFeatures(self._teacher, self._settings, self._store, self._lookup.view_fingerprint)

    def measure(self, images: Sequence[SourceImage], *, progress: Progress = SILENT) -> Measured:
        """Measure what is missing of the images.

        Args:
            images: the pool.
            progress: told of each image that is done, whatever its outcome.

        Raises:
            FgddError: a network or the store failed; everything stored until then is kept.
        """
        threads, batch = self._settings.threads, self._settings.batch
        streams = max(self._foreground.streams, self._teacher.streams if self._teacher else 1)
        ahead = 2 * batch * streams + 2 * threads
        chunk = max(1, batch // _CHUNKS)  # of single images, so that those of a batch are read side by side
        with (
            progress.task("Measuring", len(images)) as task,
            single_threaded_opencv(),
            ThreadPoolExecutor(threads, "read") as readers,
            ThreadPoolExecutor(streams, "infer") as runners,
        ):
            outcome = _Outcome(task)
            files = ordered_map(readers, _read, self._unknown(images, outcome), ahead, chunk=chunk)
            work = self._missing(outcome.usable(files), outcome)
            prepared = outcome.usable(ordered_map(readers, self._prepare, work, ahead, chunk=chunk))
            for results in ordered_map(runners, self._infer, batched(prepared, batch), 2 * streams):
                self._store.add(self._lookup.measurements(results))
                outcome.count_measured(len(results))
        return outcome.measured()

    def missing(self, images: Sequence[SourceImage], *, progress: Progress = SILENT) -> list[SourceImage]:
        """Return the images of which `measure` would measure something.

        Files that are new, or have moved, are read for that.

        Args, Raises: as for `measure`.
        """
        threads = self._settings.threads
        with (
            progress.task("Looking at files", len(images)) as task,
            ThreadPoolExecutor(threads, "read") as readers,
        ):
            outcome = _Outcome(task)
            files = ordered_map(readers, _read, self._unknown(images, outcome), 2 * threads)
            missing = [work.read.image for work in self._missing(outcome.usable(files), outcome)]
            task.advance(len(missing))
        return missing

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """What the store holds of the images, in their order; `Skipped` for one that changed since."""
        for image, found in self._stored(images):
            if isinstance(found, ImageRecord):
                yield found
            else:
                yield Skipped(image.source, "changed while it was being measured")

    def masks(self, images: Iterable[SourceImage]) -> Iterator[Pixels | None]:
        """The mask that the store holds of each image, in their order: see `Store.masks`."""
        for some in batched(images, _LOOKED_UP):
            known = self._lookup.unchanged(some)
            pairs = [(image, file) for image, file in zip(some, known, strict=True) if file is not None]
            found = iter(self._lookup.masks(pairs))
            yield from (None if file is None else next(found) for file in known)

    def _stored(
        self, images: Iterable[SourceImage]
    ) -> Iterator[tuple[SourceImage, ImageRecord | MissingWork | None]]:
        """What the store holds, or lacks, of each image; None where its file is new or changed."""
        for some in batched(images, _LOOKED_UP):
            known = self._lookup.unchanged(some)
            yield from zip(some, self._look_up(some, known), strict=True)

    def _look_up(
        self, images: Sequence[SourceImage], known: Sequence[KnownFile | None]
    ) -> Iterator[ImageRecord | MissingWork | None]:
        pairs = [(image, file) for image, file in zip(images, known, strict=True) if file is not None]
        found = iter(self._lookup.look_up(pairs))
        return (None if file is None else next(found) for file in known)

    def _unknown(self, images: Iterable[SourceImage], outcome: _Outcome) -> Iterator[SourceImage]:
        """The images that have to be read: changed, never seen, or not measured in full."""
        for image, found in self._stored(images):
            if isinstance(found, ImageRecord):
                outcome.count_reused()
            else:
                yield image

    def _missing(self, files: Iterable[_Read], outcome: _Outcome) -> Iterator[_Work]:
        """The files of whose content something is missing; a file that was only moved may lack nothing."""
        for some in batched(files, self._settings.batch):
            contents = self._store.known_contents(read.file.sha256 for read in some)
            known = [contents.get(read.file.sha256) for read in some]
            moved = []
            work = []
            for read, file, found in zip(
                some, known, self._look_up([read.image for read in some], known), strict=True
            ):
                if not isinstance(found, ImageRecord):
                    work.append(_Work(read, found))
                elif file is not None:
                    moved.append(Found(read.image, read.signature, file))
            self._store.add(self._lookup.measurements(moved))
            for _ in moved:
                outcome.count_reused()
            yield from work

    def _prepare(self, work: _Work) -> _Prepared | Skipped:
        """Decode an image and take from it what is missing; runs in a reading thread."""
        image, file = work.read.image, work.read.file
        try:
            with decoding(at_depth(file.content, self._settings.sixteen_bit)) as pixels:
                return self._prepare_decoded(work, pixels)
        except ImageError as error:
            return Skipped(image.source, error.problem)

    def _prepare_decoded(self, work: _Work, pixels: Pixels) -> _Prepared:
        image = work.read.image
        height, width = pixels.shape[:2]
        missing = work.missing or self._lookup.missing_of_unknown(image, width, height)
        return _Prepared(
            image,
            work.read.signature,
            KnownFile(work.read.file.sha256, width, height),
            self._foreground.prepare(pixels, image) if missing.foreground else None,
            missing.boxes,
            tuple(self._view(pixels, box) for box in missing.boxes),
            missing.crops,
            perceptual_hash(pixels) if missing.hash else None,
        )

    def _view(self, pixels: Images, box: Box) -> Images:
        assert self._teacher is not None  # else no box is missing
        tile = tile_pixels(pixels, box, self._teacher.tile_size, self._settings.resize)
        return self._teacher.show(tile)

    def _infer(self, batch: Sequence[_Prepared]) -> list[Found]:
        """Measure what was prepared; runs in an inference thread."""
        inputs = [item.foreground for item in batch if item.foreground is not None]
        foregrounds = iter(self._foreground.find(inputs, masks=True) if inputs else ())
        losses = iter(self._losses(batch))
        found = []
        for item in batch:
            foreground = None if item.foreground is None else next(foregrounds)
            shares: dict[Box, float] = {}
            mask = None
            if foreground is not None and foreground.mask is not None:
                kept = kept_shares(foreground.mask, item.crops, item.known.width, item.known.height)
                shares = dict(zip(item.crops, kept, strict=True))
                mask = encode_mask(foreground.mask)
                foreground = replace(foreground, mask=None)
            each = {box: float(next(losses)) for box in item.boxes}
            hashed = item.perceptual_hash
            found.append(
                Found(item.image, item.signature, item.known, foreground, each, shares, hashed, mask)
            )
        return found

    def _losses(self, batch: Sequence[_Prepared]) -> Iterable[np.float32]:
        """The losses of all views, one image after another."""
        views = [view for item in batch for view in item.views]
        if self._teacher is None or not views:
            return ()
        labels = [self._teacher.label(item.image.class_name) for item in batch for _ in item.views]
        return self._teacher.losses(stacked(views), np.array(labels, np.int32))


def _read(image: SourceImage) -> _Read | Skipped:
    """Read and hash a file; runs in a reading thread."""
    try:
        path = image.path
        return _Read(image, file_signature(path), read_file(path))
    except OSError as error:
        return Skipped(image.source, f"cannot be read: {error.strerror}")
    except ImageError as error:
        return Skipped(image.source, error.problem)


class _Outcome:
    """Counts what becomes of the images, and reports each that is done."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._measured = 0
        self._reused = 0
        self._skipped: list[Skipped] = []

    def usable(self, items: Iterable[T | Skipped]) -> Iterator[T]:
        """The items that are not skipped."""
        for item in items:
            if isinstance(item, Skipped):
                self._skipped.append(item)
                self._task.advance()
            else:
                yield item

    def count_reused(self) -> None:
        self._reused += 1
        self._task.advance()

    def count_measured(self, count: int) -> None:
        self._measured += count
        self._task.advance(count)

    def measured(self) -> Measured:
        skipped = tuple(sorted(self._skipped, key=lambda item: os.fsencode(item.source)))
        return Measured(self._measured, self._reused, skipped)
