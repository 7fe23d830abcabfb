"""Catalogues for tests, and the real source files where they have been pulled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fgdd_fast.models.catalogue.catalogue import load_catalogue
from fgdd_fast.models.catalogue.download import source_path


def real_source(name: str) -> Path:
    """A catalogue model's source file from the user's cache; the test is skipped where it is not there."""
    path = source_path(load_catalogue()[name].source)
    if not path.is_file():
        pytest.skip(f"the source is not in the cache; run: fgdd-fast models pull {name}")
    return path


def catalogue_data(content: bytes = b"weights", **origin: Any) -> dict[str, Any]:
    """A catalogue with the model `mine`, whose source is `origin` and holds `content`."""
    source = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **origin}
    model = {
        "name": "mine",
        "role": "foreground",
        "description": "A model of one's own",
        "licence": "MIT",
        "source": "here",
        "preparation": {"recipe": "u2netp", "size": 32},
    }
    return {"format": 1, "sources": {"here": source}, "models": [model]}


def write_catalogue(folder: Path, data: object) -> Path:
    """Write a catalogue and return its path."""
    path = folder / "catalogue.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path
