"""The results of students, one JSON line each, in a file that a stopped run goes on with.

The first line holds the conditions, which are the same for all students of a file; then lines follow in any
order, each written whole and flushed to the disk: what a run was given, which tiles a row chose, what became
of a student, how the teacher does. A last line that was not finished is cut off when a run goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.intervals import Bits, unpack_bits
from fgdd_fast.errors import DataError, OutputError, SettingsError

FORMAT = 1
Labels = Literal["soft", "hard"]
Line = Mapping[str, Any]


class StudentKey(NamedTuple):
    """What a student depends on, under the conditions of its file.

    Attributes:
        set: fingerprint of the tiles that it learned from.
        view_seed: of the views that it saw.
        labels: which labels it learned.
        architecture: of the network.
        seed: of its first weights.
    """

    set: str
    view_seed: int
    labels: Labels
    architecture: str
    seed: int


class SetKey(NamedTuple):
    """Which set it is.

    Attributes:
        row: name of the row.
        ipc: images per class; 0 for all of the real data.
        seed: of the selection.
    """

    row: str
    ipc: int
    seed: int


@dataclass(frozen=True)
class Results:
    """A file of results, read.

    Attributes:
        conditions: what all students share.
        runs: command and environment of each run.
        sets: what is known of the tiles of each set; `set` is their fingerprint.
        students: what became of each student.
        teachers: what the teacher answered.
    """

    conditions: Line
    runs: tuple[Line, ...]
    sets: Mapping[SetKey, Line]
    students: Mapping[StudentKey, Line]
    teachers: tuple[Line, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The classes of the validation images, [images]."""
        return np.array(self.conditions["validation"]["labels"], np.int64)

    def correct(self, line: Line) -> Bits:
        """Return whether each validation image was answered right, [images].

        Raises:
            DataError: the line is damaged.
        """
        try:
            return unpack_bits(line["correct"], len(self.labels))
        except ValueError as error:
            raise DataError(f"A line of the results is damaged: {error}", "Take the line away.") from error

    def student(self, key: SetKey, labels: Labels, architecture: str, seed: int) -> Line | None:
        """Return what became of a student of a row's set."""
        chosen = self.sets.get(key)
        if chosen is None:
            return None
        return self.students.get(StudentKey(chosen["set"], key.seed, labels, architecture, seed))


def student_line(key: StudentKey, **facts: object) -> Line:
    """Return the line of a student."""
    return {"kind": "student", **key._asdict(), **facts}


def set_line(key: SetKey, fingerprint: str, **facts: object) -> Line:
    """Return the line of a set."""
    return {"kind": "set", **key._asdict(), "set": fingerprint, **facts}


class ResultFile:
    """A file of results that lines are added to; see `open_results`."""

    def __init__(self, file: BinaryIO, results: Results) -> None:
        self._file = file
        self.found = results

    def add(self, *lines: Line) -> None:
        """Write lines and flush them to the disk.

        Raises:
            OutputError: that failed.
        """
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        try:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"The results cannot be written: {error.strerror}") from error


@contextmanager
def open_results(path: Path, conditions: Line) -> Iterator[ResultFile]:
    """Open a file of results to go on with, or begin one.

    Args:
        path: the file.
        conditions: of the students to come; JSON values.

    Raises:
        SettingsError: the file holds students under other conditions.
        DataError: it is no file of results, or is damaged.
        OutputError: it cannot be written, or another run writes it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"Another run writes {path}", "Wait for it, or name another file.") from error
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        conditions = json.loads(json.dumps(conditions))
        if b"\n" not in content:
            result_file = ResultFile(file, Results(conditions, (), {}, {}, ()))
            result_file.add({"kind": "conditions", "format": FORMAT, **conditions})
        else:
            found = parse_results(content, path)
            _refuse_other_conditions(found.conditions, conditions, path)
            result_file = ResultFile(file, found)
        yield result_file


def read_results(path: Path) -> Results:
    """Read a file of results.

    Raises:
        DataError: it cannot be read, is no file of results, or is damaged.
    """
    try:
        return parse_results(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def parse_results(content: bytes, path: Path) -> Results:
    """Return the results in a file's bytes; an unfinished last line is passed over.

    Raises:
        DataError: it is no file of results, or is damaged.
    """
    lines = [_line(line, number, path) for number, line in enumerate(content.split(b"\n")[:-1], 1)]
    first = lines[0] if lines else {}
    if first.get("kind") != "conditions" or first.get("format") != FORMAT:
        raise DataError(
            f"{path} holds no results of this version",
            "Make some with: python -m benchmarks.accuracy",
        )
    conditions = {name: value for name, value in first.items() if name not in ("kind", "format")}

    def of(kind: str) -> Iterator[Line]:
        return (line for line in lines[1:] if line["kind"] == kind)

    try:
        return Results(
            conditions,
            tuple(of("run")),
            {SetKey(*(line[name] for name in SetKey._fields)): line for line in of("set")},
            {StudentKey(*(line[name] for name in StudentKey._fields)): line for line in of("student")},
            tuple(of("teacher")),
        )
    except KeyError as error:
        raise DataError(f"{path} is damaged: a line lacks {error}", "Take the line away.") from error


def _line(text: bytes, number: int, path: Path) -> Line:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise DataError(f"Line {number} of {path} is no JSON", "Take the line away.") from error
    if not isinstance(line, dict) or "kind" not in line:
        raise DataError(f"Line {number} of {path} is no line of results", "Take the line away.")
    return line


def _refuse_other_conditions(found: Line, asked: Line, path: Path) -> None:
    """Refuse to mix students of several conditions in one file."""
    different = [name for name in {**found, **asked} if found.get(name) != asked.get(name)]
    if different:
        raise SettingsError(
            f"{path} holds students under other conditions: {', '.join(different)}",
            "Name another file with --results, or ask for the same.",
        )
