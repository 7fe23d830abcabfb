"""Which class an image of a stream belongs to: by its folder, its name, a list, or the teacher."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

from fgdd_fast.errors import DataError, SettingsError

FOLDER, TEACHER, BY_NAME = "folder", "teacher", "name:"
HELP = (
    f"{FOLDER}: the first folder of its path; {BY_NAME}REGEX: what the first group of a regular expression "
    f"finds in its path; a CSV file of names and classes; {TEACHER}: the teacher's answer, if it is confident"
)
LabelOf = Callable[[str], str | None]
"""Gives the class of an image by its name; None where it has none."""


def label_function(named: str) -> LabelOf | None:
    """Return what tells the class of an image by its name; None where the teacher tells it.

    Args:
        named: see `HELP`.

    Raises:
        SettingsError: it is none of these.
        DataError: the CSV file cannot be read.
    """
    if named == TEACHER:
        return None
    if named == FOLDER:
        return _by_group(re.compile("^([^/]+)/"))
    if named.startswith(BY_NAME):
        pattern = named.removeprefix(BY_NAME)
        try:
            found = re.compile(pattern)
        except re.error as error:
            raise SettingsError(f"'{pattern}' is no regular expression: {error}") from error
        if found.groups < 1:
            advice = "Put the part that names the class in parentheses, as in: name:^([a-z]+)_"
            raise SettingsError(f"The regular expression '{pattern}' has no group", advice)
        return _by_group(found)
    if Path(named).is_file():
        return _Listed(Path(named))
    raise SettingsError(f"'{named}' does not say how images are labelled", f"Give one of: {HELP}.")


def _by_group(pattern: re.Pattern[str]) -> LabelOf:
    return lambda name: match[1] if (match := pattern.search(name)) else None


class _Listed:
    """A CSV file of names and classes, which may grow."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = -1
        self._classes: dict[str, str] = {}
        self._refresh()

    def __call__(self, name: str) -> str | None:
        if name not in self._classes:
            self._refresh()
        return self._classes.get(name)

    def _refresh(self) -> None:
        try:
            changed = self._path.stat().st_mtime_ns
            if changed == self._read_at:
                return
            with self._path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                self._classes = {row[0]: row[1] for row in csv.reader(file) if row}
        except IndexError as error:
            advice = "Write a name and its class in each row, as in: frame-00000012,dress"
            raise DataError(f"The list of classes {self._path} has a row without a class", advice) from error
        except (OSError, csv.Error) as error:
            raise DataError(f"The list of classes {self._path} cannot be read: {error}") from error
        self._read_at = changed
