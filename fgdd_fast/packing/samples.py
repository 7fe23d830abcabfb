"""A distilled data set repacked for other libraries: what the formats have in common.

    TARGET/manifest.json    the manifest as it is: sources, hashes, settings and models
    TARGET/...              shards (`webdataset`, `huggingface`)

Samples go round the classes, so that any stretch of a shard holds about as many images of each: readers that
stream shards shuffle only within a buffer. Equal data sets give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.progress import Task
from fgdd_fast.errors import OutputError
from fgdd_fast.labels.stored import open_labels
from fgdd_fast.output.distilled import DistilledSet
from fgdd_fast.output.folder import LABEL_INDEX, LABELS, MANIFEST, output_folder, writing
from fgdd_fast.output.manifest import serialise


@dataclass(frozen=True, eq=False)
class Logits:
    """A teacher's stored logits, in the order of the classes.

    Attributes:
        mosaic: of the mosaic, float16 [classes].
        tiles: of its tiles, row by row, float16 [factor * factor, classes].
    """

    mosaic: NDArray[np.float16]
    tiles: NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Sample:
    """A distilled image, and all that is known of it.

    Attributes:
        place: its place in the order of samples, from 0.
        content: its file as it is.
        suffix: of the file's name, such as `.png`.
        label: its class as an index.
        entry: what the manifest says of it, as JSON values.
        logits: what a teacher says of it; None without stored labels.
    """

    place: int
    content: bytes
    suffix: str
    label: int
    entry: dict[str, Any]
    logits: Logits | None


class Pack:
    """The samples of a distilled data set, dealt out to shards.

    Args:
        distilled: the data set.
        shard_bytes: the most bytes of image files in a shard; a larger image has one for itself.

    Attributes:
        distilled: the data set.
        soft: whether the samples have logits, which they do if labels are stored.
        shards: the places of each shard's samples.

    Raises:
        DataError: an image's file is gone, or the stored labels are damaged or of another data set.
    """

    def __init__(self, distilled: DistilledSet, shard_bytes: int) -> None:
        self.distilled = distilled
        self._order: list[int] = round_the_classes(distilled.labels).tolist()
        self._entries = json.loads(serialise(distilled.manifest))["images"]
        self._logits = _stored_logits(distilled)
        self.soft = self._logits is not None
        self.shards = _deal([distilled.file_size(index) for index in self._order], shard_bytes)

    def sample(self, place: int) -> Sample:
        """Return the sample at a place of the order.

        Raises:
            DataError: its file is missing or damaged.
        """
        index = self._order[place]
        content = self.distilled.content(index)
        self.distilled.decode(index, content)  # damaged images go no further
        return Sample(
            place=place,
            content=content,
            suffix=PurePosixPath(self.distilled.manifest.images[index].file).suffix,
            label=int(self.distilled.labels[index]),
            entry=self._entries[index],
            logits=None if self._logits is None else self._logits[index],
        )


# Writes a pack into a folder, and shows how many samples are written.
Writer = Callable[[Pack, Path, Task], None]


@contextmanager
def packed_folder(pack: Pack, target: Path) -> Iterator[Path]:
    """Give a new folder, with the manifest in it, that becomes `target` when the block ends.

    Raises:
        OutputError: `target` is there already and not empty, lies in the data set, or cannot be written.
    """
    out = pack.distilled.folder.resolve()
    if target.resolve().is_relative_to(out):
        raise OutputError(f"{target} lies in the distilled data set", "Choose a folder beside it.")
    with writing(target):
        if target.is_dir() and any(target.iterdir()):
            raise OutputError(
                f"The folder {target} exists and is not empty", "Choose another one, or remove it yourself."
            )
    with output_folder(target, overwrite=False) as folder:
        with writing(target):
            (folder / MANIFEST).write_bytes((out / MANIFEST).read_bytes())
        yield folder


def round_the_classes(labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return indices [n] that go round: the first image of each class, then the second of each, and so on.

    Args:
        labels: the class of each image [n].
    """
    by_class = np.argsort(labels, kind="stable")
    grouped = labels[by_class]
    turn = np.empty(len(labels), np.intp)
    turn[by_class] = np.arange(len(labels)) - np.searchsorted(grouped, grouped)
    order: NDArray[np.intp] = np.lexsort((labels, turn))
    return order


def _stored_logits(distilled: DistilledSet) -> list[Logits] | None:
    """The logits of each image, in the order of the manifest; None where no labels are stored."""
    if not (distilled.folder / LABELS / LABEL_INDEX).exists():
        return None
    labels = open_labels(distilled)
    mosaics, tiles = (logits.astype(np.float16) for logits in (labels.mosaics(), labels.tiles()))
    return [Logits(*pair) for pair in zip(mosaics, tiles, strict=True)]


def _deal(sizes: Sequence[int], limit: int) -> tuple[range, ...]:
    """Split the places of these sizes into stretches that sum to the limit at most, or hold one place."""
    starts, total = [0], 0
    for place, size in enumerate(sizes):
        total += size
        if total > limit and place > starts[-1]:
            starts.append(place)
            total = size
    return tuple(range(start, stop) for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True))
