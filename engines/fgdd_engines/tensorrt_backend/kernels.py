"""What TensorRT for RTX compiles of a plan when it runs, kept beside the plan for the next process.

A plan of TensorRT for RTX has no kernels yet: they are compiled where it is loaded, for the GPU found.
TensorRT itself refuses what was compiled by another version, for another GPU, or with a newer driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fgdd_engines.bundle.files import write_file

_HASH = hashlib.sha256().digest_size  # bytes before the kernels themselves


def read_kernels(path: Path) -> bytes:
    """Return the kernels in a file; nothing where there are none, or they are not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    found, kernels = content[:_HASH], content[_HASH:]
    return kernels if hashlib.sha256(kernels).digest() == found else b""


def write_kernels(path: Path, kernels: bytes) -> None:
    """Keep kernels; where they cannot be kept, the next process compiles them again."""
    with suppress(OSError):
        write_file(path, hashlib.sha256(kernels).digest() + kernels)


def use_kernels(cache: Any, path: Path | None) -> Callable[[], None]:
    """Fill an IRuntimeCache from a file, and return what writes it there, if it has become another.

    What is returned keeps the cache alive. Without a file nothing is read or written.
    """
    known = b"" if path is None else read_kernels(path)
    if known:
        cache.deserialize(known)  # False for those of another machine, which are compiled again

    def keep() -> None:
        serialised = cache.serialize()
        content = b"" if serialised is None else bytes(serialised)
        if path is not None and content and content != known:
            write_kernels(path, content)

    return keep
