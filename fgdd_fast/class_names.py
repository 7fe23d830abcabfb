"""Names of classes: in which order they are, and which names of two lists mean the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
_NUMBER = re.compile(r"(\d+)")


def natural_order(names: Sequence[str]) -> list[str]:
    """Sort names as people number things: 1, 2, 10, where strings have the order 1, 10, 2."""
    return sorted(names, key=lambda name: [(*_as_number(part), part) for part in _NUMBER.split(name)])


def _as_number(part: str) -> tuple[int, int]:
    return (0, int(part)) if part.isdecimal() else (1, 0)


def plain_name(name: str) -> str:
    """Return a name without what is spelled in several ways: case, blanks, hyphens, underscores."""
    kept = (character for character in unicodedata.normalize("NFC", name) if character.isalnum())
    return "".join(kept).casefold() or name


def match_by_spelling(known: Sequence[str], wanted: Sequence[str]) -> dict[str, str] | None:
    """Return which of the known names each wanted one is, by its plain spelling.

    Args:
        known: a teacher's class names.
        wanted: names of folders.

    Returns:
        The known name of each wanted one; None where one has none, or several.
    """
    by_spelling: dict[str, list[str]] = {}
    for name in known:
        by_spelling.setdefault(plain_name(name), []).append(name)
    matches: dict[str, str] = {}
    for name in wanted:
        candidates = [name] if name in known else by_spelling.get(plain_name(name), [])
        if len(candidates) != 1 or candidates[0] in matches.values():
            return None
        matches[name] = candidates[0]
    return matches


def match_by_answers(answers: NDArray[np.int64]) -> tuple[int, ...] | None:
    """Return which output each folder is, by what the outputs answer on its images.

    Args:
        answers: images by folder (row) and the output that is highest (column), [folders, outputs].

    Returns:
        For each folder the output that most of its images get; None where that is no majority, or where two
        folders get the same.
    """
    favourite = answers.argmax(axis=1)
    majority = answers.max(axis=1) * 2 > answers.sum(axis=1)
    if not majority.all() or len(set(favourite.tolist())) < len(answers):
        return None
    return tuple(favourite.tolist())


def order_of_numbers(swapped: Sequence[tuple[str, str]], classes: Sequence[str]) -> str:
    """Return a sentence if folders are taken for others because of how numbers were sorted; else nothing.

    Args:
        swapped: names of folders, each with that which a teacher takes it for.
        classes: the teacher's names in the order of its outputs.
    """
    strings, natural = sorted(classes), natural_order(classes)
    orders = {"strings": (strings, natural, "numbers"), "numbers": (natural, strings, "strings")}
    for order, (own, other, meant) in orders.items():
        if list(classes) == own != other and all(own[other.index(name)] == taken for name, taken in swapped):
            return f". The names are in the order of {order}, and the outputs in that of {meant}"
    return ""


class ByClassName(dict[str, T]):
    """Values by names of classes; one that is not there by itself is found by how it reads.

    `é` may be one character, or an `e` and an accent: which of the two a folder's name has depends on the
    system that made it (macOS writes two). The bytes on the disk stay as they are.

    Args:
        values: by name. Of names that read alike each finds its own value.
    """

    def __init__(self, values: Mapping[str, T]) -> None:
        super().__init__(values)
        self._read = {_as_read(name): value for name, value in reversed(list(values.items()))}

    @classmethod
    def places(cls, names: Sequence[str]) -> ByClassName[int]:
        """Return the place of each name."""
        return ByClassName({name: place for place, name in enumerate(names)})

    def __missing__(self, name: str) -> T:
        return self._read[_as_read(name)]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and _as_read(name) in self._read)


def _as_read(name: str) -> str:
    return unicodedata.normalize("NFC", name)
