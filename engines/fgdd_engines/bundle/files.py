"""Files that are written whole or not at all, their hashes, and folders that something else fills.

The hashes of such a folder tell later whether its files are whole and unchanged.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

Result = TypeVar("Result")
_HASHES = "sha256.json"
_REMEMBERED = 10_000  # files, so that a large data set does not fill the memory
SETTLED = 2_000_000_000  # nanoseconds after which a change of a file shows in its times on any file system


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically: under a temporary name beside it, flushed to disk, then renamed.

    What is no plain file, such as `/dev/stdout` or a pipe, is written to, and stays what it is.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    temporary = stage_file(path, content)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def stage_file(path: Path, *parts: bytes | memoryview) -> Path:
    """Write parts, one after the other, to disk under a temporary name beside `path`; return that name."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def read_once(read: Callable[[Path], Result]) -> Callable[[Path], Result]:
    """Remember what a function reads from a file, for this process, until the file changes.

    A file counts as unchanged while device, inode, size and the times of its last changes are the same, of
    which no program can set the last. Clocks of file systems are coarse: what was written a moment ago may
    change without another time, and is read again. What `read` raises is not remembered.
    """
    known: dict[Path, tuple[tuple[int, ...], Result]] = {}

    @functools.wraps(read)
    def read_or_remember(path: Path) -> Result:
        before = _state(path)
        state, result = known.get(path, (None, None))
        if state == before:
            return cast(Result, result)
        found = read(path)
        settled = time.time_ns() - before[-1] > SETTLED  # whatever else it says, the last is the system's
        if settled and _state(path) == before:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[path] = before, found
        return found

    return read_or_remember


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@read_once
def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes; a file is hashed once while it stays as it is."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_checksums(folder: Path) -> None:
    """Note the hashes of all files in a folder; what was noted before is replaced."""
    hashes = {path.name: file_sha256(path) for path in folder.iterdir() if path.name != _HASHES}
    write_file(folder / _HASHES, json.dumps(hashes, indent=2, sort_keys=True).encode())


def is_whole(folder: Path) -> bool:
    """Return whether a folder has its checksums and all its files unchanged; others do not count."""
    try:
        hashes = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
        return all(file_sha256(folder / name) == hashes[name] for name in hashes)
    except (OSError, ValueError, TypeError, RecursionError):
        return False
