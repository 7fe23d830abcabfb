"""The state of each student on disk, from which its training goes on."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fgdd_engines.bundle.files import write_file
from fgdd_fast.errors import DataError
from fgdd_fast.output.folder import writing
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.training_set import TrainingSet
from fgdd_fast.students.results.result import Student
from fgdd_fast.students.training.recipe import StudentRecipe

State = dict[str, Any]
# What torch.load raises for a damaged file.
_DAMAGE = (RuntimeError, EOFError, ValueError, KeyError, AttributeError, pickle.PickleError)


def training_key(training: TrainingSet, validation: LabelledImages, recipe: StudentRecipe) -> str:
    """A hash of everything that a student's curve depends on, but for the student and the machine."""
    settings = {
        "recipe": asdict(recipe),
        "views": asdict(training.views),
        "classes": training.classes,
        "origin": training.origin,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8", "surrogateescape"))
    for array in (training.images, training.labels, validation.images, validation.labels):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class Checkpoints:
    """A folder with a file for each student.

    Args:
        folder: made if it is missing.
        key: of the training; see `training_key`.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, student: Student) -> Path:
        """The file of a student."""
        return self._folder / f"{student}.pt"

    def read(self, student: Student, device: str) -> State | None:
        """A student's state; None where there is none.

        Raises:
            DataError: the file is damaged, or of another training.
        """
        path = self.path(student)
        try:
            content = path.read_bytes()
            state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            key = state.pop("key")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"The checkpoint {path} cannot be read: {error.strerror}") from error
        except _DAMAGE as error:
            raise DataError(f"The checkpoint {path} is damaged", "Remove it.") from error
        if key != self._key:
            raise DataError(
                f"The checkpoint {path} is of another training: its images, labels or settings are not these",
                "Name another folder for checkpoints, or remove the file.",
            )
        return dict(state)

    def write(self, student: Student, state: State) -> None:
        """Keep a student's state, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        content = io.BytesIO()
        torch.save({**state, "key": self._key}, content)
        path = self.path(student)
        with writing(path):
            write_file(path, content.getvalue())
