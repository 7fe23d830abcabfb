"""Where the bytes of an image lie: in a file of its own, in a part of a file, or in an object store.

A `Path` stands for a file on this machine's disks. Everything else is a `Place`, which is small and can be
pickled: whoever sees the same files, or reaches the same address, reads the same bytes by it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
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


class Address(PosixPath):
    """An address as a path, `s3://bucket/train`: paths have but one slash there, and so may users' be."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)


def address_of(data: Path) -> Address | None:
    """Return the address that a user names as a data set; None of what is on disk."""
    is_one = len(data.parts) > 1 and _PROTOCOL.fullmatch(data.parts[0])
    return Address(*data.parts) if is_one and not Path(data.parts[0]).exists() else None


@dataclass(frozen=True, slots=True)
class File:
    """A file that holds images, on disk or at an address.

    Attributes:
        path: its absolute path, or its address.
        version: of one at an address, what it said of its content when it was listed; else None.
    """

    path: str
    version: str | None = None

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it for reading; nothing of it is kept on disk."""
        if self.version is None:
            with Path(self.path).open("rb") as opened:
                yield opened
        else:
            with _store_of(self.path) as (store, path), store.open(path, "rb") as opened:
                yield opened

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """Read so many bytes of it, or all that follow.

        Raises:
            OSError: it is gone, or cannot be read.
            RemoteError: its store cannot be reached.
        """
        if self.version is None:
            with Path(self.path).open("rb", buffering=0) as opened:
                return opened.read() if size is None else os.pread(opened.fileno(), size, start)
        with _store_of(self.path) as (store, path):
            return bytes(
                store.cat_file(path, start=start or None, end=None if size is None else start + size)
            )


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image lie that has no file of its own on disk: a stretch of a file.

    Attributes:
        file: that holds them.
        offset, size: in bytes; all of the file without a size.
    """

    file: File
    offset: int = 0
    size: int | None = None

    def __str__(self) -> str:
        """What tells it from every other place and path."""
        return self.file.path if self.size is None else f"{self.file.path}/{self.offset}"

    def read_bytes(self) -> bytes:
        """Read the image's file.

        Raises:
            OSError, ImageError: it cannot be read.
            RemoteError: its store cannot be reached.
        """
        content = self.file.read(self.offset, self.size)
        if self.size is not None and len(content) < self.size:
            raise ImageError(f"the file that holds it, {self.file.name}, was cut short")
        return content


Location: TypeAlias = Path | Place


def file_signature(location: Location) -> str:
    """What changes when a file changes: its inode, size, and times of content and status; or its version.

    Raises:
        OSError: the file is gone or cannot be reached.
    """
    if isinstance(location, Place):
        version = location.file.version
        return file_signature(Path(location.file.path)) if version is None else version
    status = location.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def list_folder(folder: Path) -> dict[str, File | None]:
    """List a folder on disk or at an address, but for names that begin with a dot.

    Returns:
        The file of each name, or None of a folder; sorted by name.

    Raises:
        OSError: it is missing or cannot be read.
        RemoteError: its store cannot be reached.
    """
    found: dict[str, File | None] = {}
    if isinstance(folder, Address):
        with _store_of(str(folder)) as (store, path):
            for info in store.ls(path, detail=True):
                name = info["name"].rstrip("/").rpartition("/")[2]
                version = next((info[key] for key in _VERSIONS if info.get(key)), "")
                file = File(f"{folder}/{name}", f"{version} {info.get('size')}")
                found[name] = None if info["type"] == "directory" else file
    else:
        with os.scandir(folder) as entries:
            for each in entries:
                if each.is_dir() or each.is_file():
                    found[each.name] = None if each.is_dir() else File(str(folder.absolute() / each.name))
    return {name: found[name] for name in sorted(found) if name and not name.startswith(".")}


@contextmanager
def _store_of(address: str) -> Iterator[tuple[Any, str]]:
    """The file system and the path of an address."""
    store = _open_store("/".join(address.split("/", 3)[:3]))
    with _explained(address):
        yield store, store._strip_protocol(address)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Raise what a store raises as RemoteError, but for files that are gone."""
    try:
        yield
    except (FgddError, FileNotFoundError):
        raise
    except Exception as error:  # each store has its own
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise RemoteError(f"{address} cannot be read: {reason}", _ADVICE) from error


@cache
def _open_store(store: str) -> Any:
    """The file system of a store, such as `s3://bucket`: one for all threads of this process.

    Where s3fs is missing, by which fsspec reads S3, Arrow's own file system does.
    """
    fsspec = import_optional("fsspec", "remote")
    try:
        return fsspec.core.url_to_fs(store, use_listings_cache=False)[0]
    except (ImportError, ValueError) as error:
        if not store.startswith("s3://"):
            raise RemoteError(
                f"{store} cannot be opened: {error}", "Install the package that reads it; see docs/data.md."
            ) from error
    arrow, wrapper = (import_optional(name, "remote") for name in ("pyarrow.fs", _WRAPPER))
    with _explained(store):
        return wrapper.ArrowFSWrapper(arrow.FileSystem.from_uri(store)[0])
