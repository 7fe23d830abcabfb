"""The product along the paths of its small networks: decoding, saliency, scoring and composing.

`foreground` and `teacher` are what `fgdd-fast measure` runs, into a fresh store, with nothing in the other
model's place.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from fgdd_bench.harness.absent_models import NoForeground, NoTeacher
from fgdd_bench.harness.sources import unusable, whole_and_crops
from fgdd_bench.harness.steps import Step, as_stages, groups, run_steps
from fgdd_bench.harness.subject import Subject, saliency_of, teacher_of
from fgdd_bench.harness.ways import Answer, PathName, Stage, StageName, Task, Way
from fgdd_bench.ours.mosaics import ProductMosaics
from fgdd_fast.errors import ImageError, SettingsError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import Skipped, SourceImage
from fgdd_fast.images.decode import FileContent, decode_image, read_file
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import Found, MeasureSettings, StoreLookup
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import KnownFile, file_signature
from fgdd_fast.models.foreground import Foreground, ForegroundModel, Inputs
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Images, Teacher, fingerprint_text, open_teacher
from fgdd_fast.models.saliency import SaliencyModel
from fgdd_fast.parallel import batched, ordered_map
from fgdd_fast.selection.records import ImageRecord


def open_product(path: PathName, task: Task, subject: Subject) -> Way:
    """Open the product along a path.

    Raises:
        SettingsError: the path is none of a small network, or the subject lacks what it needs.
        FgddError: a model cannot be opened.
    """
    ways: dict[str, Callable[[Task, Subject], Way]] = {
        "decode": ProductDecoding,
        "foreground": ProductForeground,
        "teacher": ProductTeacher,
        "compose": ProductMosaics,
    }
    if path not in ways:
        raise SettingsError(f"The path '{path}' is not one of {', '.join(ways)}")
    begin = time.perf_counter()
    cv2.setNumThreads(1)  # as the product does: its own threads are the parallelism
    way = ways[path](task, subject)
    way.load_seconds = time.perf_counter() - begin
    return way


class ProductDecoding(Way):
    """Files are read, decoded once and cut into tiles on a pool of threads."""

    column = "product"

    def __init__(self, task: Task, subject: Subject) -> None:
        self.arithmetic = f"OpenCV {cv2.__version__}"
        self._threads = task.threads
        self._steps = (*_READING, Step("preprocess", partial(_tiles, task, subject)))

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Way.run`."""
        with ThreadPoolExecutor(self._threads, "decode") as executor:
            work = partial(run_steps, self._steps)
            return {"tiles": np.stack(list(ordered_map(executor, work, images, 4 * self._threads)))}

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Way.stages`."""
        return as_stages(self._steps, images)[0]

    def close(self) -> None:
        """Nothing is held."""


class _Measuring(Way):
    """A pool is measured into a fresh store, and the answer read back from there.

    Args:
        foreground, teacher: the open models, one of which is absent.
        settings: how.
        classes: of the images.
    """

    column = "product"
    _network: StageName

    def __init__(
        self,
        foreground: ForegroundModel,
        teacher: Teacher,
        settings: MeasureSettings,
        classes: Sequence[str],
    ) -> None:
        self._foreground = foreground
        self._teacher = teacher
        self._settings = settings
        self._classes = classes

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Way.run`."""
        with TemporaryDirectory() as folder, Store(Path(folder)) as store:
            measurer = Measurer(self._foreground, self._teacher, self._settings, store, self._classes)
            for skipped in measurer.measure(images).skipped:
                raise unusable(skipped.source, skipped.reason)
            records = []
            for record in measurer.records(images):
                if isinstance(record, Skipped):
                    raise unusable(record.source, record.reason)
                records.append(record)
            return self._answer(records, store)

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Way.stages`."""
        size = self._settings.batch
        batches = groups(len(images), size)
        reading, pixels = as_stages(_READING, images)
        preparing, prepared = as_stages([Step("preprocess", self._prepare)], images, inputs=pixels)
        inference, found = as_stages(
            [Step(self._network, self._infer)],
            [[images[index] for index in batch] for batch in batches],
            inputs=[[prepared[index] for index in batch] for batch in batches],
            images=size,
        )
        results = [result for batch in found for result in batch][: len(images)]
        rows = [_row(*item) for item in zip(images, pixels, results, strict=True)]
        write = Stage("write", lambda _: self._write(rows), 1, len(images), 1)
        return [*reading, *preparing, *inference, write]

    def close(self) -> None:
        """See `Way.close`."""
        self._foreground.close()
        self._teacher.close()

    def _write(self, rows: Sequence[Found]) -> None:
        """Keep in a fresh store what was measured."""
        with TemporaryDirectory() as folder, Store(Path(folder)) as store:
            lookup = StoreLookup(self._foreground, self._teacher, self._settings, store, self._classes)
            for batch in batched(rows, self._settings.batch):
                store.add(lookup.measurements(batch))

    @abc.abstractmethod
    def _answer(self, records: Sequence[ImageRecord], store: Store) -> Answer:
        """What was asked for, of what was measured."""

    @abc.abstractmethod
    def _prepare(self, image: SourceImage, pixels: Pixels) -> Any:
        """What the network takes of an image."""

    @abc.abstractmethod
    def _infer(self, images: Sequence[SourceImage], prepared: Sequence[Any]) -> list[_Result]:
        """What is found of a batch of images."""


class ProductForeground(_Measuring):
    """Occupancies and masks of a model that is asked for no class."""

    _network = "saliency"

    def __init__(self, task: Task, subject: Subject) -> None:
        bundle = saliency_of(subject)
        runtime = subject.runtime(bundle)
        saliency = SaliencyModel(bundle, runtime, batch=subject.batch, resize=subject.resize)
        settings = _settings(task, subject, crops=0)
        super().__init__(saliency, NoTeacher(), settings, subject.classes)
        self.arithmetic = saliency.description

    def _answer(self, records: Sequence[ImageRecord], store: Store) -> Answer:
        masks = []
        for record in records:
            text = fingerprint_text(self._foreground.fingerprint(record.class_name))
            masks.append(store.mask(record.sha256, store.fingerprint(text)))
        occupancies = [record.occupancy for record in records]
        return {"occupancy": np.array(occupancies, np.float32), "masks": np.array(masks)}

    def _prepare(self, image: SourceImage, pixels: Pixels) -> Inputs:
        return self._foreground.prepare(pixels, image)

    def _infer(self, _: Sequence[SourceImage], prepared: Sequence[Inputs]) -> list[_Result]:
        return [(found, {}) for found in self._foreground.find(prepared, masks=True)]


class ProductTeacher(_Measuring):
    """Losses of whole images and candidate crops, shown to the teacher as padded tiles."""

    _network = "teacher"

    def __init__(self, task: Task, subject: Subject) -> None:
        bundle, _ = teacher_of(subject)
        teacher = open_teacher(
            bundle,
            runtime=subject.runtime,
            view="pad",
            tile_size=task.tile_size,
            batch=subject.batch * VIEWS_PER_INFERENCE,
        )
        settings = _settings(task, subject, crops=task.crops)
        super().__init__(NoForeground(), teacher, settings, subject.classes)
        self.arithmetic = teacher.engine.arithmetic + (", tiles" if teacher.bundle.tile_of else "")
        self._cut = partial(_tiles, task, subject)
        self._boxes = partial(whole_and_crops, task=task)

    def _answer(self, records: Sequence[ImageRecord], _: Store) -> Answer:
        losses = [[view.loss for view in (record.full, *record.crops)] for record in records]
        return {"losses": np.array(losses, np.float32)}

    def _prepare(self, image: SourceImage, pixels: Pixels) -> tuple[Sequence[Box], list[Images]]:
        height, width = pixels.shape[:2]
        views = [self._teacher.show(tile) for tile in self._cut(image, pixels)]
        return self._boxes(image, width, height), views

    def _infer(
        self, images: Sequence[SourceImage], prepared: Sequence[tuple[Sequence[Box], list[Images]]]
    ) -> list[_Result]:
        views = np.stack([view for _, shown in prepared for view in shown])
        labels = [self._teacher.label(image.class_name) for image in images]
        repeated = np.repeat(np.array(labels, np.int32), len(views) // len(images))
        rows = self._teacher.losses(views, repeated).reshape(len(images), -1).tolist()
        return [
            (Foreground(0.0), dict(zip(boxes, row, strict=True)))
            for (boxes, _), row in zip(prepared, rows, strict=True)
        ]


_Result = tuple[Foreground, Mapping[Box, float]]


def _row(image: SourceImage, pixels: Pixels, result: _Result) -> Found:
    height, width = pixels.shape[:2]
    known = KnownFile(read_file(image.path).sha256, width, height)
    return Found(image, file_signature(image.path), known, *result)


def _settings(task: Task, subject: Subject, *, crops: int) -> MeasureSettings:
    return MeasureSettings(crops, task.seed, subject.resize, subject.batch, task.threads)


def read_step(image: SourceImage, _: None) -> FileContent:
    """Read and hash an image's file."""
    try:
        return read_file(image.path)
    except ImageError as error:
        raise unusable(image.source, error.problem) from error


def decode_step(image: SourceImage, file: FileContent) -> Pixels:
    """Decode what was read."""
    try:
        return decode_image(file.content)
    except ImageError as error:
        raise unusable(image.source, error.problem) from error


def _tiles(task: Task, subject: Subject, image: SourceImage, pixels: Pixels) -> Images:
    """The whole image and its candidate crops as tiles, uint8 [1 + crops, tile, tile, 3]."""
    height, width = pixels.shape[:2]
    boxes = whole_and_crops(image, width, height, task)
    return np.stack([tile_pixels(pixels, box, task.tile_size, subject.resize) for box in boxes])


_READING = (Step("read", read_step), Step("decode", decode_step))
