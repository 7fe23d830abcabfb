"""The user's folder for what can be fetched, made or measured again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Named by FGDD_FAST_CACHE, else `fgdd-fast` in the system's cache folder; it may not exist yet."""
    if own := os.environ.get("FGDD_FAST_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fgdd-fast"
