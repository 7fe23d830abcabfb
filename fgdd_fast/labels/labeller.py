"""The teacher asked about images, tiles and views; rendering and inference overlap, across epochs too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.cluster.cluster import Cluster
from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.asking import Asking
from fgdd_fast.labels.compression import FLOAT16, cost
from fgdd_fast.labels.index import IMAGE_FILE, LabelledViews, epoch_file
from fgdd_fast.labels.teacher import check_predictions
from fgdd_fast.labels.tensors import pack_views
from fgdd_fast.labels.training_views import Images, ViewRecipe, draw_epoch, render
from fgdd_fast.labels.writing import LabelWriter
from fgdd_fast.models.network import Teacher
from fgdd_fast.output.distilled import DistilledSet, split_tiles


class Labeller:
    """Labels the images of one data set, and writes the labels.

    Args:
        distilled: the data set.
        images: all of its images.
        writer: takes the labels.
        threads: that render.
        advance: called for each image, tile or view that is labelled.
        cluster: whose workers ask the teacher, in place of this process.
    """

    def __init__(
        self,
        distilled: DistilledSet,
        images: Images,
        writer: LabelWriter,
        threads: int,
        advance: Callable[[], None],
        cluster: Cluster | None = None,
    ) -> None:
        self._distilled = distilled
        self._classes = distilled.manifest.classes
        self._images = images
        self._writer = writer
        self._threads = threads
        self._advance = advance
        self._cluster = cluster

    def label_images(self, whole: Teacher, tiles: Teacher) -> None:
        """Make one set of logits for each image, and one for each of its tiles.

        Args:
            whole: is shown the images.
            tiles: the same teacher; is shown the tiles.

        Raises:
            TeacherError: the predictions contradict the classes.
        """
        classes, factor, indices = self._classes, self._distilled.factor, range(len(self._distilled))
        mosaic_rows = self._rows(whole, partial(_whole, self._images), indices, 1)
        tile_rows = self._rows(tiles, partial(_tiles, self._images, factor), indices, factor**2)
        mosaic_logits = np.stack([*mosaic_rows])
        tile_logits = np.stack([*tile_rows]).reshape(len(indices), factor**2, len(classes))
        labels, name = self._distilled.labels, whole.bundle.name
        check_predictions(mosaic_logits, tile_logits, labels, classes, name)
        logits = np.concatenate([mosaic_logits[:, None], tile_logits], axis=1)
        kept = FLOAT16.pack(logits)["logits"]
        self._writer.add(
            IMAGE_FILE,
            {"mosaics": kept[:, 0], "tiles": kept[:, 1:]},
            cost(logits.reshape(-1, len(classes)), kept.astype(np.float32).reshape(-1, len(classes))),
        )

    def label_epochs(self, network: Teacher, views: LabelledViews, epochs: Sequence[int]) -> None:
        """Make the logits of the views of some epochs, each epoch a file."""
        recipe, count, size = views.recipe, len(self._distilled), self._distilled.size

        starts = range(0, count, recipe.batch)
        make = _Views(self._images, recipe, count, size)
        rows = self._rows(network, make, product(epochs, starts), recipe.batch)
        for epoch in epochs:
            logits = np.stack([*islice(rows, count)])
            arrays = views.compression.pack(logits)
            kept = views.compression.unpack(arrays, logits.shape[1])
            drawn = _draw(recipe, count, size, epoch)
            self._writer.add(
                epoch_file(epoch), {**arrays, **pack_views(drawn, recipe, size)}, cost(logits, kept)
            )

    def _rows(
        self, network: Teacher, make: Callable[[Any], Pixels], items: Iterable[Any], pictures: int
    ) -> Iterator[NDArray[np.float32]]:
        """The logits [classes] of every picture that `make` gives of the items, so many of each."""
        columns = [network.label(name) for name in self._classes]
        asking = Asking(network, make, columns, self._threads)
        cluster = self._cluster
        for row in asking.rows(items) if cluster is None else asking.rows_by(cluster, items, pictures):
            self._advance()
            yield row


def _whole(images: Images, index: int) -> Pixels:
    return images[index][None]


def _tiles(images: Images, factor: int, index: int) -> Pixels:
    return split_tiles(images[index], factor)


@dataclass(frozen=True)
class _Views:
    """Makes the views of a batch, which is an epoch and the place of its first view."""

    images: Images
    recipe: ViewRecipe
    count: int
    side: int

    def __call__(self, batch: tuple[int, int]) -> Pixels:
        epoch, start = batch
        drawn = _draw(self.recipe, self.count, self.side, epoch)
        return render(self.images, drawn, self.recipe, slice(start, start + self.recipe.batch))


_draw = lru_cache(maxsize=4)(draw_epoch)
