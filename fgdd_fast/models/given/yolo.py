"""Foregrounds from YOLO's labels: a text file for each image, a line for each object."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.decode import read_file
from fgdd_fast.models.given.annotated import Annotated, AnnotatedForeground
from fgdd_fast.models.given.given import GivenFamily
from fgdd_fast.models.given.masks import files_within, sha256_of_files
from fgdd_fast.models.given.regions import Region, box_ring

_LISTS = ("data.yaml", "dataset.yaml", "data.yml", "classes.txt", "obj.names")  # of classes' names
_LAYOUT = "Give a folder of YOLO's labels: LABELS/cat/1.txt, or LABELS/1.txt, for DATA/cat/1.jpg."
_ADVICE = (
    "A line is a class's number and, as shares of the image, x y width height, or a polygon's x y x y ..."
)
_ENTRY = re.compile(r"""\s*(?:-|(\d+)\s*:)\s*(?:"(.*)"|'(.*)'|(.*?))\s*""")


def read_yolo(folder: Path, classes: Sequence[str], streams: int) -> AnnotatedForeground:
    """Read labels.

    Args:
        folder: holds the labels, at any depth; beside them, or in the folder above, `data.yaml`,
            `classes.txt` or `obj.names` names the classes by their numbers, if there is one.
        classes: those of the images.
        streams: see `ForegroundModel`.

    Raises:
        DataError: the folder or a file cannot be read, or is not of this kind.
    """
    names = _names(folder)
    annotated: dict[str, Annotated] = {}
    sha256s: dict[str, str] = {"names": "\n".join(names)}
    for path in files_within(folder, ".txt", "labels", _LAYOUT):
        if path.rpartition("/")[2] in _LISTS:
            continue
        try:
            file = read_file(folder / path)
            lines = file.content.decode("utf-8-sig").splitlines()
        except (ImageError, UnicodeDecodeError) as error:
            problem = error.problem if isinstance(error, ImageError) else "no UTF-8 text"
            raise DataError(f"The labels {folder / path} cannot be used: {problem}", _LAYOUT) from error
        sha256s[path] = file.sha256
        regions = [
            _region(line.split(), names, f"{folder / path}, line {number}")
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
        annotated[path.removesuffix(".txt")] = Annotated(regions)
    sha256 = sha256_of_files(sha256s)
    return AnnotatedForeground("yolo", annotated, names, sha256, classes, streams, suffixes=False)


def _region(words: Sequence[str], names: Sequence[str], where: str) -> Region:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    label = values[0] if values else -1
    polygon = len(values) >= 7 and len(values) % 2 == 1
    if label < 0 or label % 1 or not (len(values) == 5 or polygon) or not all(map(math.isfinite, values)):
        raise DataError(f"{where} is no label: {' '.join(words)[:60]!r}", _ADVICE)
    if any(abs(value) > 2 for value in values[1:]):
        raise DataError(f"{where} is in pixels, not in shares of the image", _ADVICE)
    if names and label >= len(names):
        raise DataError(f"{where} is of class {label:.0f}, and {len(names)} are named", _ADVICE)
    name = names[int(label)] if names else f"{label:.0f}"
    if polygon:
        return Region(name, rings=[np.array(values[1:])])
    x, y, width, height = values[1:]
    return Region(name, rings=[box_ring(x - width / 2, y - height / 2, width, height)])


def _names(folder: Path) -> tuple[str, ...]:
    """The classes' names by their numbers; none where no file says them."""
    for place in (folder, folder.absolute().parent):
        for name in _LISTS:
            file = place / name
            if file.is_file():
                lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
                found = _from_yaml(lines, file) if file.suffix in (".yaml", ".yml") else lines
                return tuple(each.strip() for each in found if each.strip())
    return ()


def _from_yaml(lines: Sequence[str], file: Path) -> Sequence[str]:
    """The names that stand under `names:`, as a list or by their numbers, on one line or on several."""
    plain = [re.sub(r"(^|\s)#.*", "", line).rstrip() for line in lines]
    start = next((place for place, line in enumerate(plain) if re.match(r"names\s*:", line)), None)
    if start is None:
        return ()
    first = plain[start].partition(":")[2].strip()
    text = first
    for line in plain[start + 1 :]:
        if (line and not line[0].isspace() and line[0] not in "-]}") or (first and text[-1:] in "]}"):
            break
        text += "\n" + line
    entries: list[str] = [line for line in text.split("\n") if line.strip()]
    if first:  # [cat, dog] or {0: cat, 1: dog}
        inner = " ".join(entries).strip()
        dashed = "" if inner[0] == "{" else "- "
        entries = [dashed + each.strip() for each in inner.strip("[]{} ").rstrip(", ").split(",")]
    matches = [_ENTRY.fullmatch(entry) for entry in entries]
    numbers = [None if match is None or match[1] is None else int(match[1]) for match in matches]
    in_order = set(numbers) <= {None} or numbers == list(range(len(numbers)))
    if None in matches or not in_order:
        raise DataError(
            f"The classes' names in {file} cannot be read",
            "Write them into classes.txt in the folder of the labels, one a line, from class 0 on.",
        )
    return [next(text for text in match.groups()[1:] if text is not None) for match in matches if match]


class _Yolo(GivenFamily):
    name, spelling = "yolo", "yolo:FOLDER"

    def model(self, path: Path, classes: Sequence[str], streams: int) -> AnnotatedForeground:
        return read_yolo(path, classes, streams)


YOLO = _Yolo()
