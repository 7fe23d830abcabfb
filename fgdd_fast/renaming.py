"""Names for a teacher's outputs: those of the folders that it is used on, or those of a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fgdd_engines.bundle.bundle import VARIANTS, Bundle, write_bundle
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.class_names import match_by_answers, match_by_spelling
from fgdd_fast.errors import SettingsError, TeacherError
from fgdd_fast.images.dataset import DataSet, SourceImage, pool, scan
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.fitting import ask_teacher
from fgdd_fast.runtime.choose import RuntimeOptions

Matching = Literal["spelling", "answers"]
MATCHINGS: tuple[Matching, ...] = get_args(Matching)


@dataclass(frozen=True)
class RenamedTeacher:
    """A teacher whose outputs have other names.

    Attributes:
        bundle: as it was written.
        renamed: the name before, by the name now, of each output that has another.
        by: how they were found: `spelling`, `answers`, or `file`.
    """

    bundle: Bundle
    renamed: Mapping[str, str]
    by: str


def rename_teacher(
    teacher: str | Path,
    path: str | Path,
    *,
    data: str | Path | DataSet | None = None,
    names: str | Path | Sequence[str] | None = None,
    by: Matching | None = None,
    limit: int | None = 20,
    seed: int = 0,
    resize: ResizeMethod = "area",
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
) -> RenamedTeacher:
    """Write a teacher anew with other class names, for one that says `Dress` or `LABEL_3`.

    Its graph stays as it is; the forms of it that lie beside it are written as well.

    Args:
        teacher: the bundle: its path, or a name of the catalogue.
        path: of the new bundle's ONNX file, whose suffix may be left out; it may be that of the old one.
        data: a folder with one folder of images for each class, by which the outputs are named. Outputs that
            no folder belongs to keep their names.
        names: instead of `data`: all names in the order of the outputs, or a file of them: a JSON list, or a
            text of one name a line.
        by: how folders are matched with outputs: by the `spelling` of names, or by the `answers` that most
            images of a folder get. By default by spelling, unless it does not tell, or is the same already.
        limit: images of each class that the teacher is asked about; None for all.
        seed: of which images these are, at least 0.
        resize: how images are resized.
        runtime: how the teacher runs; the fastest that decides as the reference does by default.
        progress: told how far the reading of images is.

    Raises:
        SettingsError: neither `data` nor `names` is given, or both are, or the names do not fit the outputs.
        TeacherError: the folders cannot be told apart by names or by answers.
        FgddError: the images or the teacher cannot be used.
    """
    if (data is None) == (names is None):
        raise SettingsError(
            "A teacher is renamed by the folders of its images, or by a list of names", "Name one."
        )
    bundle = find_bundle(str(teacher), "teacher")
    known, how = bundle.classes or (), "file"
    if names is not None:
        new = _read_names(names, len(known))
    elif data is not None:
        dataset = data if isinstance(data, DataSet) else scan(Path(data))
        matches, how = _by_spelling(known, dataset.classes, by), "spelling"
        if matches is None:
            images, options = pool(dataset, limit, seed), runtime or RuntimeOptions()
            matches, how = _by_answers(bundle, dataset, images, resize, options, progress), "answers"
        new = _renamed(known, matches)
    onnx = Path(path) if Path(path).suffix == ".onnx" else Path(f"{path}.onnx")
    written = _write(bundle, onnx, new)
    changed = {now: before for before, now in zip(known, new, strict=True) if before != now}
    return RenamedTeacher(written, changed, how)


def _read_names(names: str | Path | Sequence[str], outputs: int) -> tuple[str, ...]:
    place = "The list of names"
    if isinstance(names, (str, Path)):
        place = f"The file of names {names}"
        try:
            text = Path(names).read_text(encoding="utf-8-sig")
            found = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
        except (OSError, ValueError, RecursionError) as error:
            raise SettingsError(f"{place} cannot be read: {error}") from error
        names = [each.strip() for each in found if isinstance(each, str) and each.strip()]
    if len(names) != outputs or len(set(names)) != len(names):
        raise SettingsError(
            f"{place} has {len(set(names))} different names, and the teacher {outputs} outputs",
            "Give a name for each output, in their order: a JSON list, or a text of one name a line.",
        )
    return tuple(names)


def _by_spelling(known: Sequence[str], folders: Sequence[str], by: Matching | None) -> dict[str, str] | None:
    """The known name of each folder's; None where the answers shall tell."""
    matches = None if by == "answers" else match_by_spelling(known, folders)
    if matches is None and by == "spelling":
        raise TeacherError(
            f"The spelling of the teacher's names does not tell which is which: {_some(known)}",
            "Match them by what it says of the images: --by answers",
        )
    return None if by is None and set(folders) <= set(known) else matches


def _by_answers(
    bundle: Bundle,
    dataset: DataSet,
    images: Sequence[SourceImage],
    resize: ResizeMethod,
    runtime: RuntimeOptions,
    progress: Progress,
) -> dict[str, str]:
    """The name of the output that most images of each folder get, by the folder's name."""
    known = bundle.classes or ()
    logits, labels, _ = ask_teacher(
        bundle, images, dataset.classes, resize=resize, runtime=runtime, progress=progress
    )
    answers = np.zeros((len(dataset.classes), len(known)), np.int64)
    np.add.at(answers, (labels, logits.argmax(axis=1)), 1)
    outputs = match_by_answers(answers)
    if outputs is None:
        said = "; ".join(
            f"{name!r} is {known[row.argmax()]!r} in {row.max()} of {row.sum()}"
            for name, row in zip(dataset.classes, answers, strict=True)
        )
        raise TeacherError(
            f"The teacher's answers do not tell which output is which folder: {said}",
            "Is it a teacher of these classes? Name its outputs yourself: --names FILE",
        )
    return {name: known[output] for name, output in zip(dataset.classes, outputs, strict=True)}


def _renamed(known: Sequence[str], matches: Mapping[str, str]) -> tuple[str, ...]:
    """The names of all outputs; those that no folder matches keep theirs, if that is not a folder's now."""
    folders = {before: now for now, before in matches.items()}
    taken = set(matches)
    return tuple(folders.get(name, f"{name} (other)" if name in taken else name) for name in known)


def _write(bundle: Bundle, onnx: Path, classes: tuple[str, ...]) -> Bundle:
    """Write the bundle, and its forms beside it, under another path and with other classes."""
    written = write_bundle(replace(bundle, onnx=onnx, classes=classes), bundle.graph())
    forms = [*bundle.cropped_graphs(), *(bundle.find_variant(variant) for variant in VARIANTS)]
    for form in forms:
        if form is not None:
            beside = written.beside(form.onnx.name.removeprefix(f"{bundle.onnx.stem}."))
            write_bundle(replace(form, onnx=beside, classes=classes), form.graph())
    return written


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
