"""Data sets that are lists of paths with classes: a CSV file with a header, or lines `path class`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fgdd_fast.errors import DataError
from fgdd_fast.images.listing.folder_search import Found, Ignored, kind_of_file

SUFFIXES = (".csv", ".tsv", ".txt", ".lst")
_PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABELS = ("label", "class", "category", "class_name", "label_name", "target")
_DELIMITERS = (",", "\t", ";", "|")
_SHOWN = 5  # bad lines that a message names
_LONGEST = 255  # bytes of a class's name, which names a folder


@dataclass(frozen=True)
class ImageList:
    """A list of images, as a user names it: `photos.csv`, or `photos.csv:filename,breed`.

    Attributes:
        file: the list.
        columns: the names of the columns of paths and of classes; empty where they are guessed.
    """

    file: Path
    columns: tuple[str, ...] = ()


def find_list(data: Path) -> ImageList | None:
    """Return the list that a user names as a data set; None where it names none."""
    if data.suffix.lower() in SUFFIXES and data.is_file():
        return ImageList(data)
    name, colon, columns = data.name.partition(":")
    file = data.with_name(name) if colon and name else data
    if not colon or file.suffix.lower() not in SUFFIXES or not file.is_file():
        return None
    named = tuple(column.strip() for column in columns.split(","))
    if len(named) != 2 or not all(named):
        raise DataError(
            f"{data.name!r} does not name two columns",
            f"Write {name}:PATH,CLASS with the names of the columns.",
        )
    return ImageList(file, named)


def read_list(listed: ImageList, ignored: Ignored, found: Found) -> dict[str, str]:
    """Read the class of each image that a list names, by its path within the list's folder.

    Args:
        listed: the list.
        ignored: what is left out.
        found: gathers what is listed besides images.

    Raises:
        DataError: the list cannot be read, or has lines that name no file in its folder, or no class; the
            message gives the numbers of the lines.
    """
    root = listed.file.parent
    classes: dict[str, str] = {}
    lines: dict[str, int] = {}
    bad: list[tuple[int, str]] = []
    for number, path, label in _rows(listed):
        try:
            source = _source(path, root)
            if (reason := ignored.reason_within(source)) is not None:
                found.skipped.append((source, reason))
                continue
            check_label(label)
            if source in lines:
                raise ValueError(f"the image of line {lines[source]} again")
            kind, reason = kind_of_file(root / source)
        except ValueError as error:
            bad.append((number, str(error)))
            continue
        lines[source] = number
        if kind == "image":
            classes[source] = label
        elif reason:
            found.skipped.append((source, reason))
        else:
            found.aside.append(source)
    if bad:
        named = "; ".join(f"line {number}: {problem}" for number, problem in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"The list {listed.file} has {len(bad)} lines that cannot be used: {named}{more}",
            "Paths are relative to the list's folder, and lie in it. --ignore leaves lines out by path.",
        )
    return classes


def _rows(listed: ImageList) -> Iterator[tuple[int, str, str]]:
    """The number, the path and the class of each line; empty ones are passed over."""
    try:
        text = listed.file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"The list {listed.file} cannot be read: {error.strerror}") from error
    header = text.partition("\n")[0].strip("\r")
    try:
        found = _columns(header, listed.columns)
    except csv.Error as error:
        raise DataError(f"The list {listed.file}, line 1: {error}") from error
    if found is not None:
        delimiter, path, label = found
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            next(reader)
            for row in reader:
                if any(cell.strip() for cell in row):
                    cells = [*row, *[""] * (max(path, label) + 1 - len(row))]
                    yield reader.line_num, cells[path].strip(), cells[label].strip()
        except csv.Error as error:
            raise DataError(f"The list {listed.file}, line {reader.line_num}: {error}") from error
    elif listed.columns or listed.file.suffix.lower() in (".csv", ".tsv"):
        raise DataError(
            f"The list {listed.file} has no columns of paths and of classes: it begins {header[:80]!r}",
            f"Name them path and label there, or say which they are: '{listed.file.name}:PATH,CLASS'",
        )
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                path_text, _, name = line.strip().replace("\t", " ").rpartition(" ")
                yield number, path_text.strip(), name


def _columns(header: str, asked: Sequence[str]) -> tuple[str, int, int] | None:
    """The delimiter of a CSV file, and the places of its paths and classes; None where it has none."""
    for delimiter in _DELIMITERS:
        names = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
        if asked:
            if all(name in names for name in asked):
                return delimiter, names.index(asked[0]), names.index(asked[1])
            continue
        plain = [name.lower() for name in names]
        path, label = (
            next((plain.index(name) for name in known if name in plain), None) for known in (_PATHS, LABELS)
        )
        if path is not None and label is not None:
            return delimiter, path, label
    return None


def _source(path: str, root: Path) -> str:
    """A listed path as POSIX path within the list's folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute():
        try:
            pure = pure.relative_to(root.absolute().as_posix())
        except ValueError:
            raise ValueError(f"{path!r} is outside the list's folder") from None
    if ".." in pure.parts:
        raise ValueError(f"{path!r} leads out of the list's folder")
    if not pure.parts or "\0" in path:
        raise ValueError("no path")
    if not os.path.isfile(root / pure):  # noqa: PTH113 - a million Paths are slow
        raise ValueError(f"{path!r} is no file")
    return str(pure)


def check_label(label: str) -> None:
    """Check that a class can name a folder of OUT; a ValueError says why it cannot."""
    if not label:
        raise ValueError("no class")
    if label.startswith(".") or not label.isprintable() or {"/", "\\"} & set(label):
        raise ValueError(f"{label!r} cannot name a class")
    if len(os.fsencode(label)) > _LONGEST:
        raise ValueError(f"the class {label[:20]!r}... has a name of more than {_LONGEST} bytes")
