"""What the teacher sees in tiles, as rankings that look for diversity need it.

Only the tiles among which a ranking chooses are measured, in a short pass of its own: one view of an image
instead of six, and nothing at all for other rankings. They are kept in the store like everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import DataError, TeacherError
from fgdd_fast.images.place import Location
from fgdd_fast.images.tiles import read_tile
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import Features
from fgdd_fast.models.network import Images, Teacher
from fgdd_fast.parallel import batched, ordered_map, single_threaded_opencv
from fgdd_fast.selection.records import Tile

_LOOKED_UP = 256  # tiles at once


class TileFeatures:
    """Measures the teacher's features of tiles, and looks them up.

    Args:
        teacher: gives the features of the view of a tile.
        settings: how tiles are resized, and how many threads work.
        store: holds the features; used from the thread that calls the methods.
        fingerprint: number of the way in which the teacher sees views.
    """

    def __init__(self, teacher: Teacher, settings: MeasureSettings, store: Store, fingerprint: int) -> None:
        self._teacher = teacher
        self._settings = settings
        self._store = store
        self._fingerprint = fingerprint

    def missing(self, tiles: Iterable[Tile]) -> list[Tile]:
        """Return the tiles whose features are not in the store."""
        return [
            tile
            for some in batched(tiles, _LOOKED_UP)
            for tile, vector in zip(some, self._stored(some), strict=True)
            if vector is None
        ]

    def measure(
        self, tiles: Sequence[Tile], paths: Mapping[str, Location], *, progress: Progress = SILENT
    ) -> None:
        """Measure features; what is done is kept, whatever happens then.

        Args:
            tiles: those that are `missing`.
            paths: where each source lies.
            progress: told of each tile.

        Raises:
            DataError: an image changed since its losses were measured.
            TeacherError: the teacher gives no features, or some that are not finite.
        """
        threads, streams = self._settings.threads, self._teacher.streams

        def show(tile: Tile) -> tuple[Tile, Images]:
            pixels = read_tile(
                paths[tile.source],
                tile.sha256,
                tile.box,
                self._teacher.tile_size,
                self._settings.resize,
                self._settings.sixteen_bit,
            )
            return tile, self._teacher.show(pixels)

        def infer(batch: Sequence[tuple[Tile, Images]]) -> list[tuple[Tile, Features]]:
            vectors = self._teacher.features(np.stack([view for _, view in batch]))
            return [(tile, _halved(vector)) for (tile, _), vector in zip(batch, vectors, strict=True)]

        ahead = 2 * self._teacher.batch * streams + 2 * threads
        with (
            progress.task("Features", len(tiles)) as task,
            single_threaded_opencv(),
            ThreadPoolExecutor(threads, "read") as readers,
            ThreadPoolExecutor(streams, "infer") as runners,
        ):
            shown = ordered_map(readers, show, tiles, ahead)
            batches = batched(shown, self._teacher.batch)
            for results in ordered_map(runners, infer, batches, 2 * streams):
                rows = [(tile.sha256, tile.box, vector) for tile, vector in results]
                self._store.add_features(self._fingerprint, rows)
                task.advance(len(results))

    def of(self, tiles: Sequence[Tile]) -> NDArray[np.float32]:
        """Look features up: float32 [n, channels], rounded to float16.

        Raises:
            DataError: some were not measured.
        """
        found = self._stored(tiles)
        if missing := [tile.source for tile, vector in zip(tiles, found, strict=True) if vector is None]:
            raise DataError(f"The teacher's features of '{missing[0]}' were not measured", "Measure again.")
        return np.stack([vector for vector in found if vector is not None]).astype(np.float32)

    def _stored(self, tiles: Sequence[Tile]) -> list[Features | None]:
        stored = self._store.features(self._fingerprint, ((tile.sha256, tile.box) for tile in tiles))
        return [stored.get((tile.sha256, tile.box)) for tile in tiles]


def _halved(vector: NDArray[np.float32]) -> Features:
    """Features rounded to float16, whose range they are held to."""
    if not np.isfinite(vector).all():
        raise TeacherError("The teacher gives features that are not finite", "Check the teacher.")
    limit = np.finfo(np.float16).max
    return vector.clip(-limit, limit).astype(np.float16)
