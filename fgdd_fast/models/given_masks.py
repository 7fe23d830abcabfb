"""Foreground masks that are there already: drawn by people, or computed by another program."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.errors import DataError, ImageError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import MAX_PIXELS, read_file, read_pixels, upright
from fgdd_fast.images.headers import read_header
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.foreground import Foreground, ForegroundChoice, ForegroundFamily, Inputs, Pixels
from fgdd_fast.models.network import Runtime

SUFFIX = ".png"
LARGEST_SIDE = 512  # pixels of a mask that `find` gives
LAYOUT = "Give a folder laid out as the data set is: MASKS/cat/1.png is the mask of DATA/cat/1.jpg."


class GivenMasks:
    """A `ForegroundModel` that looks each image's mask up in a folder.

    The mask of DATA/<class>/<name>.jpg is <class>/<name>.jpg.png in the folder, or else <class>/<name>.png.
    It is a mask of the upright image, after its Exif orientation, at any size of the same aspect. Foreground
    is where its value is above half of what 8 or 16 bits hold or, in a mask of zeros and ones, where it is
    one. The value is alpha if anything is transparent, else grey; a mask in colour is refused.

    What `prepare` takes of an image: `occupancy` float64 [] of the mask as it is, and `mask` uint8
    [height, width], 0 to 255, reduced to `LARGEST_SIDE`.

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
        self._sha256s = _mask_sha256s(folder)
        self.sha256 = _masks_sha256(self._sha256s)

    def fingerprint(self, class_name: str) -> Mapping[str, str]:
        """See `ForegroundModel.fingerprint`; so stores were keyed when every mask mattered to every image."""
        return {"masks": self.sha256, "class": class_name}

    def image_fingerprint(self, image: SourceImage) -> Mapping[str, str]:
        """See `FingerprintsImages.image_fingerprint`: the image's own mask is all that matters."""
        return {"mask": self._sha256s.get(self._name(image) or "", "none")}

    def prepare(self, pixels: Pixels, image: SourceImage) -> Inputs:
        """See `ForegroundModel.prepare`."""
        foreground = self._read(image)
        _check_aspect(foreground.shape, pixels.shape[:2])
        return {"occupancy": np.asarray(foreground.mean()), "mask": _reduced(foreground)}

    def find(self, prepared: Sequence[Inputs], *, masks: bool = False) -> list[Foreground]:
        """See `ForegroundModel.find`."""
        return [
            Foreground(float(inputs["occupancy"]), mask=inputs["mask"] if masks else None)
            for inputs in prepared
        ]

    def close(self) -> None:
        """Nothing is held."""

    def _read(self, image: SourceImage) -> NDArray[np.bool_]:
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

    def _read(self, image: SourceImage) -> NDArray[np.bool_]:
        orientation = read_header(read_file(image.path).content).orientation
        return np.ascontiguousarray(upright(super()._read(image)[..., None], orientation)[..., 0])


def _mask_sha256s(folder: Path) -> dict[str, str]:
    """The hash of each mask's content, by its path within the folder."""
    try:
        found = {
            os.path.relpath(file.path, folder): file_sha256(Path(file.path))
            for file in _mask_files(folder, ())
        }
    except FileNotFoundError as error:
        raise DataError(f"There is no folder of masks {folder}", LAYOUT) from error
    except NotADirectoryError as error:
        raise DataError(f"{folder} is a file, not a folder of masks", LAYOUT) from error
    except OSError as error:
        raise DataError(f"The folder of masks {folder} cannot be read: {error.strerror}") from error
    if not found:
        raise DataError(f"The folder {folder} holds no mask, which is a file {SUFFIX}", LAYOUT)
    return found


def _masks_sha256(sha256s: Mapping[str, str]) -> str:
    """Name the masks by their paths within the folder and their content, so that a copy has the same name."""
    digest = hashlib.sha256()
    for name, sha256 in sha256s.items():
        digest.update(os.fsencode(name))
        digest.update(f"\0{sha256}\0".encode())
    return digest.hexdigest()


def _mask_files(
    folder: Path | os.DirEntry[str], above: tuple[tuple[int, int], ...]
) -> Iterator[os.DirEntry[str]]:
    """The masks in a folder and those in it, in the order of their names.

    Args:
        folder: where to look.
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
            yield from _mask_files(entry, (*above, identity))
        elif entry.name.endswith(SUFFIX) and entry.is_file():
            yield entry


def _foreground(content: bytes) -> NDArray[np.bool_]:
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


def _check_aspect(mask: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Check that a mask (height, width) has an image's aspect, but for a pixel by which one was rounded."""
    if abs(mask[0] * image[1] - mask[1] * image[0]) > max(*mask, *image):
        raise ImageError(
            f"its mask has {mask[1]} x {mask[0]} pixels, which is not the aspect of the upright image's "
            f"{image[1]} x {image[0]}"
        )


def _reduced(foreground: NDArray[np.bool_]) -> Pixels:
    mask = foreground.astype(np.uint8) * 255
    height, width = mask.shape
    scale = LARGEST_SIDE / max(height, width)
    if scale >= 1:
        return mask
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)


class _Masks(ForegroundFamily):
    name, spelling = GivenMasks.name, "masks:FOLDER"
    kind = GivenMasks

    def find(self, argument: str) -> Path:
        if not argument:
            raise SettingsError(
                f"The foreground model {self.name}: names no folder", f"Write {self.spelling}."
            )
        return Path(argument)

    def open(
        self,
        choice: ForegroundChoice,
        *,
        runtime: Callable[[Bundle], Runtime],  # noqa: ARG002 - nothing runs
        batch: int,  # noqa: ARG002
        resize: ResizeMethod,  # noqa: ARG002
        threads: int,
    ) -> GivenMasks:
        assert isinstance(choice.source, Path)
        return self.kind(choice.source, streams=threads)


class _StoredMasks(_Masks):
    name, spelling = StoredMasks.name, "stored-masks:FOLDER"
    kind = StoredMasks


MASKS, STORED_MASKS = _Masks(), _StoredMasks()
