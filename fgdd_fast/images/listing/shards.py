"""Data sets in shards, on disk or at an address: tar files, and Parquet as Hugging Face lays it out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from fgdd_fast.errors import DataError
from fgdd_fast.images.place import File, address_of, list_folder

SUFFIXES = (".tar", ".parquet")
_PATTERN = re.compile(r"[*?\[]")
_TRAINING = {"train", "training"}
_HELD = {"val", "valid", "validation", "test", "dev", "eval"}


@dataclass(frozen=True)
class Shards:
    """Files that hold images.

    Attributes:
        root: the folder in which they lie.
        files: sorted by name; at least one.
        suffix: of all of them: one of `SUFFIXES`.
        beside: what else lies in the folder, by name; None of folders.
    """

    root: Path
    files: tuple[File, ...]
    suffix: str
    beside: Mapping[str, File | None]


def find_shards(data: Path) -> Shards | None:
    """Return the shards that a user names as a data set; None where that is something else.

    A user names one of them, a pattern (`shards/train-*.tar`), a folder that holds them and no folders, or
    one whose only folder is `data`, of Parquet files, as on Hugging Face's hub.

    Raises:
        DataError: they are of two kinds, or of several parts of a split.
        RemoteError: a store cannot be reached.
    """
    root, pattern = address_of(data) or data, "*"
    if root.suffix in SUFFIXES or _PATTERN.search(root.name):
        root, pattern = root.parent, root.name
    try:
        entries = list_folder(root)
        if pattern == "*" and [name for name, file in entries.items() if file is None] == ["data"]:
            inner = list_folder(root / "data")
            if inner and all(file is not None and name.endswith(".parquet") for name, file in inner.items()):
                root, entries = root / "data", inner
    except OSError:
        return None
    if pattern == "*" and None in entries.values():
        return None
    found = [
        file
        for name, file in entries.items()
        if file is not None
        and Path(name).suffix in SUFFIXES
        and (name == pattern or fnmatchcase(name, pattern))
    ]
    if not found:
        return None
    suffix = _one_kind(data, root, found)
    return Shards(root, tuple(found), suffix, entries)


def _one_kind(data: Path, root: Path, files: list[File]) -> str:
    suffixes = {Path(file.name).suffix for file in files}
    if len(suffixes) > 1:
        raise DataError(f"{data} holds tar and Parquet files", f"Name one kind: '{root}/*.tar'")
    suffix = suffixes.pop()
    parts = sorted({re.split(r"[-_.]", file.name.lower())[0] for file in files})
    if _TRAINING & {*parts} and _HELD & {*parts}:
        part = next(part for part in parts if part in _TRAINING)
        raise DataError(
            f"{data} holds several parts of a split: {', '.join(parts)}",
            f"Name the shards of one: '{root}/{part}*{suffix}'",
        )
    return suffix
