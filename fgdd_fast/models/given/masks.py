"""Foreground masks that are there already: drawn by people, or computed by another program."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import MAX_PIXELS, read_file, read_pixels, upright
from fgdd_fast.images.headers import read_header
from fgdd_fast.models.foreground import Pixels
from fgdd_fast.models.given.given import GivenFamily, GivenForeground, Mask

SUFFIX = ".png"
LAYOUT = "Give a folder laid out as the data set is: MASKS/cat/1.png is the mask of DATA/cat/1.jpg."


class GivenMasks(GivenForeground):
    """A `GivenForeground` that looks each image's mask up in a folder.

    The mask of DATA/<class>/<name>.jpg is <class>/<name>.jpg.png in the folder, or else <class>/<name>.png.
    It is a mask of the upright image, after its Exif orientation, at any size of the same aspect. Foreground
    is where its value is above half of what 8 or 16 bits hold or, in a mask of zeros and ones, where it is
    one. The value is alpha if anything is transparent, else grey; a mask in colour is refused.

    Args:
        folder: holds the masks.
        streams: see `ForegroundModel`.

    Raises:
        DataError: the folder is missing, cannot be read, or holds no mask.
    """

    name = "masks"
    description = "given masks"

    def __init__(self, folder: Path, *, streams: int) -> None:
        self._folder = folder
        self.streams = streams
        names = files_within(folder, SUFFIX, "masks", LAYOUT)
        try:
            self._sha256s = {name: file_sha256(folder / name) for name in names}
        except OSError as error:
            raise DataError(f"The folder of masks {folder} cannot be read: {error.strerror}") from error
        self.sha256 = sha256_of_files(self._sha256s)

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`; so stores were keyed when every mask mattered to every image."""
        return {"masks": self.sha256, "class": class_name}

    def image_fingerprint(self, image: SourceImage) -> Mapping[str, str]:
        """See `FingerprintsImages.image_fingerprint`: the image's own mask is all that matters."""
        return {"mask": self._sha256s.get(self._name(image) or "", "none")}

    def read(self, pixels: Pixels, image: SourceImage) -> Mask:  # noqa: ARG002 - the file tells
        """See `GivenForeground.read`."""
        name = self._name(image)
        if name is None:
            raise ImageError("has no mask of its name")
        try:
            file = read_file(self._folder / name)
            if file.sha256 != self._sha256s[name]:
                raise ImageError("it changed just now")
            return _foreground(file.content)
        except ImageError as error:
            raise ImageError(f"its mask cannot be used: {error.problem}") from error

    def _name(self, image: SourceImage) -> str | None:
        """The path of an image's mask within the folder, if there is one."""
        source = PurePosixPath(image.source)
        names = (f"{source}{SUFFIX}", str(source.with_name(f"{source.stem}{SUFFIX}")))
        return next((name for name in names if name in self._sha256s), None)


class StoredMasks(GivenMasks):
    """Masks of the images as they are stored, before their Exif orientation turns them upright.

    Programs that read no Exif draw such masks. They are turned as their images are.
    """

    name = "stored-masks"
    description = "given masks, turned"

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`."""
        return {**super().fingerprint(class_name), "drawn": "as stored"}

    def image_fingerprint(self, image: SourceImage) -> Mapping[str, str]:
        """See `FingerprintsImages.image_fingerprint`."""
        return {**super().image_fingerprint(image), "drawn": "as stored"}

    def read(self, pixels: Pixels, image: SourceImage) -> Mask:
        """See `GivenForeground.read`."""
        orientation = read_header(read_file(image.location).content).orientation
        return np.ascontiguousarray(upright(super().read(pixels, image)[..., None], orientation)[..., 0])


def files_within(folder: Path, suffix: str, what: str, layout: str) -> list[str]:
    """Return the paths within a folder of the files of a suffix, folder by folder in the order of names.

    Args:
        folder: where to look, with all folders in it; names that begin with a dot are passed over.
        suffix: as in `.png`.
        what: they are, for messages, such as `masks`.
        layout: a sentence that says how the folder should be laid out.

    Raises:
        DataError: the folder is missing, cannot be read, or holds no such file.
    """
    try:
        found = [os.path.relpath(file.path, folder) for file in _files(folder, suffix, ())]
    except FileNotFoundError as error:
        raise DataError(f"There is no folder of {what} {folder}", layout) from error
    except NotADirectoryError as error:
        raise DataError(f"{folder} is a file, not a folder of {what}", layout) from error
    except OSError as error:
        raise DataError(f"The folder of {what} {folder} cannot be read: {error.strerror}") from error
    if not found:
        raise DataError(f"The folder {folder} holds no {what}, which are files {suffix}", layout)
    return found


def sha256_of_files(sha256s: Mapping[str, str]) -> str:
    """Return a hash that names files by their paths within a folder and their content, wherever it lies."""
    digest = hashlib.sha256()
    for name, sha256 in sha256s.items():
        digest.update(os.fsencode(name))
        digest.update(f"\0{sha256}\0".encode())
    return digest.hexdigest()


def _files(
    folder: Path | os.DirEntry[str], suffix: str, above: tuple[tuple[int, int], ...]
) -> Iterator[os.DirEntry[str]]:
    """The files of a suffix in a folder and those in it, in the order of their names.

    Args:
        folder: where to look.
        suffix: of the files.
        above: device and inode of the folders that led here, which a symbolic link may lead back to.
    """
    status = os.stat(folder)  # noqa: PTH116 - takes both
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in sorted(visible, key=lambda entry: os.fsencode(entry.name)):
        if entry.is_dir():
            yield from _files(entry, suffix, (*above, identity))
        elif entry.name.endswith(suffix) and entry.is_file():
            yield entry


def _foreground(content: bytes) -> Mask:
    """Where a mask, given as the bytes of its file, says foreground: bool [height, width].

    Raises:
        ImageError: the file is no PNG, damaged or too large, or in colour.
    """
    header = read_header(content)
    if header.format != "PNG":
        raise ImageError(f"{header.format} instead of PNG")
    if header.decoded_bytes > 3 * MAX_PIXELS:
        raise ImageError(f"too large: {header.width} x {header.height} pixels")
    stored = read_pixels(content, cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise ImageError("damaged PNG")
    values = _values(stored)
    limit = 0 if values.max() == 1 else np.iinfo(values.dtype).max // 2
    return np.asarray(values > limit)


def _values(stored: NDArray[Any]) -> NDArray[Any]:
    """Alpha or grey values [height, width] of pixels [height, width] or [height, width, 3 or 4]."""
    if stored.ndim == 2:
        return stored
    if stored.shape[2] == 4:
        alpha = stored[..., 3]
        if (alpha < np.iinfo(alpha.dtype).max).any():
            return alpha
    grey = stored[..., 0]
    if (stored[..., 1] != grey).any() or (stored[..., 2] != grey).any():
        raise ImageError("it is in colour")
    return grey


class _Masks(GivenFamily):
    name, spelling = GivenMasks.name, "masks:FOLDER"
    kind = GivenMasks

    def model(self, path: Path, classes: Sequence[str], streams: int) -> GivenMasks:  # noqa: ARG002
        return self.kind(path, streams=streams)


class _StoredMasks(_Masks):
    name, spelling = StoredMasks.name, "stored-masks:FOLDER"
    kind = StoredMasks


MASKS, STORED_MASKS = _Masks(), _StoredMasks()
