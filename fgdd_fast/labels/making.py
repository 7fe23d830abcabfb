"""Making soft labels: the teacher on every image, every tile, and every view of the epochs.

Rendering and inference overlap, across epochs too. A logit depends on its view alone, so labels are the same
however often the work was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.tiles import ScoreView
from fgdd_fast.labels.compression import FLOAT16, cost
from fgdd_fast.labels.index import IMAGE_FILE, LabelIndex, LabelledImages, LabelledViews, epoch_file
from fgdd_fast.labels.teacher import check_predictions, teacher_model
from fgdd_fast.labels.training_views import EpochViews, draw_epoch, render
from fgdd_fast.labels.views import pack_views
from fgdd_fast.labels.writing import LabelWriter, open_writer
from fgdd_fast.models.network import Runtime, Teacher
from fgdd_fast.output.distilled import DistilledSet, split_tiles
from fgdd_fast.output.folder import MANIFEST
from fgdd_fast.parallel import batched, ordered_map

T = TypeVar("T")


@dataclass(frozen=True)
class LabelSettings:
    """Which labels are made.

    Attributes:
        epochs: how many epochs of training views are labelled; 0 for images and tiles alone.
        views: how the views are drawn, shown, and their logits kept.
        tile_view: how a tile is shown to the teacher.
        batch: views an inference.
    """

    epochs: int
    views: LabelledViews
    tile_view: ScoreView
    batch: int


def make_labels(
    distilled: DistilledSet,
    bundle: Bundle,
    runtime: Runtime,
    settings: LabelSettings,
    *,
    overwrite: bool = False,
    begin: Callable[[int], None] = lambda _: None,
    advance: Callable[[], None] = lambda: None,
    notice: Callable[[str], None] = lambda _: None,
) -> LabelIndex:
    """Make what is missing of the labels of a distilled data set, in its folder `labels`.

    The images are held in memory: size * size * 3 bytes each.

    Args:
        distilled: the data set.
        bundle: the teacher; `check_labelling_teacher` has passed it.
        runtime: how it runs.
        settings: which labels.
        overwrite: whether labels made otherwise are replaced, instead of refused.
        begin: told how many views, images and tiles will be labelled.
        advance: called once for each that is labelled.
        notice: told, in one line, what seems odd about the teacher.

    Returns:
        The index of what is there now.

    Raises:
        TeacherError: its predictions contradict the classes.
        FgddError: see `fgdd_fast.errors`; what was finished is kept.
    """
    settings.views.compression.check(len(distilled.manifest.classes))
    draw_epoch(settings.views.recipe, 0, distilled.size, 0)  # refuses sizes before the long work
    cv2.setNumThreads(1)

    def open_teacher(view: ScoreView, side: int) -> Teacher:
        return Teacher(bundle, runtime, view=view, tile_size=side, batch=settings.batch)

    with ExitStack() as stack:
        whole = stack.enter_context(closing(open_teacher("resize", distilled.size)))
        subject = _subject(distilled, whole, settings.tile_view)
        wanted = LabelIndex(subject, settings.views if settings.epochs else None, settings.epochs)
        writer = stack.enter_context(open_writer(distilled.folder, wanted, overwrite=overwrite))
        views, missing = writer.index.views, writer.index.missing
        begin(len(distilled) * (len(missing) + (1 + distilled.factor**2) * writer.index.lacks_images))
        images = distilled.read_all() if missing or writer.index.lacks_images else np.empty(0, np.uint8)
        labeller = _Labeller(distilled, images, writer, runtime.threads, advance)
        if writer.index.lacks_images:
            with closing(open_teacher(settings.tile_view, distilled.tile_size)) as tiles:
                labeller.label_images(whole, tiles, notice)
        if missing and views is not None:
            network = whole
            if views.shown != "resize":
                network = stack.enter_context(closing(open_teacher(views.shown, views.recipe.size)))
            labeller.label_epochs(network, views, missing)
        return writer.index


def _subject(distilled: DistilledSet, teacher: Teacher, tile_view: ScoreView) -> LabelledImages:
    model, manifest = teacher_model(teacher.bundle), distilled.manifest
    fingerprint = {name: value for name, value in teacher.fingerprint.items() if name != "size"}
    return LabelledImages(
        manifest=file_sha256(distilled.folder / MANIFEST),
        images=distilled.hashes(),
        classes=manifest.classes,
        teacher=model,
        other_teacher=model.sha256 != manifest.models["teacher"].sha256,
        runtime=fingerprint,
        tile_view=tile_view,
    )


class _Labeller:
    """Labels the images of one data set, and writes the labels."""

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

    def label_images(self, whole: Teacher, tiles: Teacher, notice: Callable[[str], None]) -> None:
        """One set of logits for each image, and one for each of its tiles.

        Args:
            whole: is shown the images.
            tiles: the same teacher; is shown the tiles.
            notice: told, in one line, what cannot be checked.

        Raises:
            TeacherError: the predictions contradict the classes.
        """
        classes, factor, indices = self._classes, self._distilled.factor, range(len(self._distilled))
        mosaic_rows = self._rows(whole, indices, lambda index: self._images[index, None])
        tile_rows = self._rows(tiles, indices, lambda index: split_tiles(self._images[index], factor))
        mosaic_logits = np.stack([*mosaic_rows])
        tile_logits = np.stack([*tile_rows]).reshape(len(indices), factor**2, len(classes))
        labels, name = self._distilled.labels, whole.bundle.name
        check_predictions(mosaic_logits, tile_logits, labels, classes, name, notice)
        logits = np.concatenate([mosaic_logits[:, None], tile_logits], axis=1)
        kept = FLOAT16.pack(logits)["logits"]
        self._writer.add(
            IMAGE_FILE,
            {"mosaics": kept[:, 0], "tiles": kept[:, 1:]},
            cost(logits.reshape(-1, len(classes)), kept.astype(np.float32).reshape(-1, len(classes))),
        )

    def label_epochs(self, network: Teacher, views: LabelledViews, epochs: Sequence[int]) -> None:
        """The views of some epochs, each epoch a file."""
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
