"""The names of a classifier's outputs: read from a file, and held against the network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fgdd_fast.errors import SettingsError

HOW = "Give a file with one name a line, in the order of the outputs: --classes FILE"


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names in the order of a classifier's outputs.

    Args:
        path: a UTF-8 text file with one name a line, or with a JSON list of names.

    Raises:
        SettingsError: the file cannot be read, is empty, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"The class names {path} cannot be read: {error.strerror}", HOW) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"The class names {path} are no UTF-8 text", HOW) from error
    if path.suffix == ".json" or text.lstrip().startswith("["):
        names = _json_names(path, text)
    else:
        names = tuple(line.strip() for line in text.rstrip().split("\n"))
    if not any(names):
        raise SettingsError(f"The file {path} holds no class names", HOW)
    if "" in names:
        raise SettingsError(f"Name {names.index('') + 1} in {path} is empty", "Each output needs a name.")
    return names


def _json_names(path: Path, text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"The class names {path} are no JSON: {error}", HOW) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"The class names {path} are no JSON list of names", HOW)
    return tuple(name.strip() for name in names)


def check_class_names(names: Sequence[str] | None, outputs: int, checkpoint: str) -> tuple[str, ...]:
    """Make sure that every output has one name of its own.

    Args:
        names: the names; None where neither the user nor the checkpoint gives any.
        outputs: how many classes the network tells apart.
        checkpoint: the network, for messages.

    Raises:
        SettingsError: there are no names, another number of them, or two that are equal.
    """
    if names is None:
        raise SettingsError(f"The checkpoint {checkpoint} does not name its {outputs} classes", HOW)
    if len(names) != outputs:
        raise SettingsError(
            f"There are {len(names)} class names, but the network {checkpoint} tells {outputs} classes apart",
            HOW,
        )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SettingsError(
                f"Two classes of {checkpoint} have the same name {name!r}", f"Names must differ. {HOW}"
            )
        seen.add(name)
    return tuple(names)
