"""A distilled data set read back: its images, held against the manifest that lists them."""

from __future__ import annotations

import hashlib
import operator
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.decode import decode_image, read_file
from fgdd_fast.images.resize import Pixels
from fgdd_fast.output.folder import IMAGES, MANIFEST
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.manifest_reading import read_manifest

MOST_HELD = 2**30  # bytes of images that stay in memory; of 224 pixels these are 7,133
DISTIL_AGAIN = "Copy the data set anew if you have it elsewhere, or distil again."


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """The images of a distilled data set, in the order of its manifest; read when asked for.

    Holds no open file, and can be pickled.

    Attributes:
        folder: the folder that `fgdd-fast distill` wrote.
        manifest: what is in it, and where it comes from.
        size: side of an image in pixels.
        factor: tiles along each side of an image.
        labels: int64 [n], each image's class as an index into `manifest.classes`.
    """

    folder: Path
    manifest: Manifest
    size: int
    factor: int
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.manifest.images)

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        return self.size // self.factor

    def path(self, index: int) -> Path:
        """Where an image's file is."""
        return self.folder / self.manifest.images[index].file

    def file_size(self, index: int) -> int:
        """Bytes of an image's file.

        Raises:
            DataError: it is missing.
        """
        try:
            return self.path(index).stat().st_size
        except OSError as error:
            raise self._damaged(index, f"cannot be read: {error.strerror}") from error

    def content(self, index: int) -> bytes:
        """An image's file as it is.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return read_file(self.path(index)).content
        except ImageError as error:
            raise self._damaged(index, error.problem) from error

    def decode(self, index: int, content: bytes) -> Pixels:
        """The image that an image's file holds, uint8 RGB [size, size, 3].

        Raises:
            DataError: it is damaged, or of another size than the manifest says.
        """
        try:
            pixels = decode_image(content)
        except ImageError as error:
            raise self._damaged(index, error.problem) from error
        height, width = pixels.shape[:2]
        if (height, width) != (self.size, self.size):
            problem = f"{width} x {height} pixels, and its manifest says {self.size} x {self.size}"
            raise self._damaged(index, problem)
        return pixels

    def read(self, index: int) -> Pixels:
        """An image, uint8 RGB [size, size, 3].

        Raises:
            DataError: its file is missing, damaged, or of another size than the manifest says.
        """
        return self.decode(index, self.content(index))

    def tiles(self, index: int) -> Pixels:
        """An image's tiles row by row, uint8 RGB [factor * factor, tile_size, tile_size, 3].

        Raises:
            DataError: as for `read`.
        """
        return split_tiles(self.read(index), self.factor)

    def read_all(self, most: int = MOST_HELD) -> Pictures:
        """All images, once each of them was read; only so many bytes of them stay in memory.

        Raises:
            DataError: as for `read`.
        """
        pictures = Pictures(self, most)
        for _ in pictures:
            pass
        return pictures

    def hashes(self) -> tuple[str, ...]:
        """Hexadecimal SHA-256 of each image's file, in the order of the manifest.

        Raises:
            DataError: a file cannot be read.
        """
        return tuple(hashlib.sha256(self.content(index)).hexdigest() for index in range(len(self)))

    def _damaged(self, index: int, reason: str) -> DataError:
        return DataError(f"The distilled image {self.path(index)} cannot be used: {reason}", DISTIL_AGAIN)


class Pictures:
    """The images of a distilled data set, uint8 RGB [n, size, size, 3], each read when it is first asked for.

    Those that were read stay in memory, up to a limit; others are read anew each time. It can be pickled, and
    takes along what it holds.

    Args:
        distilled: whose images they are.
        most: bytes of images that stay in memory.

    Attributes:
        shape, dtype: as those of an array.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, distilled: DistilledSet, most: int = MOST_HELD) -> None:
        self.shape = (len(distilled), distilled.size, distilled.size, 3)
        self._distilled = distilled
        self._most = most // (3 * distilled.size**2)
        self._held: dict[int, Pixels] = {}

    def __len__(self) -> int:
        return len(self._distilled)

    def __iter__(self) -> Iterator[Pixels]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: SupportsIndex) -> Pixels:
        """Return an image, uint8 [size, size, 3].

        Raises:
            DataError: its file is gone or damaged.
        """
        place = operator.index(index)
        found = self._held.get(place)
        if found is None:
            found = self._distilled.read(place)
            if len(self._held) < self._most:
                self._held[place] = found
        return found


def open_distilled(out: str | Path) -> DistilledSet:
    """Open a distilled data set, and hold the names of its files against its manifest.

    Hidden files, such as file managers leave behind, are passed over; no image is opened.

    Args:
        out: the folder that `fgdd-fast distill` wrote.

    Raises:
        DataError: there is no manifest, it is damaged, an image is missing, or images/ holds something else.
    """
    out = Path(out)
    manifest = read_manifest(out / MANIFEST)
    size, factor = mosaic_geometry(manifest, out)
    listed = Counter(image.file for image in manifest.images)
    _refuse_twice(listed, out)
    present = _present(out)
    _refuse_missing([file for file in listed if file not in present], len(listed), out)
    _refuse_foreign(sorted(present - listed.keys()), out)
    place = {name: label for label, name in enumerate(manifest.classes)}
    labels = np.array([place[image.class_name] for image in manifest.images], np.int64)
    return DistilledSet(out, manifest, size, factor, labels)


def split_tiles(pixels: Pixels, factor: int) -> Pixels:
    """Cut a mosaic, uint8 [size, size, 3], into its tiles, row by row: the inverse of `mosaic.compose`.

    Returns:
        uint8 [factor * factor, size // factor, size // factor, 3], contiguous.
    """
    side = pixels.shape[0] // factor
    cells = pixels.reshape(factor, side, factor, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(cells.reshape(factor**2, side, side, 3))


def mosaic_geometry(manifest: Manifest, out: Path) -> tuple[int, int]:
    """Return size and factor of the mosaics, which the manifest's settings give and its tiles confirm.

    Args:
        manifest: of the data set.
        out: where it lies, for messages.

    Raises:
        DataError: they contradict each other.
    """
    values = []
    for name in ("size", "factor"):
        value = manifest.settings.get(name)
        if type(value) is not int or value < 1:
            raise _contradiction(out, f"settings.{name} must be a whole number from 1 on")
        values.append(value)
    size, factor = values
    if size % factor:
        raise _contradiction(out, f"mosaics of {size} pixels have no {factor} equal tiles a side")
    for image in manifest.images:
        if len(image.tiles) != factor**2:
            raise _contradiction(
                out, f"{image.file!r} has {len(image.tiles)} tiles, and settings.factor is {factor}"
            )
    if not manifest.images:
        raise _contradiction(out, "it lists no image")
    return size, factor


def _present(out: Path) -> set[str]:
    """POSIX paths within OUT of everything in the folders of its classes, or beside these folders."""
    present: set[str] = set()
    try:
        for entry in _visible(out / IMAGES):
            folder = f"{IMAGES}/{entry.name}"
            names = [f"{folder}/{inner.name}" for inner in _visible(entry)] if entry.is_dir() else []
            present.update(names or [folder])
    except FileNotFoundError as error:
        raise DataError(f"The distilled data set {out} has no folder {IMAGES}/", DISTIL_AGAIN) from error
    except OSError as error:
        raise DataError(f"The folder {out / IMAGES} cannot be read: {error.strerror}") from error
    return present


def _visible(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _refuse_twice(listed: Counter[str], out: Path) -> None:
    for file, count in listed.items():
        if count > 1:
            raise _contradiction(out, f"it lists {file!r} {count} times")


def _refuse_missing(missing: list[str], total: int, out: Path) -> None:
    if missing:
        raise DataError(
            f"The distilled data set {out} lacks {len(missing)} of its {total} images: {_named(missing)}",
            DISTIL_AGAIN,
        )


def _refuse_foreign(foreign: list[str], out: Path) -> None:
    if foreign:
        raise DataError(
            f"The distilled data set {out} holds what its manifest does not list: {_named(foreign)}",
            "Move that elsewhere, or distil again: whoever reads the folder would take it for a part of it.",
        )


def _named(files: list[str]) -> str:
    return ", ".join(repr(file) for file in files[:5]) + (", …" if len(files) > 5 else "")


def _contradiction(out: Path, problem: str) -> DataError:
    return DataError(f"{out / MANIFEST} contradicts itself: {problem}", "Distil again.")
