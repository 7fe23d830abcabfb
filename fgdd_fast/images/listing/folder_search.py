"""The files of a data set, found by walking its folders without going in circles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from fgdd_fast.images.file_kinds import SIGNATURE, Kind, is_image_by_name, kind_of
from fgdd_fast.seeding import source_bytes

_OTHER, _FOLDER, _IMAGE = "other", "folder", "image"


@dataclass
class Found:
    """What a walk met besides images.

    Attributes:
        skipped: what is left out, by its path within the data set, and why.
        aside: files that are no images, by their path.
    """

    skipped: list[tuple[str, str]] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ignored:
    """Shell patterns of what is left out.

    Attributes:
        patterns: one with a slash is of a path within the data set, such as `*/masks`; any other is of the
            name of a file or a folder, wherever it lies.
    """

    patterns: Sequence[str] = ()

    def reason(self, source: str) -> str | None:
        """Return why a path within the data set is left out, if it is."""
        name = source.rpartition("/")[2]
        for pattern in self.patterns:
            wanted = pattern.rstrip("/")
            if fnmatchcase(source if "/" in wanted else name, wanted):
                return f"left out by --ignore {pattern}"
        return None

    def reason_within(self, source: str) -> str | None:
        """Return why a path, or a folder that leads to it, is left out, if it is."""
        if not self.patterns:
            return None
        folders = [source[:place] for place, character in enumerate(source) if character == "/"]
        return next((reason for part in (*folders, source) if (reason := self.reason(part))), None)


def list_root(root: Path, ignored: Ignored) -> tuple[list[str], list[str], Found]:
    """List the class folders of a data set, the images beside them, and what cannot be followed.

    Raises:
        OSError: the folder cannot be read.
    """
    found = Found()
    classes: list[str] = []
    stray: list[str] = []
    identity = _identity(root)
    with os.scandir(root) as entries:
        for entry in entries:
            kind = _kind(entry)
            reason = None if kind == _OTHER else ignored.reason(entry.name)
            if reason is not None:
                found.skipped.append((entry.name, reason))
            elif kind == _FOLDER and _identity(entry) == identity:
                found.skipped.append((entry.name, "symbolic link to the data set itself"))
            elif kind == _FOLDER:
                classes.append(entry.name)
            elif kind == _IMAGE:
                stray.append(entry.name)
            elif kind != _OTHER:
                found.skipped.append((entry.name, kind))
    return sorted(classes), sorted(stray), found


class ClassSearch:
    """Search of one class's folder: real folders first, then those that symbolic links lead to.

    Folders are known by device and inode, so each is searched once. The data set's own folder counts as
    searched: a link to it would bring every class into this one.

    Args:
        root: the data set's folder.
        class_name: of the folder in it.
        ignored: what is left out.
        found: gathers what is met besides images.
    """

    def __init__(self, root: Path, class_name: str, ignored: Ignored, found: Found) -> None:
        self._root = root
        self._ignored = ignored
        self._found = found
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
                self._skip(folder, "symbolic link to a folder that is searched already")
                return
            self._searched.add(identity)
            with os.scandir(path) as entries:
                for entry in entries:
                    source = f"{folder}/{entry.name}"
                    kind = _kind(entry)
                    reason = None if entry.name.startswith(".") else self._ignored.reason(source)
                    if reason is not None:
                        self._skip(source, reason)
                    elif kind == _IMAGE:
                        yield source
                    elif kind == _FOLDER:
                        (self._links if entry.is_symlink() else self._folders).append(source)
                    elif kind != _OTHER:
                        self._skip(source, kind)
                    elif not entry.name.startswith("."):
                        self._found.aside.append(source)
        except OSError as error:
            self._skip(folder, f"folder cannot be read: {error.strerror}")

    def _skip(self, source: str, reason: str) -> None:
        self._found.skipped.append((source, reason))


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `image`, `other` for what is ignored, or the reason why an entry cannot be used."""
    if entry.name.startswith("."):
        return _OTHER
    try:
        if entry.is_dir():
            return _FOLDER
        if not entry.is_file() and entry.is_symlink():
            return "symbolic link that leads nowhere"
        return _kind_of_file(entry)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _kind_of_file(entry: os.DirEntry[str]) -> str:
    if is_image_by_name(entry.name):
        return _IMAGE if entry.is_file() else "not a regular file"
    if not entry.is_file():  # a pipe, which would wait to be read
        return _OTHER
    kind, reason = kind_of(entry.name, _first_bytes(entry.path))
    return reason or kind


def kind_of_file(path: Path) -> tuple[Kind, str]:
    """Tell what a regular file is by its name, or else by its first bytes; see `kind_of`."""
    if is_image_by_name(path.name):
        return "image", ""
    return kind_of(path.name, _first_bytes(str(path)))


def _first_bytes(path: str) -> bytes:
    """The first bytes of a file; none where it cannot be read, which leaves its suffix to tell."""
    try:
        with Path(path).open("rb", buffering=0) as file:
            return file.read(SIGNATURE)
    except OSError:
        return b""


def _identity(folder: Path | os.DirEntry[str]) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 - takes both
    return status.st_dev, status.st_ino
