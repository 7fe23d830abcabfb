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
from fgdd_fast.labels.compression import FLOAT16, Compression, KeptLogits, mean_cost
from fgdd_fast.labels.index import IMAGE_FILE, LabelledViews, epoch_file
from fgdd_fast.labels.teacher import check_predictions
from fgdd_fast.labels.tensors import pack_views
from fgdd_fast.labels.training_views import Images, ViewRecipe, draw_epoch, render
from fgdd_fast.labels.writing import LabelWriter
from fgdd_fast.models.network import Teacher
from fgdd_fast.output.distilled import DistilledSet, split_tiles
from fgdd_fast.parallel import batched

_ROWS = 1024  # of logits that are kept at once


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
        count, cells = len(indices), factor**2
        mosaic_logits = _kept(mosaic_rows, FLOAT16, count)
        tile_logits = _kept(tile_rows, FLOAT16, count * cells)
        labels, name = self._distilled.labels, whole.bundle.name
        check_predictions(
            mosaic_logits.predicted, tile_logits.predicted.reshape(count, cells), labels, classes, name
        )
        # of an image, then of its tiles
        costs = [mosaic_logits.costs[:, None], tile_logits.costs.reshape(count, cells, 3)]
        self._writer.add(
            IMAGE_FILE,
            {
                "mosaics": mosaic_logits.arrays["logits"],
                "tiles": tile_logits.arrays["logits"].reshape(count, cells, len(classes)),
            },
            mean_cost(np.concatenate(costs, axis=1).reshape(-1, 3)),
        )

    def label_epochs(self, network: Teacher, views: LabelledViews, epochs: Sequence[int]) -> None:
        """Make the logits of the views of some epochs, each epoch a file."""
        recipe, count, size = views.recipe, len(self._distilled), self._distilled.size

        starts = range(0, count, recipe.batch)
        make = _Views(self._images, recipe, count, size)
        rows = self._rows(network, make, product(epochs, starts), recipe.batch)
        for epoch in epochs:
            kept = _kept(rows, views.compression, count)
            drawn = _draw(recipe, count, size, epoch)
            arrays = {**kept.arrays, **pack_views(drawn, recipe, size)}
            self._writer.add(epoch_file(epoch), arrays, mean_cost(kept.costs))

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


def _kept(rows: Iterator[NDArray[np.float32]], compression: Compression, count: int) -> KeptLogits:
    """Keep the next `count` rows of logits, some at a time."""
    kept = KeptLogits(compression, count)
    for some in batched(islice(rows, count), _ROWS):
        kept.add(np.stack(some))
    return kept
