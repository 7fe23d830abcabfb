"""Images in Parquet files as Hugging Face's `datasets` lays them out: columns of images and of labels.

An image is a struct of `bytes` and `path`, or bytes alone. The classes' names stand in the schema's metadata.
Rows come in groups, and a group is read whole: the last ones are kept for the images beside.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from fgdd_engines.optional_imports import import_optional
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.listing.folder_search import Found
from fgdd_fast.images.listing.lists import LABELS
from fgdd_fast.images.listing.members import Member, clean_path
from fgdd_fast.images.listing.shards import Shards
from fgdd_fast.images.place import File, Place, file_signature

_IMAGES = ("image", "img", "picture", "photo")
_KEPT = 4  # row groups, of some 10 to 100 MB each
_LOCKS = [threading.Lock() for _ in range(32)]  # a group is read by the first thread that wants it


@dataclass(frozen=True, slots=True)
class Row(Place):
    """A row of a Parquet file: `offset` is its row group, and `size` its place in it.

    Attributes:
        column: of the images' bytes.
    """

    column: str = ""

    def __str__(self) -> str:
        return f"{self.file.path}/{self.offset}/{self.size}"

    def read_bytes(self) -> bytes:
        """See `Place.read_bytes`."""
        asked = self.file, file_signature(self), self.column, self.offset
        with _LOCKS[hash(asked) % len(_LOCKS)]:
            group = _read_group(*asked)
        row = self.size or 0
        value = group[row] if row < len(group) else None
        if value is None or not value.is_valid:
            raise ImageError("the row has no bytes of an image")
        return bytes(value.as_buffer())


@lru_cache(maxsize=_KEPT)
def _read_group(file: File, signature: str, column: str, number: int) -> Any:  # noqa: ARG001 - of what is kept
    """The bytes of the images of a row group, as an Arrow array."""
    try:
        with _opened(file) as parquet:
            table = parquet.read_row_group(number, columns=[column], use_threads=False)
    except DataError as error:
        raise ImageError(f"the file that holds it, {file.name}, is damaged or another one now") from error
    values = table.column(0).combine_chunks()
    return values.field("bytes") if column.endswith(".bytes") else values


@contextmanager
def _opened(file: File) -> Iterator[Any]:
    """A Parquet file; DataError where Arrow cannot read what is in it."""
    arrow, parquet = (import_optional(name, "pack") for name in ("pyarrow", "pyarrow.parquet"))
    damage: tuple[type[Exception], ...] = (arrow.ArrowException, IndexError)
    if file.version is None:
        damage = (*damage, OSError)  # so Arrow says it, too
    with file.open() as opened:
        try:
            yield parquet.ParquetFile(opened)
        except damage as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise DataError(
                f"The Parquet file {file.path} is damaged: {reason}", "Copy or write it anew."
            ) from error


def read_parquets(shards: Shards, found: Found) -> tuple[list[Member], list[str] | None]:
    """Find the images of Parquet files by names and labels alone, and the classes by their indices if said.

    Raises:
        DataError: a file is damaged, lacks the columns, or names other classes than the first one.
        MissingExtraError: pyarrow is not installed.
        RemoteError: a store cannot be reached.
    """
    members: list[Member] = []
    names: list[list[str] | None] = []
    for file in shards.files:
        try:
            with _opened(file) as parquet:
                columns = _columns(parquet.schema_arrow, file)
                names.append(_class_names(parquet.schema_arrow, columns[0]))
                for group in range(parquet.num_row_groups):
                    members += _rows(file, parquet, group, columns, found)
        except FileNotFoundError as error:
            raise DataError(f"The Parquet file {file.path} cannot be read: it is gone") from error
        if names[-1] != names[0]:
            raise DataError(f"The classes of {file.path} are others than those of {shards.files[0].path}")
    return members, names[0]


def _columns(schema: Any, file: File) -> tuple[str, str, str | None]:
    """The columns of labels, of the images' bytes, and of their names."""
    image = next((name for name in _IMAGES if name in schema.names), None)
    label = next((name for name in (*LABELS, "labels") if name in schema.names), None)
    if image is None or label is None:
        raise DataError(
            f"The Parquet file {file.path} lacks a column of images or of labels: {', '.join(schema.names)}",
            "Name them image and label, as Hugging Face's datasets does.",
        )
    kind = schema.field(image).type
    inner = {kind.field(place).name for place in range(kind.num_fields)}
    if "bytes" in inner:
        return label, f"{image}.bytes", f"{image}.path" if "path" in inner else None
    if str(kind) in ("binary", "large_binary"):
        return label, image, None
    raise DataError(
        f"The column {image!r} of {file.path} holds {kind}, not the bytes of images",
        "It has to be bytes, or a struct of bytes and path.",
    )


def _class_names(schema: Any, label: str) -> list[str] | None:
    """The names that the metadata of `datasets` has for labels."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _rows(
    file: File, parquet: Any, group: int, columns: tuple[str, str, str | None], found: Found
) -> Iterator[Member]:
    """The images of a row group."""
    label_column, content, path_column = columns
    asked = [name for name in (label_column, path_column) if name is not None]
    for number, row in enumerate(parquet.read_row_group(group, columns=asked, use_threads=False).to_pylist()):
        path = ((row[content.partition(".")[0]] or {}) if path_column else {}).get("path")
        label = row[label_column]
        try:
            path = clean_path(path) if path else f"{PurePosixPath(file.name).stem}-{group:04d}-{number:04d}"
        except ValueError as error:
            found.skipped.append((str(path), str(error)))
            continue
        yield Member(path, label if isinstance(label, int | str) else "", Row(file, group, number, content))
