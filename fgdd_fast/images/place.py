"""Where the bytes of an image lie: in a file of its own, in a part of a file, or in an object store.

A `Path` stands for a file on this machine's disks. Everything else is a `Place`, which is small and can be
pickled: whoever sees the same files, or reaches the same address, reads the same bytes by it.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, TypeAlias

from fgdd_engines.optional_imports import import_optional
from fgdd_fast.errors import FgddError, ImageError, RemoteError

_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]+:")
# What an object's description may say that changes with its content, store by store.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "mtime", "LastModified", "last_modified", "created")

_ADVICE = "Check address, connection and credentials, and run the same again: what was measured is kept."
_WRAPPER = "fsspec.implementations.arrow"


class Place(ABC):
    """Where the bytes of an image lie that has no file of its own."""

    __slots__ = ()

    @property
    @abstractmethod
    def key(self) -> str:
        """What tells it from every other place and path."""

    @property
    def order(self) -> tuple[str, int]:
        """By what files that hold several images are read from first to last."""
        return self.key, 0

    @abstractmethod
    def read_bytes(self) -> bytes:
        """Read the image's file.

        Raises:
            OSError, ImageError: it cannot be read.
            RemoteError: its store cannot be reached.
        """

    @abstractmethod
    def signature(self) -> str:
        """What changes when the bytes do, told without reading them; OSError where they are gone."""

    def __str__(self) -> str:
        return self.key


Location: TypeAlias = Path | Place


class Address(PosixPath):
    """An address as a path, `s3://bucket/train`: paths have but one slash there, and so may users' be."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)


def address_of(data: Path) -> Address | None:
    """Return the address that a user names as a data set; None of what is on disk."""
    is_one = len(data.parts) > 1 and _PROTOCOL.fullmatch(data.parts[0])
    return Address(*data.parts) if is_one and not Path(data.parts[0]).exists() else None


def can_be_seen(root: Path) -> bool:
    """Whether the folder of a data set is there; an address shows that only when something is read."""
    return isinstance(root, Address) or root.exists()


@dataclass(frozen=True, slots=True)
class RemoteFile(Place):
    """A file of an object store, or of whatever else fsspec reads.

    Attributes:
        address: such as `s3://bucket/train/cat/1.jpg`.
        version: what it said of its content when it was listed; empty where it was not.
    """

    address: str
    version: str = ""

    @property
    def key(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.address.rpartition("/")[2]

    def signature(self) -> str:
        return self.version

    def read_bytes(self) -> bytes:
        return self.read_part(0, None)

    def read_part(self, start: int, stop: int | None) -> bytes:
        """Read the bytes from `start` to `stop`, or to the end."""
        with _store_of(self.address) as (store, path):
            return bytes(store.cat_file(path, start=start or None, end=stop))


File: TypeAlias = Path | RemoteFile


@contextmanager
def reading(file: File) -> Iterator[BinaryIO]:
    """Open a file for reading; nothing of it is kept on disk."""
    if isinstance(file, RemoteFile):
        with _store_of(file.address) as (store, path), store.open(path, "rb") as opened:
            yield opened
    else:
        with file.open("rb") as opened:
            yield opened


@dataclass(frozen=True, slots=True)
class Piece(Place):
    """A stretch of a file, such as a member of a tar.

    Attributes:
        file: that holds it.
        offset, size: in bytes.
    """

    file: File
    offset: int
    size: int

    @property
    def key(self) -> str:
        return f"{key_of(self.file)}/{self.offset}"

    @property
    def order(self) -> tuple[str, int]:
        return key_of(self.file), self.offset

    def signature(self) -> str:
        return file_signature(self.file)

    def read_bytes(self) -> bytes:
        if isinstance(self.file, RemoteFile):
            content = self.file.read_part(self.offset, self.offset + self.size)
        else:
            with self.file.open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), self.size, self.offset)
        if len(content) < self.size:
            raise ImageError(f"the file that holds it, {self.file.name}, was cut short")
        return content


def file_signature(location: Location) -> str:
    """What changes when a file changes: its inode, size, and times of content and status.

    Raises:
        OSError: the file is gone or cannot be reached.
    """
    if isinstance(location, Place):
        return location.signature()
    status = location.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def key_of(location: Location) -> str:
    """A file's absolute path, or the key of a place."""
    return location.key if isinstance(location, Place) else str(location.absolute())


def place_of(location: Location) -> Place | None:
    """Return a place as it is, and None of a path."""
    return location if isinstance(location, Place) else None


def list_folder(folder: Path) -> dict[str, File | None]:
    """List a folder on disk or at an address, but for names that begin with a dot.

    Returns:
        The file of each name, or None of a folder; sorted by name.

    Raises:
        OSError: it is missing or cannot be read.
        RemoteError: its store cannot be reached.
    """
    found: dict[str, File | None]
    if isinstance(folder, Address):
        with _store_of(str(folder)) as (store, path):
            listed = {
                each["name"].rstrip("/").rpartition("/")[2]: each for each in store.ls(path, detail=True)
            }
        found = {
            name: None if info["type"] == "directory" else RemoteFile(f"{folder}/{name}", _version(info))
            for name, info in listed.items()
        }
    else:
        with os.scandir(folder) as entries:
            found = {each.name: None if each.is_dir() else folder / each.name for each in entries}
    return {name: found[name] for name in sorted(found) if name and not name.startswith(".")}


def _version(info: Mapping[str, Any]) -> str:
    return f"{next((info[name] for name in _VERSIONS if info.get(name)), '')} {info.get('size')}"


@contextmanager
def _store_of(address: str) -> Iterator[tuple[Any, str]]:
    """The file system and the path of an address; what it raises but for files that are gone is explained."""
    store = _open_store("/".join(address.split("/", 3)[:3]))
    try:
        yield store, store._strip_protocol(address)
    except (FgddError, FileNotFoundError):
        raise
    except Exception as error:  # each store has its own
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise RemoteError(
            f"{address} cannot be read: {reason}",
            _ADVICE,
        ) from error


@cache
def _open_store(store: str) -> Any:
    """The file system of a store, such as `s3://bucket`: one for all threads of this process.

    Where the package is missing by which fsspec reaches it (s3fs, gcsfs), Arrow's own file system does.
    """
    fsspec = import_optional("fsspec", "remote")
    try:
        return fsspec.core.url_to_fs(store, use_listings_cache=False)[0]
    except (ImportError, ValueError) as error:
        arrow, wrapper = (import_optional(name, "remote") for name in ("pyarrow.fs", _WRAPPER))
        try:
            return wrapper.ArrowFSWrapper(arrow.FileSystem.from_uri(store)[0])
        except Exception as other:  # of no class in common
            raise RemoteError(f"{store} cannot be opened: {error}; Arrow: {other}", _ADVICE) from other
