"""Measure images with two networks: what is done with the bytes of an image, without the store."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import Skipped, SourceImage
from fgdd_fast.images.decode import decoding, read_file, upright_size
from fgdd_fast.images.depth import at_depth
from fgdd_fast.images.near_duplicates import perceptual_hash
from fgdd_fast.images.place import Address, file_signature
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.measurement.coverage import kept_shares
from fgdd_fast.measurement.missing import Found, MeasureSettings, MissingWork, all_work
from fgdd_fast.measurement.store_format import KnownFile, encode_mask
from fgdd_fast.models.foreground import ForegroundModel, Inputs, Pixels
from fgdd_fast.models.network import Images, Teacher
from fgdd_fast.parallel import batched, ordered_map, single_threaded_opencv

_CHUNKS = 8  # in which the images of a batch are read
CHANGED = "changed while it was being measured"


@dataclass(frozen=True)
class ReadFile:
    """A file that was read.

    Attributes:
        image: whose file it is.
        signature: its signature from before it was read.
        sha256: hexadecimal hash of its bytes.
        content: its bytes; None where it was read elsewhere, and is read again to be measured.
    """

    image: SourceImage
    signature: str
    sha256: str
    content: bytes | None


@dataclass(frozen=True)
class Work:
    """A file that was read; `missing` is None when its content was never measured in any way."""

    read: ReadFile
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


def read_source(image: SourceImage, signature: str | None = None) -> ReadFile | Skipped:
    """Read and hash an image's file; for reading threads.

    Args:
        image: whose file it is.
        signature: the file's, if that is known; see `file_signature`.
    """
    try:
        path = image.location
        signature = signature or file_signature(path)
        file = read_file(path)
        return ReadFile(image, signature, file.sha256, file.content)
    except OSError as error:
        return Skipped(image.source, f"cannot be read: {error.strerror or 'it is gone'}")
    except ImageError as error:
        return Skipped(image.source, error.problem)


def hash_batch(files: Sequence[tuple[SourceImage, str]], threads: int) -> list[ReadFile | Skipped]:
    """Read and hash files whose signatures are known, in so many threads; their bytes are not kept.

    Raises:
        DataError: the data set's folder cannot be seen from this machine.
    """

    def hashed(file: tuple[SourceImage, str]) -> ReadFile | Skipped:
        read = read_source(*file)
        return replace(read, content=None) if isinstance(read, ReadFile) else read

    with ThreadPoolExecutor(threads, "read") as readers:
        found = [*readers.map(hashed, files)]
    for (image, _), each in zip(files, found, strict=True):
        if isinstance(each, Skipped) and not (isinstance(image.root, Address) or image.root.is_dir()):
            raise DataError(
                f"The folder {image.root} is not there on {socket.gethostname()}, which is to read it",
                "Put the images on a file system that all machines share, at the same path.",
            )
    return found


class ImageMeasurer:
    """Measures images with two networks; knows no store, and can be sent to another process.

    Args:
        foreground: finds foregrounds.
        teacher: measures losses; without one none are.
        settings: how.

    Attributes:
        ahead: bound on the images that are read and not yet measured.
        chunk: of single images to read at once, so that those of a batch are read side by side.
    """

    def __init__(
        self, foreground: ForegroundModel, teacher: Teacher | None, settings: MeasureSettings
    ) -> None:
        self._foreground = foreground
        self._teacher = teacher
        self._settings = settings
        self._streams = max(foreground.streams, teacher.streams if teacher else 1)
        self.ahead = 2 * settings.batch * self._streams + 2 * settings.threads
        self.chunk = max(1, settings.batch // _CHUNKS)

    def measure(
        self, work: Iterable[Work], readers: Executor, skip: Callable[[Skipped], object]
    ) -> Iterator[list[Found]]:
        """Measure what is missing of files, and yield a list for each batch.

        Args:
            work: taken lazily.
            readers: threads that read and decode.
            skip: told of each image that cannot be used.
        """

        def usable(prepared: Iterable[_Prepared | Skipped]) -> Iterator[_Prepared]:
            for item in prepared:
                if isinstance(item, Skipped):
                    skip(item)
                else:
                    yield item

        with ThreadPoolExecutor(self._streams, "infer") as runners:
            prepared = usable(ordered_map(readers, self._prepare, work, self.ahead, chunk=self.chunk))
            yield from ordered_map(
                runners, self._infer, batched(prepared, self._settings.batch), 2 * self._streams
            )

    def measure_batch(self, work: Sequence[Work]) -> list[Found | Skipped]:
        """Measure some files in threads of its own: see `measure`."""
        done: list[Found | Skipped] = []
        with single_threaded_opencv(), ThreadPoolExecutor(self._settings.threads, "read") as readers:
            for found in self.measure(work, readers, done.append):
                done += found
        return done

    def _prepare(self, work: Work) -> _Prepared | Skipped:
        """Decode an image and take from it what is missing; runs in a reading thread."""
        read = work.read
        try:
            content = read.content
            if content is None:
                file = read_file(read.image.location)
                if file.sha256 != read.sha256:
                    return Skipped(read.image.source, CHANGED)
                content = file.content
            content = at_depth(content, self._settings.sixteen_bit)
            reduced = self._settings.resize == "reduced"
            with decoding(content, reduced=reduced) as pixels:
                size = upright_size(content) if reduced else (pixels.shape[1], pixels.shape[0])
                return self._prepare_decoded(work, pixels, size)
        except ImageError as error:
            return Skipped(read.image.source, error.problem)

    def _prepare_decoded(self, work: Work, pixels: Pixels, size: tuple[int, int]) -> _Prepared:
        """Take from an image's pixels, which may be fewer than it has, what is missing of it."""
        image = work.read.image
        width, height = size
        missing = work.missing
        if missing is None:
            missing = all_work(image, width, height, self._settings, scored=self._teacher is not None)
        return _Prepared(
            image,
            work.read.signature,
            KnownFile(work.read.sha256, width, height),
            self._foreground.prepare(pixels, image) if missing.foreground else None,
            missing.boxes,
            tuple(self._view(pixels, box, size) for box in missing.boxes),
            missing.crops,
            perceptual_hash(pixels) if missing.hash else None,
        )

    def _view(self, pixels: Images, box: Box, size: tuple[int, int]) -> Images:
        assert self._teacher is not None  # else no box is missing
        if (seen := (pixels.shape[1], pixels.shape[0])) != size:
            box = box.scaled(size, seen)
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
        if self._teacher is None:
            return ()
        views = [view for item in batch for view in item.views]
        names = [item.image.class_name for item in batch for _ in item.views]
        return self._teacher.losses_of(views, names)
