"""This project along the paths on which a network runs: what `fgdd-fast measure` and `distill` do.

A pool is measured into a fresh store by an ordinary pipeline, with nothing in the place of a model that the
path does not ask, and the answer is read back from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
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
from fgdd_bench.ours.mosaics import READING, OurMosaics, tiles_of
from fgdd_engines.base import Array
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage
from fgdd_fast.images.decode import read_file, read_image
from fgdd_fast.images.resize import Pixels
from fgdd_fast.measurement.missing import Found, MeasureSettings, StoreLookup
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import KnownFile, file_signature
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

_Result = tuple[Foreground, Mapping[Box, float]]  # of an image: its foreground, and the loss of each view


class OurPipeline(Implementation):
    """A pipeline whose models are open, on a fresh store in each run.

    Args:
        path: `foreground`, `teacher` or `all`.
        task: what every implementation is given.
        subject: the models that the path needs.
        settings: the mosaics, for `all`.
    """

    name = "ours"

    def __init__(
        self, path: PathName, task: Task, subject: Subject, settings: MosaicSettings | None = None
    ) -> None:
        self._path, self._task, self._subject, self._settings = path, task, subject, settings
        self._choice = subject.foreground or ForegroundChoice("none", subject.classes)
        self._foreground: ForegroundModel = NoForeground()
        self._teacher: Teacher = NoTeacher()
        self._crops = task.crops if path in SCORED else 0
        self._apart: Apart | None = None
        self._plan: Plan | None = None
        running = []
        with ExitStack() as opened:
            if path in SEGMENTED:
                subject.foreground_bundle(grounded=subject.grounded)
                self._foreground = open_foreground(
                    self._choice,
                    runtime=subject.runtime,
                    batch=subject.batch,
                    resize="area",
                    threads=task.threads,
                )
                opened.enter_context(closing(self._foreground))
                running.append(self._foreground.description)
            if path in SCORED:
                self._teacher = open_teacher(
                    subject.known_teacher()[0],
                    runtime=subject.runtime,
                    view=task.view,
                    tile_size=task.tile_size,
                    batch=subject.batch * VIEWS_PER_INFERENCE,
                )
                opened.enter_context(closing(self._teacher))
                form = ", tiles" if self._teacher.bundle.tile_of else ""
                running.append(self._teacher.engine.arithmetic + form)
            self._opened = opened.pop_all()
        self.arithmetic = " + ".join(running)
        if isinstance(self._foreground, GroundedSam2) and path == "foreground":
            self._count_encodings(self._foreground)

    def _count_encodings(self, model: GroundedSam2) -> None:
        """Count each run of the text encoder's own network."""
        network = model._text._network
        run, lock = network.run, Lock()
        self.text_encodings = 0

        def counted(feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
            with lock:
                self.text_encodings = (self.text_encodings or 0) + 1
            return run(feeds, outputs)

        network.run = counted  # type: ignore[method-assign]

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        with self._fresh(images) as (pipeline, folder):
            if self._settings is not None:
                return self._distilled(pipeline, self._settings, folder / "out")
            measurer = pipeline.measurer()
            _refuse(measurer.measure(images).skipped)
            records = _usable(measurer.records(images))
            if self._path == "teacher":
                return {"losses": _losses(records)}
            most = asked_of(self._subject).most if self._subject.grounded else 0
            return foreground_answer([self._read_back(record, pipeline.store) for record in records], most)

    @contextmanager
    def _fresh(self, images: Sequence[SourceImage]) -> Iterator[tuple[Pipeline, Path]]:
        task, classes = self._task, self._subject.classes
        dataset = DataSet(images[0].root, classes, tuple(images), ())
        runtime = RuntimeOptions(threads=task.threads, batch=self._subject.batch)
        options = MeasureOptions(
            pool=None, crops=self._crops, size=task.size, factor=task.factor, seed=task.seed
        )
        with TemporaryDirectory() as name, Store(Path(name, "store")) as store:
            models = (self._choice, self._foreground, self._teacher)
            yield Pipeline(options, runtime, dataset, tuple(images), *models, store), Path(name)

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
        reading, pixels = as_stages(READING, images)
        stages = list(reading)
        found: list[_Result] = [(Foreground(0.0), {})] * len(images)
        if self._path in SEGMENTED:
            stages += self._foreground_stages(images, pixels, found)
        if self._path in SCORED:
            stages += self._teacher_stages(images, pixels, found)
        if self._apart is None or self._path in SCORED:  # what is found apart is not put together again
            rows = list(zip(images, pixels, found, strict=True))
            stages.append(Stage("write", lambda _: self._write(rows), 1, len(images), 1))
        if self._settings is not None:
            if self._plan is None:
                self.run(images)
            assert self._plan is not None
            mosaics = self._opened.enter_context(OurMosaics(self._task, self._plan))
            stages += mosaics.stages(images)
        return stages

    def _foreground_stages(
        self, images: Sequence[SourceImage], pixels: Sequence[Pixels], found: list[_Result]
    ) -> list[Stage]:
        """Return the stages of the foreground model; what it finds goes into `found`."""
        size = self._subject.batch
        batches = groups(len(images), size)
        prepare = Step("preprocess", lambda image, decoded: self._foreground.prepare(decoded, image))
        preparing, prepared = as_stages([prepare], images, inputs=pixels)
        if isinstance(self._foreground, GroundedSam2):
            if self._apart is None:
                self._apart = Apart(self._subject, self._foreground)
                self._opened.enter_context(closing(self._apart))
            return [*preparing, *self._apart.stages(images, prepared, batches, size)]
        infer = Step("saliency", lambda _, inputs: self._foreground.find(inputs, masks=True))
        inputs = [[prepared[index] for index in batch] for batch in batches]
        inference, results = as_stages([infer], batches, inputs=inputs, images=size)
        flat = [one for batch in results for one in batch][: len(images)]
        found[:] = [(one, losses) for one, (_, losses) in zip(flat, found, strict=True)]
        return [*preparing, *inference]

    def _teacher_stages(
        self, images: Sequence[SourceImage], pixels: Sequence[Pixels], found: list[_Result]
    ) -> list[Stage]:
        size = self._subject.batch
        batches = groups(len(images), size)

        def show(image: SourceImage, decoded: Pixels) -> list[Images]:
            return [self._teacher.show(tile) for tile in tiles_of(image, decoded, self._task)]

        def score(batch: Sequence[int], shown: Sequence[Sequence[Images]]) -> Any:
            views = np.stack([view for one in shown for view in one])
            labels = [self._teacher.label(images[index].class_name) for index in batch]
            repeated = np.repeat(np.array(labels, np.int32), len(views) // len(batch))
            return self._teacher.losses(views, repeated).reshape(len(batch), -1).tolist()

        preparing, shown = as_stages([Step("preprocess", show)], images, inputs=pixels)
        inputs = [[shown[index] for index in batch] for batch in batches]
        inference, rows = as_stages([Step("teacher", score)], batches, inputs=inputs, images=size)
        flat = [row for batch in rows for row in batch][: len(images)]
        for place, (image, decoded, row) in enumerate(zip(images, pixels, flat, strict=True)):
            height, width = decoded.shape[:2]
            boxes = whole_and_crops(image, width, height, self._task)
            found[place] = found[place][0], dict(zip(boxes, row, strict=True))
        return [*preparing, *inference]

    def _write(self, rows: Sequence[tuple[SourceImage, Pixels, _Result]]) -> None:
        """Keep in a fresh store what was measured."""
        task, batch = self._task, self._subject.batch
        settings = MeasureSettings(self._crops, task.seed, "area", batch, task.threads)
        with TemporaryDirectory() as folder, Store(Path(folder)) as store:
            lookup = StoreLookup(self._foreground, self._teacher, settings, store, self._subject.classes)
            for part in batched(rows, batch):
                store.add(lookup.measurements([_found(*row) for row in part]))

    def close(self) -> None:
        """See `Implementation.close`."""
        self._opened.close()


def _found(image: SourceImage, pixels: Pixels, result: _Result) -> Found:
    known = KnownFile(read_file(image.path).sha256, pixels.shape[1], pixels.shape[0])
    return Found(image, file_signature(image.path), known, *result)


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
