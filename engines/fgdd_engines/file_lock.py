"""One writer at a time: locks that the system frees when their holder dies, with a place for their files.

The lock of NAME is the file `.NAME.lock`, and while it is held, unfinished files lie in `.NAME.staging`. So
whatever lies there while nobody holds the lock was left by a process that was killed.

The locks are those of Linux's open file descriptions: they have one holder even among the threads of a
process, and whether somebody holds one can be asked without taking it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK, _STAGING = ".lock", ".staging"
# Linux's `struct flock` of a 64-bit machine: a lock for writing, from the beginning to the end of the file.
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_GRACE = 0.2  # seconds, in which whoever clears a leftover away has done so


@contextmanager
def exclusive_lock(folder: Path, name: str, on_wait: Callable[[], None]) -> Iterator[Path]:
    """Hold the lock of a name within the block, and give an empty folder for unfinished files.

    The folder is on the same file system, and is removed when the block ends.

    Args:
        folder: where what is written will lie; it exists.
        name: of what is written.
        on_wait: called before waiting for another holder; what it raises ends the waiting.

    Raises:
        OSError: the folder cannot be written.
    """
    lock, staging = _paths(folder, name)
    handle = _acquire(lock, on_wait)
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        yield staging
    finally:
        _release(handle, lock, staging)


def has_locks(folder: Path) -> bool:
    """Return whether files in a folder can be locked; on some network file systems they cannot.

    Asked of a file of its own, without a name, so that no lock of anybody is touched.

    Raises:
        OSError: the folder cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLK, _WHOLE_FILE)
        except OSError:
            return False
    return True


def find_leftovers(folder: Path) -> tuple[str, ...]:
    """Return the names whose writers were killed: those with a lock or unfinished files that nobody holds."""
    names = {
        entry.name[1:].removesuffix(suffix)
        for suffix in (_LOCK, _STAGING)
        for entry in folder.glob(f".*{suffix}")
    }
    return tuple(name for name in sorted(names) if _is_free(_paths(folder, name)[0]))


def clear_leftovers(folder: Path) -> int:
    """Remove what killed writers left, and return the bytes that it took."""
    freed = 0
    for name in find_leftovers(folder):
        lock, staging = _paths(folder, name)
        handle = _try_acquire(lock)
        if handle is None:
            continue
        freed += sum(file.stat().st_size for file in staging.rglob("*"))
        _release(handle, lock, staging)
    return freed


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f".{name}{_LOCK}", folder / f".{name}{_STAGING}"


def _acquire(lock: Path, on_wait: Callable[[], None]) -> int:
    deadline = time.monotonic() + _GRACE
    while (handle := _try_acquire(lock)) is None:
        if time.monotonic() > deadline:
            on_wait()
            return _lock(lock, fcntl.F_OFD_SETLKW)
        time.sleep(0.01)
    return handle


def _try_acquire(lock: Path) -> int | None:
    try:
        return _lock(lock, fcntl.F_OFD_SETLK)
    except BlockingIOError:
        return None


def _lock(lock: Path, operation: int) -> int:
    """Lock a file, which is made where it is not; its last holder may remove it at any moment."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.fcntl(handle, operation, _WHOLE_FILE)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), lock.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _release(handle: int, lock: Path, staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    lock.unlink(missing_ok=True)
    os.close(handle)


def _is_free(lock: Path) -> bool:
    """Whether nobody holds a lock, which is asked without taking it."""
    try:
        handle = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        conflict = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    finally:
        os.close(handle)
    return bool(struct.unpack_from("h", conflict)[0] == fcntl.F_UNLCK)
