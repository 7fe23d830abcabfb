"""A data set of any number of images, from photographs that are there: linked, then copied with a number.

The store knows images by their bytes, so links to the same photograph are measured once. A copy differs in
a comment within its JPEG file, and in nothing that is decoded: it is an image of its own to everything that
reads, measures and stores it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import DataSet, SourceImage
from fgdd_fast.seeding import seeded_hash

HOW = (
    "symbolic links to photographs; where these run out, copies of their files with a number in a JPEG "
    "comment, which have other bytes and the same pixels; read from the page cache"
)
# ITU-T T.81, table B.1: start of image, comment.
_START, _COMMENT = b"\xff\xd8", b"\xff\xfe"


@dataclass(frozen=True)
class Made:
    """How the images of a data set were made."""

    links: int
    copies: int


def distinct_photographs(dataset: DataSet) -> tuple[SourceImage, ...]:
    """The JPEG files of a data set, each content once; classes in turn, in a drawn order within each.

    So the first of them, however many, are a fair sample of all classes.

    Raises:
        DataError: there is none, or a file cannot be read.
    """
    by_class: dict[str, list[SourceImage]] = {name: [] for name in dataset.classes}
    seen: set[bytes] = set()
    for image in sorted(
        dataset.images, key=lambda image: seeded_hash("fgdd scale", 0, image.source).digest()
    ):
        try:
            content = image.path.read_bytes()
        except OSError as error:
            raise DataError(f"{image.path} cannot be read: {error.strerror}") from error
        digest = hashlib.sha256(content).digest()
        if content.startswith(_START) and digest not in seen:
            seen.add(digest)
            by_class[image.class_name].append(image)
    turns = zip_longest(*by_class.values())
    photographs = tuple(image for turn in turns for image in turn if image is not None)
    if not photographs:
        raise DataError(f"No image in {dataset.root} is a JPEG file", "Name a folder of photographs.")
    return photographs


def numbered_copy(content: bytes, number: int) -> bytes:
    """A JPEG file of other bytes and the same pixels: with the number in a comment at its beginning."""
    text = str(number).encode("ascii")
    return b"".join((_START, _COMMENT, struct.pack(">H", 2 + len(text)), text, content[2:]))


def make_data_set(photographs: Sequence[SourceImage], count: int, folder: Path) -> Made:
    """Make `folder/<class>/<number>.jpg` of `count` images, no two of the same bytes.

    Args:
        photographs: taken in this order, and again from the beginning as long as images are missing: the
            first time as symbolic links, then as numbered copies.
        count: how many images.
        folder: not yet there.
    """
    for place in range(count):
        turn, index = divmod(place, len(photographs))
        image = photographs[index]
        target = folder / image.class_name / f"{place:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        if turn == 0:
            target.symlink_to(image.path.absolute())
        else:
            target.write_bytes(numbered_copy(image.path.read_bytes(), turn))
    links = min(count, len(photographs))
    return Made(links, count - links)
