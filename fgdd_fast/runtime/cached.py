"""What the cache folder holds, and the removal of what nobody needs: all of it can be had or made again.

Measurements take longest to make again, so a store is removed only where its kind is named.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fgdd_engines.bundle.bundle import VARIANTS
from fgdd_engines.file_lock import clear_leftovers, exclusive_lock, find_leftovers
from fgdd_engines.paths import cache_folder
from fgdd_fast.errors import EngineError, SettingsError
from fgdd_fast.measurement.store import FILE_NAME

STORE, UNFINISHED, OTHER = "store", "unfinished", "other"
# Each kind of what is kept, and the folder where it lies.
FOLDERS: Mapping[str, str] = {
    STORE: "store",
    "model": "models",
    "variant": "models",
    "source": "sources",
    "optimised": "onnxruntime",
    "engine": "engines",
    "verdict": "agreement",
    "tuning": "tuning",
    "random": "benchmarks",
}
KINDS: tuple[str, ...] = (*FOLDERS, UNFINISHED, OTHER)
_BY_FOLDER = {folder: kind for kind, folder in FOLDERS.items() if kind != "variant"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cached:
    """Something in the cache that is kept, or removed, as a whole.

    Attributes:
        kind: one of `KINDS`: measurements, a bundle with its parts, a bundle in a lower precision, a file of
            which a bundle is made, an optimised graph, a TensorRT engine, a verdict on how to run a model,
            what `fgdd-fast tune` found out about one, a network with random weights, what a killed process
            left, or something that is not known.
        name: its name within the kind.
        paths: its files and folders, all in one folder.
        bytes: what it takes on disk.
        age: days since it was last read or written, as far as the file system notes that.
    """

    kind: str
    name: str
    paths: tuple[Path, ...]
    bytes: int
    age: float


@dataclass(frozen=True)
class Pruned:
    """What became of the cache.

    Attributes:
        removed: what is gone, or would be.
        in_use: what was to go, but is being written or read.
    """

    removed: tuple[Cached, ...]
    in_use: tuple[Cached, ...]


def list_cached(folder: Path | None = None) -> tuple[Cached, ...]:
    """Return what the cache holds, by kind and name; no content is read.

    Args:
        folder: the cache folder; by default the user's own.
    """
    folder = folder or cache_folder()
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError:  # there is none yet
        return ()
    found = [item for entry in entries for item in _in_folder(entry)]
    return tuple(sorted(found, key=lambda item: (KINDS.index(item.kind), item.name)))


def prune_cache(
    *,
    kinds: Collection[str] = (),
    older_than: float | None = None,
    dry_run: bool = False,
    folder: Path | None = None,
) -> Pruned:
    """Remove what nobody needs, unless it is in use.

    Args:
        kinds: what to remove, of `KINDS`; everything but stores where none is named.
        older_than: remove only what was neither read nor written for so many days.
        dry_run: find out what would be removed, and remove nothing.
        folder: the cache folder; by default the user's own.

    Raises:
        SettingsError: neither kinds nor an age are given, or there is no such kind.
        EngineError: something cannot be removed.
    """
    if not kinds and older_than is None:
        raise SettingsError("Nothing says what to remove", "Give --older-than DAYS, --kind KIND, or both.")
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise SettingsError(f"There is no kind {unknown[0]!r}", f"The kinds are {', '.join(KINDS)}.")
    removed: list[Cached] = []
    in_use: list[Cached] = []
    for item in list_cached(folder):
        wanted = item.kind in kinds if kinds else item.kind != STORE
        if wanted and (older_than is None or item.age > older_than):
            (removed if dry_run or _remove(item) else in_use).append(item)
    return Pruned(tuple(removed), tuple(in_use))


def _in_folder(folder: Path) -> Iterator[Cached]:
    kind = _BY_FOLDER.get(folder.name, OTHER)
    if kind in (STORE, OTHER):
        yield _cached(kind, folder.name, [folder])
        return
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in folder.iterdir():
        if not path.name.startswith("."):
            groups.setdefault(_group(kind, path), []).append(path)
    for (found, name), paths in groups.items():
        yield _cached(found, name, paths)
    for name in find_leftovers(folder):
        yield _cached(UNFINISHED, name, folder.glob(f".{name}.*"))


def _group(kind: str, path: Path) -> tuple[str, str]:
    """The kind and the name of what a file is a part of."""
    if kind == "model":
        name, *added = path.name.split(".")
        variant = next((each for each in added if each in VARIANTS), None)
        return (kind, name) if variant is None else ("variant", f"{name}.{variant}")
    return kind, path.stem if kind == "engine" else path.name


def _cached(kind: str, name: str, paths: Iterable[Path]) -> Cached:
    paths = tuple(sorted(paths))
    size, used = 0, 0.0
    for path in (each for root in paths for each in (root, *root.rglob("*"))):
        try:
            status = path.lstat()
        except OSError:  # it is removed meanwhile
            continue
        size += 0 if path.is_dir() else status.st_size
        used = max(used, status.st_mtime, 0.0 if path.is_dir() else status.st_atime)
    return Cached(kind, name, paths, size, max(time.time() - used, 0.0) / 86400)


def _remove(item: Cached) -> bool:
    """Remove something; whether that was possible, for what is in use stays."""
    _log.debug("removing %s %s", item.kind, item.name)
    folder = item.paths[0].parent if item.paths else cache_folder()
    try:
        if item.kind == UNFINISHED:
            clear_leftovers(folder)
        elif item.kind != STORE:
            with exclusive_lock(folder, item.name, _refuse):
                _delete(item.paths)
        elif not _remove_store(item):
            return False
    except _InUseError:
        return False
    except OSError as error:
        raise EngineError(f"{item.name} in {folder} cannot be removed: {error.strerror or error}") from error
    return True


class _InUseError(Exception):
    """Another process holds the lock."""


def _refuse() -> None:
    raise _InUseError


def _remove_store(item: Cached) -> bool:
    database = item.paths[0] / FILE_NAME
    if database.exists():
        try:
            with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # which no other reader allows either
                connection.execute("BEGIN EXCLUSIVE")
                _delete(item.paths)
                return True
        except sqlite3.OperationalError:
            return False
        except sqlite3.DatabaseError:  # it is none, or damaged
            pass
    _delete(item.paths)
    return True


def _delete(paths: Iterable[Path]) -> None:
    remove: Callable[[Path], object]
    for path in paths:
        remove = shutil.rmtree if path.is_dir() and not path.is_symlink() else Path.unlink
        remove(path)
