"""Stored soft labels of a distilled data set, read back: `OUT/labels/`.

    labels.json                 what the labels are of, and the hash of every file (`index`)
    images.safetensors          `mosaics` and `tiles`: float16 logits of each image, and of each of its tiles
    epoch-00000.safetensors     the views of an epoch (`views`) and their logits (`compression`)

All logits have one column for each class of the manifest, in its order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import Array
from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.errors import DataError
from fgdd_fast.labels.index import IMAGE_FILE, LABEL_AGAIN, LabelFile, LabelIndex, epoch_file, read_index
from fgdd_fast.labels.tensors import unpack, unpack_views
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe
from fgdd_fast.output.distilled import DistilledSet
from fgdd_fast.output.folder import LABEL_INDEX, LABELS, MANIFEST
from fgdd_fast.output.manifest import Model

T = TypeVar("T")
Logits = NDArray[np.float32]


class StoredLabels:
    """The labels of one distilled data set; opened by `open_labels`.

    Holds no open file, and can be pickled. Every file is compared with its hash whenever it is read.

    Attributes:
        teacher: who gave them; its SHA-256 is that of the fp32 graph.
        classes: of the columns of all logits: those of the manifest.
        recipe: how the views of the epochs are drawn; None where there are no epochs.
        epochs: how many epochs there are.
    """

    def __init__(self, folder: Path, index: LabelIndex, images: int) -> None:
        self.teacher: Model = index.subject.teacher
        self.classes: tuple[str, ...] = index.subject.classes
        self.recipe: ViewRecipe | None = None if index.views is None else index.views.recipe
        self.epochs: int = index.epochs
        self._folder = folder
        self._index = index
        self._images = images

    def mosaics(self) -> Logits:
        """Return logits float32 [n, classes] of the images shown whole to the teacher.

        Raises:
            DataError: the file is missing or damaged.
        """
        return self._read(IMAGE_FILE, lambda arrays: self._logits(arrays["mosaics"], self._images))

    def tiles(self) -> Logits:
        """Return logits float32 [n, factor**2, classes] of each image's tiles, row by row.

        Raises:
            DataError: the file is missing or damaged.
        """

        def decode(arrays: dict[str, Array]) -> Logits:
            count = arrays["tiles"].shape[1]
            return self._logits(arrays["tiles"], self._images, count)

        return self._read(IMAGE_FILE, decode)

    def epoch(self, index: int) -> tuple[EpochViews, Logits]:
        """Return the views of an epoch, and their logits float32 [n, classes] in the same order.

        Args:
            index: from 0 to `epochs` - 1.

        Raises:
            DataError: there is no such epoch, or its file is missing or damaged.
        """
        views = self._index.views
        if views is None or not 0 <= index < self.epochs:
            raise DataError(
                f"There is no epoch {index}: the labels in {self._folder} have {self.epochs}, from 0 on",
                f"Label more: fgdd-fast label OUT --teacher BUNDLE --epochs {index + 1}",
            )
        recipe, compression = views.recipe, views.compression

        def decode(arrays: dict[str, Array]) -> tuple[EpochViews, Logits]:
            logits = compression.unpack(arrays, len(self.classes))
            return unpack_views(arrays, recipe, self._images), self._logits(logits, self._images)

        return self._read(epoch_file(index), decode)

    def _logits(self, logits: Array, *leading: int) -> Logits:
        shape = (*leading, len(self.classes))
        if logits.shape != shape:
            raise ValueError(f"logits of the shape {list(logits.shape)} instead of {list(shape)}")
        return logits.astype(np.float32)

    def _read(self, name: str, decode: Callable[[dict[str, Array]], T]) -> T:
        path = self._folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _damaged(path, f"cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self._index.files[name].sha256:
            raise _damaged(path, "is corrupted")
        try:
            return decode(unpack(content))
        except (KeyError, ValueError, IndexError) as error:
            raise _damaged(path, f"holds something else: {error}") from error


def open_labels(distilled: DistilledSet) -> StoredLabels:
    """Open the stored labels of a distilled data set, and compare them with it.

    No file is read yet: what is gone or has another size is found now, what is corrupted when it is read.

    Raises:
        DataError: there are none, they are of other images, of another manifest, of a teacher that the
            manifest does not name (unless that was asked for when they were made) or of classes in another
            order; epochs are missing; or a file is missing or truncated.
    """
    folder = distilled.folder / LABELS
    index = read_index(folder / LABEL_INDEX)
    check_subject(index, distilled)
    if index.missing or index.lacks_images:
        there = f"{index.epochs - len(index.missing)} of {index.epochs} epochs are there"
        raise DataError(
            f"The labels in {folder} are not finished: {there}",
            "Run the same 'fgdd-fast label' again, which goes on from there.",
        )
    for name, file in index.files.items():
        if problem := find_damage(folder / name, file, hashed=False):
            raise _damaged(folder / name, problem)
    return StoredLabels(folder, index, len(distilled))


def check_subject(index: LabelIndex, distilled: DistilledSet) -> None:
    """Make sure that labels are of this distilled data set.

    Raises:
        DataError: they are not; the message says in what they differ.
    """
    subject, manifest, folder = index.subject, distilled.manifest, distilled.folder / LABELS
    if subject.classes != manifest.classes:
        same = set(subject.classes) == set(manifest.classes)
        raise DataError(
            f"The labels in {folder} have "
            + ("the classes of the manifest in another order" if same else "other classes than the manifest"),
            LABEL_AGAIN,
        )
    named = manifest.models["teacher"]
    if subject.teacher.sha256 != named.sha256 and not subject.other_teacher:
        raise DataError(
            f"The labels in {folder} are of another teacher, {subject.teacher.name}, and the manifest names "
            f"{named.name}",
            LABEL_AGAIN,
        )
    hashes = distilled.hashes()
    if len(hashes) != len(subject.images):
        raise DataError(
            f"The labels in {folder} are of another data set: of {len(subject.images)} images, and there are "
            f"{len(hashes)}",
            LABEL_AGAIN,
        )
    changed = [
        place for place, pair in enumerate(zip(hashes, subject.images, strict=True)) if len({*pair}) > 1
    ]
    if changed:
        raise DataError(
            f"The labels in {folder} are of other images: {len(changed)} of {len(hashes)} are not what was "
            f"labelled, first {manifest.images[changed[0]].file!r}",
            LABEL_AGAIN,
        )
    if subject.manifest != file_sha256(distilled.folder / MANIFEST):
        raise DataError(
            f"The manifest {distilled.folder / MANIFEST} changed since its images were labelled", LABEL_AGAIN
        )


def find_damage(path: Path, file: LabelFile, *, hashed: bool) -> str | None:
    """Return what is wrong with a file of labels; None where it is as it was written.

    Args:
        path: where it is.
        file: what was written.
        hashed: whether its content is read and compared too, and not its size alone.
    """
    try:
        size = path.stat().st_size
        if size != file.size:
            return f"is truncated or changed: it has {size} of {file.size} bytes"
        return "is corrupted" if hashed and file_sha256(path) != file.sha256 else None
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(
        f"The label file {path} {problem}",
        "Run the same 'fgdd-fast label' again, which makes anew what is damaged.",
    )
