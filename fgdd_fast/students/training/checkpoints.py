"""The state of each student on disk, from which its training goes on."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from fgdd_engines.bundle.files import write_file
from fgdd_fast.errors import DataError
from fgdd_fast.output.folder import writing
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.training_set import TrainingSet
from fgdd_fast.students.results.result import Student
from fgdd_fast.students.training.recipe import StudentRecipe
from fgdd_fast.students.training.run import StudentRun

State = dict[str, Any]
# What torch.load raises for a damaged file.
_DAMAGE = (RuntimeError, EOFError, ValueError, KeyError, AttributeError, pickle.PickleError)
_LONG_SAVE = 1.5  # seconds; where saving takes longer, it is done more rarely in proportion


def training_key(training: TrainingSet, validation: LabelledImages, recipe: StudentRecipe) -> str:
    """Return a hash of everything that a student's curve depends on, but for the student and the machine."""
    settings = {
        "recipe": asdict(recipe),
        "views": asdict(training.views),
        "classes": training.classes,
        "origin": training.origin,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8", "surrogateescape"))
    for array in (training.images, training.labels, validation.images, validation.labels):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        for row in array:
            digest.update(row.tobytes())
    return digest.hexdigest()


class Checkpoints:
    """A folder with a file for each student.

    Args:
        folder: made if it is missing.
        key: of the training; see `training_key`.
        every: seconds between two states, at least; the end of a student is always kept.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, key: str, every: float) -> None:
        self._folder = folder
        self._key = key
        self._every = every
        self._due = time.monotonic() + every
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, student: Student) -> Path:
        """Return the file of a student."""
        return self._folder / f"{quote(str(student), safe=':')}.pt"

    def read(self, student: Student, origin: str | None, device: str) -> State | None:
        """Return a student's state; None where there is none.

        Args:
            student: which one.
            origin: of its architecture, where it is not built in.
            device: where its tensors go.

        Raises:
            DataError: the file is damaged, of another training, or of another network of this name.
        """
        path = self.path(student)
        try:
            content = path.read_bytes()
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            key, architecture = state.pop("key"), state.pop("architecture", None)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"The checkpoint {path} cannot be read: {error.strerror}") from error
        except _DAMAGE as error:
            raise DataError(f"The checkpoint {path} is damaged", "Remove it.") from error
        advice = "Name another folder for checkpoints, or remove the file."
        if key != self._key:
            raise DataError(
                f"The checkpoint {path} is of another training: its images, labels or settings are not these",
                advice,
            )
        if architecture != origin:
            raise DataError(
                f"The checkpoint {path} is of another network of this name: {architecture or 'fgdd-fast'}, "
                f"not {origin or 'fgdd-fast'}",
                advice,
            )
        return dict(state)

    def save(self, runs: Sequence[StudentRun]) -> None:
        """Keep the states of runs that have just ended an epoch, if it is time to, or they are complete.

        Each file is written whole or not at all.

        Raises:
            OutputError: one cannot be written.
        """
        begin = time.monotonic()
        for run in runs:
            if run.complete or begin >= self._due:
                self._write(run)
        if begin >= self._due:
            end = time.monotonic()
            self._due = end + self._every * max(1.0, (end - begin) / _LONG_SAVE)

    def _write(self, run: StudentRun) -> None:
        state = {**run.state(), "key": self._key}
        if run.origin is not None:
            state["architecture"] = run.origin
        content = io.BytesIO()
        torch.save(state, content)
        path = self.path(run.student)
        with writing(path):
            write_file(path, content.getvalue())
