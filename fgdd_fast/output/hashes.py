"""`OUT/SHA256SUMS`: the hashes of a distilled data set's manifest and mosaics, in the form of `sha256sum`.

    sha256sum --check --quiet SHA256SUMS

A name with a backslash, a line feed or a carriage return is escaped, and its line begins with a backslash, as
GNU coreutils has it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.errors import DataError
from fgdd_fast.output.folder import HASHES, IMAGES, MANIFEST, writing

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_PLAIN = {escaped: plain for plain, escaped in _ESCAPES.items()}
_LINE = re.compile(r"(?P<escaped>\\?)(?P<sha256>[0-9a-f]{64}) [ *](?P<name>[^\n]+)\n", re.ASCII)


def write_hashes(folder: Path) -> None:
    """Write the hashes of a folder's manifest and mosaics into it, sorted by name.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(folder / HASHES):
        files = [folder / MANIFEST, *(path for path in (folder / IMAGES).rglob("*") if path.is_file())]
        lines = sorted((path.relative_to(folder).as_posix(), file_sha256(path)) for path in files)
        text = "".join(_line(name, sha256) for name, sha256 in lines)
        (folder / HASHES).write_bytes(os.fsencode(text))


def read_hashes(folder: Path) -> dict[str, str] | None:
    """The hashes, by POSIX path within the folder, that were written; None where there are none.

    Raises:
        DataError: the file cannot be read, or is none of hashes.
    """
    path = folder / HASHES
    try:
        text = os.fsdecode(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    found: dict[str, str] = {}
    place = 0
    while line := _LINE.match(text, place):
        name = line["name"]
        if line["escaped"]:
            name = re.sub(r"\\[\\nr]", lambda pair: _PLAIN[pair[0]], name)
        found[name] = line["sha256"]
        place = line.end()
    if place != len(text):
        number = text.count("\n", 0, place) + 1
        raise DataError(f"{path} is damaged: line {number} is no hash and name", "Copy it anew.")
    return found


def _line(name: str, sha256: str) -> str:
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in name)
    mark = "" if escaped == name else "\\"
    return f"{mark}{sha256}  {escaped}\n"
