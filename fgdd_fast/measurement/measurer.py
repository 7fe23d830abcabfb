"""Measure a pool of images once: foreground, and the teacher's loss on the whole and on each candidate crop.

How much of the foreground each crop keeps comes with the foreground, at next to no cost; a perceptual
hash only where a decision needs it, since it can be had later without any network.

The store is asked first, so only what is missing is read and measured. Reading and resizing, inference, and
storing overlap: they are chained by bounded windows, so memory does not grow with the pool.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import TypeVar

from fgdd_engines.progress import SILENT, Progress, Task
from fgdd_fast.cluster.cluster import Cluster
from fgdd_fast.images.dataset import Skipped, SourceImage, in_reading_order
from fgdd_fast.images.place import file_signature
from fgdd_fast.measurement.features import TileFeatures
from fgdd_fast.measurement.image_measurer import (
    CHANGED,
    ImageMeasurer,
    ReadFile,
    Work,
    hash_batch,
    read_source,
)
from fgdd_fast.measurement.missing import Found, MeasureSettings, MissingWork, StoreLookup
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import KnownFile
from fgdd_fast.models.foreground import ForegroundModel, Pixels
from fgdd_fast.models.network import Teacher
from fgdd_fast.parallel import batched, ordered_map, single_threaded_opencv
from fgdd_fast.selection.records import ImageRecord

T = TypeVar("T")

_LOOKED_UP = 256  # images at once
_SHARD = 16  # images that a worker of a cluster takes at once, or more


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


class Measurer:
    """Measures images with two networks, and reads the records back.

    Args:
        foreground: finds foregrounds.
        teacher: measures losses; knows every class. Without one, foregrounds alone are measured, and the
            losses of records are nan.
        settings: how.
        store: holds the measurements; used from the thread that calls the methods.
        classes: of the images.
        cluster: whose workers measure, in place of threads of this process.
    """

    def __init__(
        self,
        foreground: ForegroundModel,
        teacher: Teacher | None,
        settings: MeasureSettings,
        store: Store,
        classes: Sequence[str],
        cluster: Cluster | None = None,
    ) -> None:
        self._images = ImageMeasurer(foreground, teacher, settings)
        self._cluster = cluster
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
        with progress.task("Measuring", len(images)) as task:
            outcome = _Outcome(task)
            measure = self._measure_here if self._cluster is None else self._measure_on_cluster
            with closing(measure(in_reading_order(images), outcome)) as batches:
                for found in batches:
                    self._store.add(self._lookup.measurements(found))
                    outcome.count_measured(len(found))
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
            files = ordered_map(readers, read_source, self._unknown(images, outcome), 2 * threads)
            missing = [work.read.image for work in self._missing(outcome.usable(files), outcome)]
            task.advance(len(missing))
        return missing

    def _measure_here(
        self, images: Sequence[SourceImage], outcome: _Outcome
    ) -> Generator[list[Found], None, None]:
        ahead, chunk = self._images.ahead, self._images.chunk
        with single_threaded_opencv(), ThreadPoolExecutor(self._settings.threads, "read") as readers:
            files = ordered_map(readers, read_source, self._unknown(images, outcome), ahead, chunk=chunk)
            work = self._missing(outcome.usable(files), outcome)
            yield from self._images.measure(work, readers, outcome.skip)

    def _measure_on_cluster(
        self, images: Sequence[SourceImage], outcome: _Outcome
    ) -> Generator[list[Found], None, None]:
        """Have workers hash the files, and then measure what this process finds to be missing of them."""
        assert self._cluster is not None
        signed = outcome.usable(map(_signed, self._unknown(images, outcome)))
        size = max(self._images.ahead, _SHARD)
        hashing = partial(hash_batch, threads=self._settings.threads)
        hashed = self._cluster.map(
            hashing, batched(signed, size), lambda files: _spelled([each for each, _ in files])
        )
        work = self._missing(outcome.usable(chain.from_iterable(hashed)), outcome)
        done = self._cluster.map(
            self._images.measure_batch,
            batched(work, size),
            lambda files: _spelled([each.read.image for each in files]),
        )
        for results in done:
            yield [*outcome.usable(results)]

    def records(self, images: Iterable[SourceImage]) -> Iterator[ImageRecord | Skipped]:
        """What the store holds of the images, in their order; `Skipped` for one that changed since."""
        for image, found in self._stored(images):
            if isinstance(found, ImageRecord):
                yield found
            else:
                yield Skipped(image.source, CHANGED)

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

    def _missing(self, files: Iterable[ReadFile], outcome: _Outcome) -> Iterator[Work]:
        """The files of whose content something is missing; a file that was only moved may lack nothing."""
        for some in batched(files, self._settings.batch):
            contents = self._store.known_contents(read.sha256 for read in some)
            known = [contents.get(read.sha256) for read in some]
            moved = []
            work = []
            for read, file, found in zip(
                some, known, self._look_up([read.image for read in some], known), strict=True
            ):
                if not isinstance(found, ImageRecord):
                    work.append(Work(read, found))
                elif file is not None:
                    moved.append(Found(read.image, read.signature, file))
            self._store.add(self._lookup.measurements(moved))
            for _ in moved:
                outcome.count_reused()
            yield from work


def _signed(image: SourceImage) -> tuple[SourceImage, str] | Skipped:
    """An image with its file's signature as this machine sees it: another may see other inodes."""
    try:
        return image, file_signature(image.location)
    except OSError as error:
        return Skipped(image.source, f"cannot be read: {error.strerror or 'it is gone'}")


def _spelled(images: Sequence[SourceImage]) -> str:
    return f"the {len(images)} images from {images[0].source!r} to {images[-1].source!r}"


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
                self.skip(item)
            else:
                yield item

    def skip(self, item: Skipped) -> None:
        self._skipped.append(item)
        self._task.advance()

    def count_reused(self) -> None:
        self._reused += 1
        self._task.advance()

    def count_measured(self, count: int) -> None:
        self._measured += count
        self._task.advance(count)

    def measured(self) -> Measured:
        skipped = tuple(sorted(self._skipped, key=lambda item: os.fsencode(item.source)))
        return Measured(self._measured, self._reused, skipped)
