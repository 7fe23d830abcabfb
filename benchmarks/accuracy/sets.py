"""The sets that students learn from, as lists of tiles, and their pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.rows import RandomName
from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import DataSet, SourceImage
from fgdd_fast.images.decode import read_file
from fgdd_fast.images.resize import Pixels, ResizeMethod
from fgdd_fast.images.tiles import read_tile
from fgdd_fast.output.mosaic import Mosaic, arrange, compose
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.selection.records import ImageRecord, Tile
from fgdd_fast.students.inputs.labelled_images import read_whole

Integers = NDArray[np.int64]
UNKNOWN = float("nan")


@dataclass(frozen=True)
class MosaicSet:
    """A distilled set.

    Attributes:
        root: folder of the photographs.
        mosaics: those of each class, in the order of the labels.
        factor: tiles along each side of a mosaic.
    """

    root: Path
    mosaics: tuple[tuple[Mosaic, ...], ...]
    factor: int

    @property
    def fingerprint(self) -> str:
        """Hexadecimal hash of which parts of which files the tiles are, in their order."""
        tiles = [
            [[(tile.sha256, *tile.box) for tile in mosaic.tiles] for mosaic in mosaics]
            for mosaics in self.mosaics
        ]
        return _sha256([self.factor, tiles])

    def read(self, size: int, method: ResizeMethod) -> tuple[Pixels, Integers]:
        """Return the images, uint8 [n, size, size, 3], and their classes, int64 [n].

        Raises:
            DataError: a file cannot be read, or changed since it was measured.
        """
        side = size // self.factor

        def cut(tile: Tile) -> Pixels:
            return read_tile(self.root / tile.source, tile.sha256, tile.box, side, method)

        images = [
            compose([cut(tile) for tile in mosaic.tiles], self.factor)
            for mosaics in self.mosaics
            for mosaic in mosaics
        ]
        labels = [label for label, mosaics in enumerate(self.mosaics) for _ in mosaics]
        return np.stack(images), np.array(labels, np.int64)

    def facts(self) -> Mapping[str, object]:
        """Return how many tiles there are, and the share of them that shows a whole image."""
        tiles = [tile for mosaics in self.mosaics for mosaic in mosaics for tile in mosaic.tiles]
        whole = sum(tile.kind == "full" for tile in tiles) / len(tiles)
        return {"tiles": len(tiles), "whole": round(whole, 4)}


@dataclass(frozen=True)
class WholeData:
    """All photographs of a folder, each whole; see `MosaicSet`."""

    dataset: DataSet
    fingerprint: str
    factor: int = 1

    def read(self, size: int, method: ResizeMethod) -> tuple[Pixels, Integers]:
        """See `MosaicSet.read`."""
        found = read_whole(self.dataset.root, size, method=method)
        return found.images, found.labels

    def facts(self) -> Mapping[str, object]:
        """Return how many images there are."""
        return {"tiles": len(self.dataset.images)}


AnySet = MosaicSet | WholeData


def whole_data(dataset: DataSet, threads: int) -> WholeData:
    """Return all photographs of a folder; every file is read for its hash.

    Raises:
        DataError: a file cannot be read.
    """

    def content(image: SourceImage) -> tuple[str, str]:
        return image.class_name, read_file(image.path).sha256

    with ThreadPoolExecutor(threads, "read") as executor:
        return WholeData(dataset, _sha256(list(executor.map(content, dataset.images))))


def random_mosaics(
    name: RandomName, records: Sequence[ImageRecord], *, ipc: int, factor: int, seed: int
) -> tuple[Mosaic, ...]:
    """Return mosaics of one class from images drawn at random: whole, or the first candidate crop of each.

    The teacher has no say. Images of identical bytes count once, as in every selection.

    Args:
        name: which of both.
        records: the class's pool.
        ipc: mosaics.
        factor: tiles along each side of a mosaic.
        seed: of the draw.

    Raises:
        DataError: the class has fewer images than tiles are needed.
    """
    by_content = {record.sha256: record for record in sorted(records, key=lambda record: record.source)}
    drawn = sorted(
        by_content.values(), key=lambda record: seeded_hash("fgdd random", seed, record.source).digest()
    )
    count = ipc * factor**2
    if len(drawn) < count:
        raise DataError(
            f"The class '{records[0].class_name}' is too small: {count} random images are needed, and it has "
            f"{len(drawn)}",
            "Lower --ipc or --factor, or raise --pool.",
        )
    return arrange([_tile(record, whole=name == "random-whole") for record in drawn[:count]], ipc, factor)


def _tile(record: ImageRecord, *, whole: bool) -> Tile:
    return Tile(
        source=record.source,
        sha256=record.sha256,
        box=(record.full if whole else record.crops[0]).box,
        kind="full" if whole else "crop",
        occupancy=record.occupancy,
        threshold=UNKNOWN,
        loss=UNKNOWN,
    )


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
