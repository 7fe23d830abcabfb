"""Pseudo-random choices that depend on a seed and an image's name, and on nothing else.

A choice made this way is the same whatever the number of threads, the order of the files on disk, the
other images, and the versions of Python and NumPy.
"""

from __future__ import annotations

import hashlib


def seeded_hash(purpose: str, seed: int, source: str) -> hashlib.blake2b:
    """Start a BLAKE2b hash of 32 bytes over a seed and an image's name.

    Args:
        purpose: at most 16 ASCII characters; hashes of different purposes are independent.
        seed: any whole number.
        source: POSIX path of the image within its data set, as in `SourceImage.source`.
    """
    key = hashlib.blake2b(digest_size=32, person=purpose.encode("ascii"))
    key.update(str(seed).encode("ascii") + b"\0")
    key.update(source_bytes(source) + b"\0")
    return key


def source_bytes(source: str) -> bytes:
    """The bytes of a path as they are on disk, also where they are no UTF-8."""
    return source.encode("utf-8", "surrogateescape")
