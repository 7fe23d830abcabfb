"""The data set: a folder with one folder of images for each class."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fgdd_fast.errors import DataError
from fgdd_fast.seeding import seeded_hash, source_bytes

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
UNREADABLE_SUFFIXES = frozenset(
    {
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".svg",
        ".psd",
        ".exr",
        ".hdr",
        ".raw",
        ".dng",
        ".cr2",
        ".nef",
    }
)
LAYOUT = "Give a folder that holds one folder of images for each class, as in DATA/cat/1.jpg."


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image of the data set, not yet opened.

    Attributes:
        source: POSIX path within the data set; bytes that are no UTF-8 are kept by surrogateescape.
        class_name: the image's class, which is the first part of `source`.
        root: the data set's folder.
    """

    source: str
    class_name: str
    root: Path

    @property
    def path(self) -> Path:
        """Where the file is. Made on demand: a million paths would take far more memory than their names."""
        return self.root / self.source


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is left out.

    Attributes:
        source: POSIX path within the data set.
        reason: why, in a few words, without any path.
    """

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """What a scan found.

    Attributes:
        root: the folder that was scanned.
        classes: class names in the order of torchvision's ImageFolder, which is that of `sorted`.
        images: all images, sorted by class, then by the bytes of `source`.
        skipped: what was left out, sorted by the bytes of `source`.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[SourceImage, ...]
    skipped: tuple[Skipped, ...]


def scan(root: Path) -> DataSet:
    """Find the classes and images of a data set, without opening any image.

    Every folder in `root` is a class, and is searched with all its subfolders. Symbolic links are followed,
    but no folder is searched twice for one class, so links cannot lead in circles. Hidden names
    (`.git`, `._x.jpg`) and files that are no images are ignored. The result does not depend on the order in
    which the disk lists files.

    Raises:
        DataError: the folder is missing, unreadable, or empty, or a class has no image.
    """
    classes, stray, skipped = _list_root(root)
    if not classes:
        raise _no_classes(root, stray, skipped)
    skipped += [Skipped(name, "image outside every class folder") for name in stray]
    images: list[SourceImage] = []
    empty: list[str] = []
    for class_name in classes:
        search = _ClassSearch(root, class_name)
        names = sorted(search.run(), key=source_bytes)
        images += [SourceImage(name, class_name, root) for name in names]
        skipped += search.skipped
        if not names:
            empty.append(class_name)
    if empty:
        raise _empty_classes(root, empty, skipped)
    skipped.sort(key=lambda item: source_bytes(item.source))
    return DataSet(root, tuple(classes), tuple(images), tuple(skipped))


def pool(dataset: DataSet, limit: int | None, seed: int) -> tuple[SourceImage, ...]:
    """Choose at most `limit` images of each class; all of them when None.

    The choice depends on the seed and the images' names only, and a larger pool contains a smaller one.
    Sorted as `DataSet.images` is.
    """
    if limit is None:
        return dataset.images
    by_class: defaultdict[str, list[SourceImage]] = defaultdict(list)
    for image in dataset.images:
        by_class[image.class_name].append(image)
    chosen: list[SourceImage] = []
    for images in by_class.values():
        ranked = sorted(images, key=lambda image: seeded_hash("fgdd pool", seed, image.source).digest())
        chosen += sorted(ranked[:limit], key=lambda image: source_bytes(image.source))
    return tuple(chosen)


def _list_root(root: Path) -> tuple[list[str], list[str], list[Skipped]]:
    """Names of the class folders, of images beside them, and what cannot be followed."""
    skipped: list[Skipped] = []
    classes: list[str] = []
    stray: list[str] = []
    try:
        identity = _identity(root)
        with os.scandir(root) as entries:
            for entry in entries:
                kind = _kind(entry)
                if kind == "folder" and _identity(entry) == identity:
                    skipped.append(Skipped(entry.name, "symbolic link to the data set itself"))
                elif kind == "folder":
                    classes.append(entry.name)
                elif kind == "image":
                    stray.append(entry.name)
                elif kind != "other":
                    skipped.append(Skipped(entry.name, kind))
    except FileNotFoundError as error:
        raise DataError(f"There is no folder {root}", LAYOUT) from error
    except NotADirectoryError as error:
        raise DataError(f"{root} is a file, not a folder", LAYOUT) from error
    except OSError as error:
        advice = "Check its permissions." if isinstance(error, PermissionError) else ""
        raise DataError(f"The folder {root} cannot be read: {error.strerror}", advice) from error
    return sorted(classes), sorted(stray), skipped


class _ClassSearch:
    """Search of one class's folder: real folders first, then those that symbolic links lead to.

    Folders are known by device and inode, so each is searched once. The data set's own folder counts as
    searched: a link to it would bring every class into this one.
    """

    def __init__(self, root: Path, class_name: str) -> None:
        self.skipped: list[Skipped] = []
        self._root = root
        self._searched = {_identity(root)}
        self._folders = [class_name]
        self._links: list[str] = []

    def run(self) -> Iterator[str]:
        """Yield the sources of the class's images, in no particular order."""
        while self._folders or self._links:
            if not self._folders:
                self._links.sort(key=source_bytes, reverse=True)
                self._folders.append(self._links.pop())
            yield from self._search(self._folders.pop())

    def _search(self, folder: str) -> Iterator[str]:
        path = self._root / folder
        try:
            identity = _identity(path)
            if identity in self._searched:
                self.skipped.append(Skipped(folder, "symbolic link to a folder that is searched already"))
                return
            self._searched.add(identity)
            with os.scandir(path) as entries:
                for entry in entries:
                    source = f"{folder}/{entry.name}"
                    kind = _kind(entry)
                    if kind == "image":
                        yield source
                    elif kind == "folder":
                        (self._links if entry.is_symlink() else self._folders).append(source)
                    elif kind != "other":
                        self.skipped.append(Skipped(source, kind))
        except OSError as error:
            self.skipped.append(Skipped(folder, f"folder cannot be read: {error.strerror}"))


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `image`, `other` for what is ignored, or the reason why an entry cannot be used."""
    if entry.name.startswith("."):
        return "other"
    try:
        if entry.is_dir():
            return "folder"
        if not entry.is_file() and entry.is_symlink():
            return "symbolic link that leads nowhere"
        return _kind_of_file(entry)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _kind_of_file(entry: os.DirEntry[str]) -> str:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a million Paths are slow
    if suffix in UNREADABLE_SUFFIXES:
        return f"images of the format {suffix} cannot be read"
    if suffix not in SUFFIXES:
        return "other"
    return "image" if entry.is_file() else "not a regular file"


def _identity(folder: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 - takes both
    return status.st_dev, status.st_ino


def _no_classes(root: Path, stray: list[str], skipped: list[Skipped]) -> DataError:
    if stray:
        return DataError(
            f"The folder {root} holds images, such as {stray[0]!r}, but no class folders",
            "Move each image into a folder named after its class, as in DATA/cat/1.jpg.",
        )
    if skipped:
        left_out = f"{skipped[0].source!r} is left out: {skipped[0].reason}"
        return DataError(f"The folder {root} holds no class folder ({left_out})", LAYOUT)
    return DataError(f"The folder {root} holds no class folder", LAYOUT)


def _empty_classes(root: Path, empty: list[str], skipped: list[Skipped]) -> DataError:
    named = ", ".join(repr(name) for name in empty[:5]) + (", …" if len(empty) > 5 else "")
    problem = (
        f"The folder {root} has {len(empty)} class folder{'s' * (len(empty) > 1)} without images: {named}"
    )
    why = next((item for item in skipped if item.source.split("/")[0] == empty[0]), None)
    if why is not None:
        problem += f" ({why.source!r} is left out: {why.reason})"
    return DataError(problem, "Put images there, or take the folder out of the data set.")
