"""The data set: a folder with one folder of images for each class, a list, shards, or an address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgdd_fast.errors import DataError
from fgdd_fast.images.listing.addresses import list_address
from fgdd_fast.images.listing.folder_search import ClassSearch, Found, Ignored, list_root
from fgdd_fast.images.listing.lists import ImageList, find_list, read_list
from fgdd_fast.images.listing.members import Member, below_shared_folder, name_members
from fgdd_fast.images.listing.parquet import read_parquets
from fgdd_fast.images.listing.shards import Shards, find_shards
from fgdd_fast.images.listing.tars import read_tars
from fgdd_fast.images.place import Address, File, Location, Place, address_of
from fgdd_fast.seeding import seeded_hash, source_bytes

LAYOUT = "Give a folder that holds one folder of images for each class, as in DATA/cat/1.jpg."
STRAY = "image outside every class folder"
EMPTY = "class folder without images"
ASKED = ("left out by --", "among the held-out images: ")  # how reasons begin of what was asked for


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image of the data set, not yet opened.

    Attributes:
        source: POSIX path within the data set; bytes that are no UTF-8 are kept by surrogateescape.
        class_name: the image's class, which is the first part of `source` unless a list says otherwise.
        root: the data set's folder.
        place: where it lies, if not in a file of its own in that folder.
    """

    source: str
    class_name: str
    root: Path
    place: Place | None = None

    @property
    def location(self) -> Location:
        """Where it is. Paths are made on demand: a million would take far more memory than their names."""
        return self.root / self.source if self.place is None else self.place

    @property
    def path(self) -> Path:
        """Where its file is.

        Raises:
            DataError: it has none.
        """
        if self.place is not None:
            raise DataError(
                f"{self.source!r} lies in {self.place}, and here files on disk are needed",
                "Unpack or copy the data set into folders first.",
            )
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
        root: the folder that was scanned, or that of the list.
        classes: class names in the order of torchvision's ImageFolder, which is that of `sorted`.
        images: all images, sorted by class, then by the bytes of `source`.
        skipped: what was left out, sorted by the bytes of `source`.
        aside: POSIX paths within `root` of files in class folders that are no images, sorted likewise.
        empty: class folders without images, which are no classes; see `survey`.
        listed: the list or the shards, as the user named them, where such were read.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[SourceImage, ...]
    skipped: tuple[Skipped, ...]
    aside: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    listed: Path | None = None

    @property
    def given(self) -> Path:
        """What a user names it by: the list, the shards, or the folder."""
        return self.listed or self.root


def data_root(data: Path) -> Path:
    """Return the folder within which the sources of a data set are paths: that of a list, or else itself."""
    listed = find_list(data)
    return address_of(data) or data if listed is None else listed.file.parent


def is_there(data: Path) -> bool:
    """Whether a data set can be seen; an address shows that only when something is read."""
    return find_shards(data) is not None or isinstance(root := data_root(data), Address) or root.exists()


def locate(data: Path) -> Callable[[str], Location]:
    """Return what says where the images of a data set lie, by their sources, also those that are not there.

    Raises:
        DataError: the data set lies in shards that cannot be used.
        RemoteError: a store cannot be reached.
    """
    root = data_root(data)
    if find_shards(data) is not None:
        places = {image.source: image.location for image in survey(data).images}
        return lambda source: places.get(source, root / source)
    if isinstance(root, Address):
        return lambda source: Place(File(f"{root}/{source}", ""))
    return root.joinpath


def in_reading_order(images: Sequence[SourceImage]) -> Sequence[SourceImage]:
    """Images in the order in which the files that hold several of them are read from first to last."""
    if not any(image.place for image in images):
        return images
    return sorted(
        images, key=lambda image: (image.place.file.path, image.place.offset) if image.place else ("", 0)
    )


def scan(root: Path, *, ignore: Sequence[str] = (), skip_empty: bool = False) -> DataSet:
    """Find the classes and images of a data set, without opening any image.

    Every folder in `root` is a class, and is searched with all its subfolders. Symbolic links are followed,
    but no folder is searched twice for one class, so links cannot lead in circles. Hidden names
    (`.git`, `._x.jpg`) are ignored. A file is an image by its suffix or, where that tells nothing, by its
    first bytes; others are `aside`. The result does not depend on the order in which the disk lists files.

    Of shards and of what lies at an address, no image is opened either; see `fgdd_fast.images.listing`.
    Of a list only what it names is opened. It is a CSV file whose header names a column of paths and one of
    classes, or has lines `path class`; see `fgdd_fast.images.listing.lists`.

    Args:
        root: the folder; a list that lies in a folder above all its images; tar or Parquet files, or the
            folder or pattern of such; or an address that fsspec knows, such as `s3://bucket/train`.
        ignore: shell patterns of files and folders to leave out, as in `*_mask.png`. One with a slash, such
            as `cat/masks`, is of the path within `root`; any other is of a name, wherever it lies.
        skip_empty: whether class folders without images are left out; else they are an error.

    Raises:
        DataError: the folder is missing, unreadable, or empty, or a class has no image.
        RemoteError: a store cannot be reached.
    """
    found = survey(root, ignore=ignore)
    if not found.classes and not found.empty:
        raise no_class_folder(found)
    if found.empty and not (skip_empty and found.classes):
        raise _empty_classes(found)
    return found


def survey(root: Path, *, ignore: Sequence[str] = ()) -> DataSet:
    """Scan a folder as `scan` does, but take it as it is: without classes, or with empty ones.

    Raises:
        DataError: the folder is missing or unreadable.
    """
    ignored = Ignored(tuple(ignore))
    if (listed := find_list(root)) is not None:
        return _survey_list(root, listed, ignored)
    if (shards := find_shards(root)) is not None or address_of(root) is not None:
        return _survey_stored(root, shards, ignored)
    try:
        folders, stray, found = list_root(root, ignored)
    except FileNotFoundError as error:
        raise DataError(f"There is no folder {root}", LAYOUT) from error
    except NotADirectoryError as error:
        raise DataError(f"{root} is a file, not a folder", LAYOUT) from error
    except OSError as error:
        advice = "Check its permissions." if isinstance(error, PermissionError) else ""
        raise DataError(f"The folder {root} cannot be read: {error.strerror}", advice) from error
    images: list[SourceImage] = []
    classes: list[str] = []
    empty: list[str] = []
    found.skipped += [(name, STRAY) for name in stray]
    for class_name in folders:
        names = sorted(ClassSearch(root, class_name, ignored, found).run(), key=source_bytes)
        images += [SourceImage(name, class_name, root) for name in names]
        (classes if names else empty).append(class_name)
    found.skipped += [(name, EMPTY) for name in empty]
    return DataSet(root, tuple(classes), tuple(images), *_beside(found), tuple(empty))


def _survey_list(data: Path, listed: ImageList, ignored: Ignored) -> DataSet:
    found = Found()
    labels = read_list(listed, ignored, found)
    if not labels:
        raise DataError(f"The list {listed.file} names no image", "A line names a path and a class.")
    sources = sorted(labels, key=lambda source: (labels[source], source_bytes(source)))
    images = tuple(SourceImage(source, labels[source], listed.file.parent) for source in sources)
    classes = tuple(sorted(set(labels.values())))
    return DataSet(listed.file.parent, classes, images, *_beside(found), listed=data)


def _survey_stored(data: Path, shards: Shards | None, ignored: Ignored) -> DataSet:
    """Survey what is no folder on disk: shards, or what lies at an address."""
    found, names, given = Found(), None, address_of(data) or data
    members: Sequence[Member]
    root = given if shards is None else shards.root
    try:
        if shards is None:
            members = list_address(Address(root), ignored, found)
        else:
            read, names = (read_tars if shards.suffix == ".tar" else read_parquets)(shards, found)
            members = below_shared_folder(read)
    except FileNotFoundError as error:
        raise DataError(f"There is nothing at {given}", LAYOUT) from error
    images = name_members(members, names, given, ignored, found)
    if not images:
        why = f" ({found.skipped[0][0]!r} is left out: {found.skipped[0][1]})" if found.skipped else ""
        raise DataError(f"There is no image with a class in {given}{why}", LAYOUT)
    sources = sorted(images, key=lambda source: (images[source][0], source_bytes(source)))
    return DataSet(
        root,
        tuple(sorted({class_name for class_name, _ in images.values()})),
        tuple(SourceImage(source, images[source][0], root, images[source][1]) for source in sources),
        *_beside(found),
        listed=None if shards is None else given,
    )


def _beside(found: Found) -> tuple[tuple[Skipped, ...], tuple[str, ...]]:
    """What was left out, and what are no images."""
    skipped = (Skipped(source, reason) for source, reason in found.skipped)
    return (
        tuple(sorted(skipped, key=lambda item: source_bytes(item.source))),
        tuple(sorted(found.aside, key=source_bytes)),
    )


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


def no_class_folder(found: DataSet) -> DataError:
    """Return the error that says why a folder has no classes, and what to do."""
    root = found.root
    stray = [item.source for item in found.skipped if item.reason == STRAY]
    if stray:
        return DataError(
            f"The folder {root} holds images, such as {stray[0]!r}, but no class folders",
            "Move each image into a folder named after its class, as in DATA/cat/1.jpg.",
        )
    if found.skipped:
        left_out = f"{found.skipped[0].source!r} is left out: {found.skipped[0].reason}"
        return DataError(f"The folder {root} holds no class folder ({left_out})", LAYOUT)
    return DataError(f"The folder {root} holds no class folder", LAYOUT)


def _empty_classes(found: DataSet) -> DataError:
    empty = found.empty
    named = ", ".join(repr(name) for name in empty[:5]) + (", …" if len(empty) > 5 else "")
    folders = "class folder" if len(empty) == 1 else "class folders"
    problem = f"The folder {found.root} has {len(empty)} {folders} without images: {named}"
    reasons = (item for item in found.skipped if item.reason != EMPTY)
    why = next((item for item in reasons if item.source.split("/")[0] == empty[0]), None)
    if why is not None:
        problem += f" ({why.source!r} is left out: {why.reason})"
    return DataError(
        problem,
        "Put images there, or take the folder out of the data set, or leave it out: --skip-empty, or "
        "--ignore for one that is no class.",
    )
