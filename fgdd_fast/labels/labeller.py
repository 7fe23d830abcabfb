"""The teacher asked about images, tiles and views; rendering and inference overlap, across epochs too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.images.resize import Pixels
from fgdd_fast.labels.compression import FLOAT16, cost
from fgdd_fast.labels.index import IMAGE_FILE, LabelledViews, epoch_file
from fgdd_fast.labels.teacher import check_predictions
from fgdd_fast.labels.tensors import pack_views
from fgdd_fast.labels.training_views import EpochViews, draw_epoch, render
from fgdd_fast.labels.writing import LabelWriter
from fgdd_fast.models.network import Teacher
from fgdd_fast.output.distilled import DistilledSet, split_tiles
from fgdd_fast.parallel import batched, ordered_map

T = TypeVar("T")


class Labeller:
    """Labels the images of one data set, and writes the labels.

    Args:
        distilled: the data set.
        images: all of its images.
        writer: takes the labels.
        threads: that render.
        advance: called for each image, tile or view that is labelled.
    """

    def __init__(
        self,
        distilled: DistilledSet,
        images: Pixels,
        writer: LabelWriter,
        threads: int,
        advance: Callable[[], None],
    ) -> None:
        self._distilled = distilled
        self._classes = distilled.manifest.classes
        self._images = images
        self._writer = writer
        self._threads = threads
        self._advance = advance

    def label_images(self, whole: Teacher, tiles: Teacher) -> None:
        """Make one set of logits for each image, and one for each of its tiles.

        Args:
            whole: is shown the images.
            tiles: the same teacher; is shown the tiles.

        Raises:
            TeacherError: the predictions contradict the classes.
        """
        classes, factor, indices = self._classes, self._distilled.factor, range(len(self._distilled))
        mosaic_rows = self._rows(whole, indices, lambda index: self._images[index, None])
        tile_rows = self._rows(tiles, indices, lambda index: split_tiles(self._images[index], factor))
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

        def batches() -> Iterator[tuple[EpochViews, slice]]:
            for epoch in epochs:
                drawn = draw_epoch(recipe, count, size, epoch)
                for start in range(0, count, recipe.batch):
                    yield drawn, slice(start, start + recipe.batch)

        rows = self._rows(network, batches(), lambda item: render(self._images, item[0], recipe, item[1]))
        for epoch in epochs:
            logits = np.stack([*islice(rows, count)])
            arrays = views.compression.pack(logits)
            kept = views.compression.unpack(arrays, logits.shape[1])
            drawn = draw_epoch(recipe, count, size, epoch)
            self._writer.add(
                epoch_file(epoch), {**arrays, **pack_views(drawn, recipe, size)}, cost(logits, kept)
            )

    def _rows(
        self, network: Teacher, items: Iterable[T], make: Callable[[T], Pixels]
    ) -> Iterator[NDArray[np.float32]]:
        """The logits [classes] of every picture that `make` gives, one after the other.

        Args:
            network: is shown each picture.
            items: what `make` is called with, in rendering threads.
            make: gives uint8 [any number, side, side, 3].
        """
        columns = [network.label(name) for name in self._classes]

        def prepare(item: T) -> list[Pixels]:
            return [network.show(picture) for picture in make(item)]

        def infer(pictures: list[Pixels]) -> NDArray[np.float32]:
            return network.logits(np.stack(pictures))[:, columns]

        with (
            ThreadPoolExecutor(self._threads, "render") as renderers,
            ThreadPoolExecutor(network.streams, "infer") as runners,
        ):
            rendered = ordered_map(renderers, prepare, items, 2 * self._threads)
            batches = batched((picture for part in rendered for picture in part), network.batch)
            for part in ordered_map(runners, infer, batches, 2 * network.streams):
                for row in part:
                    self._advance()
                    yield row
