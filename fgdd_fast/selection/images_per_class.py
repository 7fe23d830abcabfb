"""How many images (mosaics) each class gets: a number for all, numbers by class, or what fits into bytes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from fgdd_fast.errors import SettingsError

ImagesPerClass = int | str | Mapping[str, int]
HELP = (
    "a number, or numbers by class: dress=5,hat=20; with 10,dress=5 all others get 10; or the most whose "
    "files fit into so many bytes: 5MB"
)
_OTHERS = re.compile(r"(\d+)(?:,|$)")
_CLASS = re.compile(r"(.+?)=(\d+)(?:,|$)")  # a class's name may hold commas
_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?([kMG]i?)B")
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def parse_bytes(asked: ImagesPerClass) -> int | None:
    """Return how many bytes a text such as `5MB`, `0.5GB` or `200kiB` names; None of anything else.

    Raises:
        SettingsError: it is less than one byte.
    """
    found = _BYTES.fullmatch(asked) if isinstance(asked, str) else None
    if found is None:
        return None
    count = int(float(found[1]) * _UNITS[found[2]])
    if count < 1:
        raise SettingsError(f"Nothing fits into {asked!r}", f"Give {HELP}.")
    return count


def parse_images_per_class(asked: ImagesPerClass) -> tuple[int, Mapping[str, int]]:
    """Return the number of images of classes that are not named, 0 where there is none, and of those named.

    Args:
        asked: a number; numbers by class; a text of both, such as `10,dress=5,hat=20`; or a number of bytes,
            of which one image per class is the least that is made.

    Raises:
        SettingsError: it is none of these, names a class twice, or a number is below 1.
    """
    numbers: list[int] = []
    by_class: dict[str, int] = {}
    if parse_bytes(asked) is not None:
        numbers.append(1)
    elif isinstance(asked, int):
        numbers.append(asked)
    elif isinstance(asked, Mapping):
        by_class.update(asked)
    else:
        first = _OTHERS.match(asked)
        numbers += [int(first[1])] if first else []
        at = first.end() if first else 0
        while (found := _CLASS.match(asked, at)) is not None:
            if found[1] in by_class:
                raise SettingsError(f"The class {found[1]!r} has two numbers of images in {asked!r}")
            by_class[found[1]], at = int(found[2]), found.end()
        if at < len(asked) or not asked:
            raise SettingsError(f"{asked!r} says no number of images per class", f"Give {HELP}.")
    if min([*numbers, *by_class.values()], default=0) < 1:
        raise SettingsError("Every class needs at least one image", f"Give {HELP}.")
    return (numbers or [0])[0], by_class


def images_per_class_text(others: int, by_class: Mapping[str, int]) -> int | str:
    """Return what `parse_images_per_class` reads: a plain number where it holds for all."""
    named = [f"{name}={by_class[name]}" for name in sorted(by_class)]
    return ",".join([*([str(others)] if others else []), *named]) if named else others


def check_named_classes(others: int, by_class: Mapping[str, int], classes: Iterable[str]) -> None:
    """Refuse numbers for classes that there are not, and classes without a number.

    Raises:
        SettingsError: there are such.
    """
    known = sorted(classes)
    for name in by_class.keys() - set(known):
        near = difflib.get_close_matches(name, known, 1, 0)
        raise SettingsError(
            f"There is no class {name!r}, for which a number of images is given",
            f"Is it {near[0]!r}?" if near else "",
        )
    lacking = [name for name in known if not others and name not in by_class]
    if lacking:
        raise SettingsError(
            f"No number of images is given for {len(lacking)} classes, such as {lacking[0]!r}",
            "Name them too, or put a number for all others first: --ipc 10,dress=5",
        )
