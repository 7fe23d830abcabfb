"""What a pickle may do to those who trust it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Harmful:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)
