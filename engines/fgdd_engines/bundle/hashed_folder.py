"""Folders that something else fills: hashes tell later whether their files are whole and unchanged."""

from __future__ import annotations

import json
from pathlib import Path

from fgdd_engines.bundle.files import file_sha256, write_file

_HASHES = "sha256.json"


def write_checksums(folder: Path) -> None:
    """Note the hashes of all files in a folder; what was noted before is replaced."""
    hashes = {path.name: file_sha256(path) for path in folder.iterdir() if path.name != _HASHES}
    write_file(folder / _HASHES, json.dumps(hashes, indent=2, sort_keys=True).encode())


def is_whole(folder: Path) -> bool:
    """Whether a folder has its checksums and all its files, with the same content; others do not count."""
    try:
        hashes = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
        return all(file_sha256(folder / name) == hashes[name] for name in hashes)
    except (OSError, ValueError, TypeError):
        return False
