"""Images in tar files: class folders packed as they are, or WebDataset's samples.

    cat/1.jpg                     the class is the folder
    000000.jpg, 000000.cls        the class, or its index, is that of the sample
    000000.jpg, 000000.json       likewise, under `label`, `class` or another name that lists may have

Files of a sample have the same name up to its first dot. Indices are of `dataset.classes` in `manifest.json`,
as `fgdd-fast pack` writes it, or of the lines of `classes.txt` or `classnames.txt` beside the shards; without
these they are names. Where a sample's `json` names its `file`, as `fgdd-fast pack` has it, the image has that
name.
Source of the samples' form: the public repository webdataset/webdataset.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from fgdd_fast.errors import DataError
from fgdd_fast.images.file_kinds import SIGNATURE
from fgdd_fast.images.listing.folder_search import Found
from fgdd_fast.images.listing.lists import LABELS
from fgdd_fast.images.listing.members import Member, clean_path, is_image
from fgdd_fast.images.listing.shards import Shards
from fgdd_fast.images.place import File, Place

_AT_ONCE = 8  # shards that are read
_LARGEST = 1 << 20  # bytes of a sample's `cls` or `json`
_NAMES = ("manifest.json", "classes.txt", "classnames.txt")


def read_tars(shards: Shards, found: Found) -> tuple[list[Member], list[str] | None]:
    """Find the images of tar files by their headers, and the classes by their indices if they are said.

    Raises:
        DataError: a tar is damaged, or compressed.
        RemoteError: a store cannot be reached.
    """
    with ThreadPoolExecutor(_AT_ONCE, "shards") as readers:
        read = readers.map(partial(_read_tar, found=found), shards.files)
        return [*chain.from_iterable(read)], _class_names(shards)


def _read_tar(file: File, found: Found) -> list[Member]:
    try:
        with file.open() as opened:
            try:
                with tarfile.open(fileobj=opened, mode="r:") as tar:
                    images, notes = _contents(tar, opened, found)
            except (tarfile.TarError, ValueError, EOFError) as error:
                raise DataError(
                    f"The tar {file.path} is damaged: {error}",
                    "Copy or write it anew; one that is compressed has to be unpacked first.",
                ) from error
    except OSError as error:
        raise DataError(f"The tar {file.path} cannot be read: {error.strerror or 'it is gone'}") from error
    members = []
    for path, offset, size in images:
        said = notes.get(_key(path)[0], {})
        described = _object(said.get("json", b""))
        label = next((value for name in LABELS if isinstance(value := described.get(name), str | int)), None)
        if "cls" in said:
            label = said["cls"].decode("utf-8", "surrogateescape").strip()
        name = PurePosixPath(str(described.get("file", path))).name or path
        members.append(Member(str(PurePosixPath(path).with_name(name)), label, Place(file, offset, size)))
    return members


def _contents(
    tar: tarfile.TarFile, opened: BinaryIO, found: Found
) -> tuple[list[tuple[str, int, int]], dict[str, dict[str, bytes]]]:
    """Path, offset and size of each image; and of each sample, by its key, its `cls` and `json`."""
    images, notes = list[tuple[str, int, int]](), dict[str, dict[str, bytes]]()
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
        if member.isdir():
            continue
        try:
            path = clean_path(member.name)
            if "/." in f"/{path}":
                continue
            if not member.isreg() or member.issparse():
                raise ValueError("a link in a tar, or something else that is no plain file")
        except ValueError as error:
            found.skipped.append((member.name, str(error)))
            continue
        opened.seek(member.offset_data)
        key, extension = _key(path)
        if extension in ("cls", "json") and member.size <= _LARGEST:
            notes.setdefault(key, {})[extension] = opened.read(member.size)
        elif is_image(path, partial(opened.read, min(member.size, SIGNATURE)), found):
            images.append((path, member.offset_data, member.size))
    opened.seek(tar.offset)
    if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it breaks off at byte {tar.offset}")
    return images, notes


def _class_names(shards: Shards) -> list[str] | None:
    for name in _NAMES:
        if (file := shards.beside.get(name)) is None:
            continue
        if name != _NAMES[0]:
            return [line.strip() for line in file.read().decode("utf-8", "surrogateescape").splitlines()]
        known = _object(file.read()).get("dataset")
        if isinstance(known, dict) and isinstance(names := known.get("classes"), list):
            return [str(each) for each in names]
    return None


def _key(path: str) -> tuple[str, str]:
    """A sample's key and the rest of a file's name: parted at the first dot."""
    folder, slash, name = path.rpartition("/")
    stem, _, extension = name.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _object(content: bytes) -> Mapping[str, Any]:
    """A JSON object; an empty one where it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
