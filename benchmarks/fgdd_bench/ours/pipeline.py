"""This project along the paths on which a network runs: what `fgdd-fast measure` and `distill` do.

A pool is measured into a fresh store by an ordinary pipeline, with nothing in the place of a model that the
path does not ask, and the answer is read back from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fgdd_bench.harness.implementation import (
    SCORED,
    SEGMENTED,
    Answer,
    Implementation,
    PathName,
    Stage,
    Step,
    as_stages,
    groups,
)
from fgdd_bench.harness.subject import Subject, Task, asked_of, foreground_answer, unusable, whole_and_crops
from fgdd_bench.ours.absent_models import NoForeground, NoTeacher
from fgdd_bench.ours.grounded_parts import Apart
from fgdd_bench.ours.mosaics import OURS, our_mosaics
from fgdd_engines.base import Array
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage
from fgdd_fast.images.decode import read_file, read_image
from fgdd_fast.images.place import file_signature
from fgdd_fast.images.resize import Pixels
from fgdd_fast.measurement.missing import Found, MeasureSettings, StoreLookup
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import KnownFile
from fgdd_fast.models.factory import open_foreground
from fgdd_fast.models.foreground import Foreground, ForegroundChoice, ForegroundModel
from fgdd_fast.models.grounded_sam2 import GroundedSam2
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Images, Teacher, fingerprint_text, open_teacher
from fgdd_fast.options import MeasureOptions
from fgdd_fast.parallel import batched
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.planning import MosaicSettings, Plan
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.selection.records import ImageRecord


class OurPipeline(Implementation):
    """A pipeline whose models are open, on a fresh store in each run.

    Args:
        path: `foreground`, `teacher` or `all`.
        task: what every implementation is given.
        subject: the models that the path needs.
        settings: the mosaics, for `all`.
    """

    def __init__(
        self, path: PathName, task: Task, subject: Subject, settings: MosaicSettings | None = None
    ) -> None:
        super().__init__("ours")
        self._path, self._task, self._subject, self.settings = path, task, subject, settings
        self._choice = subject.foreground or ForegroundChoice("none", subject.classes)
        self._foreground: ForegroundModel = NoForeground()
        self._teacher: Teacher = NoTeacher()
        self._apart: Apart | None = None
        self._plan: Plan | None = None
        try:
            self.arithmetic = " + ".join(self._open_models())
        except BaseException:
            self.close()
            raise

    def _open_models(self) -> Iterator[str]:
        """Open what the path asks, and yield what runs it."""
        task, subject = self._task, self._subject
        runtime = subject.runtime
        if self._path in SEGMENTED:
            subject.foreground_bundle(grounded=subject.grounded)
            self._foreground = open_foreground(
                self._choice, runtime=runtime, batch=subject.batch, resize="area", threads=task.threads
            )
            self.opened.enter_context(closing(self._foreground))
            yield self._foreground.description
        if self._path in SCORED:
            teacher, _ = subject.known_teacher()
            views = subject.scored * VIEWS_PER_INFERENCE
            self._teacher = open_teacher(
                teacher, runtime=runtime, view=task.view, tile_size=task.tile_size, batch=views
            )
            self.opened.enter_context(closing(self._teacher))
            yield self._teacher.engine.arithmetic + (", tiles" if self._teacher.bundle.tile_of else "")

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        with self._fresh(images) as (pipeline, folder):
            if self.settings is not None:
                return self._distilled(pipeline, self.settings, folder / "out")
            measurer = pipeline.measurer()
            _refuse(measurer.measure(images).skipped)
            records = _usable(measurer.records(images))
            if self._path == "teacher":
                return {"losses": _losses(records)}
            if isinstance(self._foreground, GroundedSam2):
                self.text_encodings = len(self._foreground.tokens)
            most = asked_of(self._subject).most if self._subject.grounded else 0
            return foreground_answer([self._read_back(record, pipeline.store) for record in records], most)

    @contextmanager
    def _fresh(self, images: Sequence[SourceImage]) -> Iterator[tuple[Pipeline, Path]]:
        task = self._task
        dataset = DataSet(images[0].root, self._subject.classes, tuple(images), ())
        runtime = RuntimeOptions(threads=task.threads)
        options = MeasureOptions(
            pool=None, crops=self._crops, size=task.size, factor=task.factor, seed=task.seed
        )
        with TemporaryDirectory() as name, Store(Path(name, "store")) as store:
            models = (self._choice, self._foreground, self._teacher)
            yield (
                Pipeline(options, runtime, dataset, tuple(images), *models, store, self._subject.batch),
                Path(name),
            )

    @property
    def _crops(self) -> int:
        return self._task.crops if self._path in SCORED else 0

    def _distilled(self, pipeline: Pipeline, settings: MosaicSettings, out: Path) -> Answer:
        self._plan = pipeline.plan_with(settings)
        _refuse(self._plan.skipped)
        written = pipeline.write(self._plan, out)
        records = _usable(pipeline.measurer(settings.selection).records(pipeline.images))
        kept = [[crop.foreground for crop in record.crops] for record in records]
        return {
            "occupancy": np.array([record.occupancy for record in records], np.float32),
            "losses": _losses(records),
            "mosaics": np.stack([read_image(out / image.file).pixels for image in written.images]),
            "kept": np.array(kept, np.float32),
        }

    def _read_back(self, record: ImageRecord, store: Store) -> Foreground:
        """Return what the store holds of an image."""
        fingerprint = store.fingerprint(fingerprint_text(self._foreground.fingerprint(record.class_name)))
        boxes, mask = store.boxes(record.sha256, fingerprint), store.mask(record.sha256, fingerprint)
        return Foreground(record.occupancy, boxes, mask)

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`; an image is read and decoded once for both networks.

        The networks of a Grounded SAM 2 are those of `run`, cut out of its graphs: see `grounded_parts`. In
        the split form `run` leaves the segmenter out where no box was found; here it sees every image.
        """
        stages, pixels = as_stages(OURS.reading(), images)
        found = [Foreground(0.0)] * len(images)
        losses: list[Sequence[float]] = [()] * len(images)
        if self._path in SEGMENTED:
            stages += self._foreground_stages(images, pixels, found)
        if self._path in SCORED:
            stages += self._teacher_stages(images, pixels, losses)
        if self._apart is None or self._path in SCORED:  # what is found apart is not put together again
            rows = list(zip(images, pixels, found, losses, strict=True))
            stages.append(Stage("write", lambda _: self._write(rows), 1, len(images), 1))
        if self.settings is not None:
            if self._plan is None:
                self.run(images)
            assert self._plan is not None
            mosaics = self.opened.enter_context(our_mosaics(self._task, self._plan))
            stages += mosaics.stages(images)
        return stages

    def _foreground_stages(
        self, images: Sequence[SourceImage], pixels: Sequence[Pixels], found: list[Foreground]
    ) -> list[Stage]:
        """Return the stages of the foreground model; what it finds goes into `found`."""
        prepare = Step("preprocess", lambda image, decoded: self._foreground.prepare(decoded, image))
        preparing, prepared = as_stages([prepare], images, inputs=pixels)
        if isinstance(self._foreground, GroundedSam2):
            if self._apart is None:
                self._apart = Apart(self._subject, self._foreground)
                self.opened.enter_context(self._apart.opened)
            return preparing + self._apart.stages(images, prepared, groups(len(images), self._subject.batch))
        infer = Step("saliency", lambda _, inputs: self._foreground.find(inputs, masks=True))
        inference, results = self._in_batches(infer, prepared, self._subject.batch)
        found[:] = results
        return preparing + inference

    def _teacher_stages(
        self, images: Sequence[SourceImage], pixels: Sequence[Pixels], losses: list[Sequence[float]]
    ) -> list[Stage]:
        """Return the stages of the teacher; the losses of each image's views go into `losses`."""

        def show(image: SourceImage, decoded: Pixels) -> list[Images]:
            return [self._teacher.show(tile) for tile in OURS.tiles(self._task, image, decoded)]

        def score(batch: Sequence[int], shown: Sequence[Sequence[Images]]) -> Any:
            views = np.stack([view for one in shown for view in one])
            labels = [self._teacher.label(images[index].class_name) for index in batch]
            repeated = np.repeat(np.array(labels, np.int32), len(views) // len(batch))
            return self._teacher.losses(views, repeated).reshape(len(batch), -1).tolist()

        preparing, shown = as_stages([Step("preprocess", show)], images, inputs=pixels)
        inference, results = self._in_batches(Step("teacher", score), shown, self._subject.scored)
        losses[:] = results
        return preparing + inference

    def _in_batches(self, step: Step, prepared: Sequence[Any], size: int) -> tuple[list[Stage], list[Any]]:
        """Return a network's stage, and what it makes of each image."""
        batches = groups(len(prepared), size)
        inputs = [[prepared[index] for index in batch] for batch in batches]
        stages, results = as_stages([step], batches, inputs=inputs, images=size)
        return stages, list(chain.from_iterable(results))[: len(prepared)]

    def _write(self, rows: Sequence[tuple[SourceImage, Pixels, Foreground, Sequence[float]]]) -> None:
        """Keep in a fresh store what was measured."""
        task, batch = self._task, self._subject.batch_along(self._path)
        settings = MeasureSettings(self._crops, task.seed, "area", batch, task.threads)
        with TemporaryDirectory() as folder, Store(Path(folder)) as store:
            lookup = StoreLookup(self._foreground, self._teacher, settings, store, self._subject.classes)
            for part in batched(rows, batch):
                store.add(lookup.measurements([self._found(*row) for row in part]))

    def _found(
        self, image: SourceImage, pixels: Pixels, foreground: Foreground, losses: Sequence[float]
    ) -> Found:
        height, width = pixels.shape[:2]
        boxes = whole_and_crops(image, width, height, self._task) if losses else ()
        known = KnownFile(read_file(image.path).sha256, width, height)
        by_box = dict(zip(boxes, losses, strict=True))
        return Found(image, file_signature(image.path), known, foreground, by_box)


def _refuse(skipped: Sequence[Skipped]) -> None:
    for item in skipped:
        raise unusable(item.source, item.reason)


def _usable(records: Iterator[ImageRecord | Skipped]) -> list[ImageRecord]:
    found = []
    for record in records:
        if isinstance(record, Skipped):
            raise unusable(record.source, record.reason)
        found.append(record)
    return found


def _losses(records: Sequence[ImageRecord]) -> Array:
    return np.array([[view.loss for view in (record.full, *record.crops)] for record in records], np.float32)
