"""The product along the path `foreground` with Grounded SAM 2: what `fgdd-fast measure` runs.

A pool is measured into a fresh store, with no teacher beside the model, and the answer is read back from
there; masks are kept as well.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import cv2
import numpy as np

from fgdd_bench.harness.absent_models import NoTeacher
from fgdd_bench.harness.sources import unusable
from fgdd_bench.harness.steps import Step, as_stages, groups
from fgdd_bench.harness.ways import Answer, Stage, Task, Way
from fgdd_bench.ours.grounded_parts import open_parts
from fgdd_bench.ours.small_networks import decode_step, read_step
from fgdd_bench.references.grounded.subject import GroundedSubject, as_answer, text_stage
from fgdd_engines.base import Array, Engine
from fgdd_fast.images.dataset import Skipped, SourceImage
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.foreground import Foreground, Inputs, Pixels
from fgdd_fast.models.grounded_sam2 import GroundedSam2
from fgdd_fast.models.grounded_tensors import TEXT_FEATURES, TEXT_POSITIONS, check_grounded
from fgdd_fast.models.network import BatchedNetwork, fingerprint_text
from fgdd_fast.models.prompts import PromptTokenizer
from fgdd_fast.selection.records import ImageRecord

_Tensors = dict[str, Array]


class GroundedProduct(Way):
    """Grounded SAM 2 as the product runs it: each prompt encoded once, the rest in one graph or in two."""

    column = "product"
    text_encodings: int

    def __init__(self, task: Task, subject: GroundedSubject) -> None:
        begin = time.perf_counter()
        cv2.setNumThreads(1)  # as the product does: its own threads are the parallelism
        self._subject = subject
        self._settings = MeasureSettings(
            crops=0,
            seed=task.seed,
            resize=subject.resize,
            batch=subject.batch,
            threads=task.threads,
        )
        self._model = GroundedSam2(
            subject.bundle,
            subject.runtime,
            batch=subject.batch,
            resize=subject.resize,
            classes=subject.classes,
            prompts=subject.prompts,
            threshold=subject.threshold,
        )
        self._apart: _Apart | None = None
        self.arithmetic = self._model.description
        self.text_encodings = 0
        self._count_encodings()
        self.load_seconds = time.perf_counter() - begin

    def _count_encodings(self) -> None:
        """Count each run of the text encoder's own network."""
        network = self._model._text._network
        run, lock = network.run, Lock()

        def counted(feeds: Mapping[str, Array], outputs: Sequence[str]) -> _Tensors:
            with lock:
                self.text_encodings += 1
            return run(feeds, outputs)

        network.run = counted  # type: ignore[method-assign]

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Way.run`."""
        with TemporaryDirectory() as folder, Store(Path(folder)) as store:
            measurer = Measurer(self._model, NoTeacher(), self._settings, store, self._subject.classes)
            for skipped in measurer.measure(images).skipped:
                raise unusable(skipped.source, skipped.reason)
            found = [self._read_back(record, store) for record in measurer.records(images)]
        return as_answer(found, self._subject.prompting.boxes)

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Way.stages`.

        The networks are those of `run`, cut out of its graphs: see `fgdd_bench.ours.grounded_parts`. In
        the split form `run` leaves the segmenter out where no box was found; here it sees every image.
        """
        if self._apart is None:
            self._apart = _Apart(self._subject, self._model)
        apart = self._apart
        reading, prepared = as_stages(
            [Step("read", read_step), Step("decode", decode_step), Step("preprocess", self._prepare)], images
        )
        texts = {name: apart.encode(name) for name in dict.fromkeys(image.class_name for image in images)}
        batches = groups(len(images), self._subject.batch)
        networks, _ = as_stages(
            apart.steps,
            batches,
            inputs=[
                _stacked([{**prepared[index], **texts[images[index].class_name]} for index in batch])
                for batch in batches
            ],
            images=self._subject.batch,
        )
        return [*reading, text_stage(images, apart.encode), *networks]

    def close(self) -> None:
        """See `Way.close`."""
        self._model.close()
        if self._apart is not None:
            self._apart.close()

    def _read_back(self, record: ImageRecord | Skipped, store: Store) -> Foreground:
        """What the store holds of an image."""
        if isinstance(record, Skipped):
            raise unusable(record.source, record.reason)
        fingerprint = store.fingerprint(fingerprint_text(self._model.fingerprint(record.class_name)))
        return Foreground(
            record.occupancy,
            store.boxes(record.sha256, fingerprint),
            store.mask(record.sha256, fingerprint),
        )

    def _prepare(self, image: SourceImage, pixels: Pixels) -> Inputs:
        return self._model.prepare(pixels, image)


class _Apart:
    """The networks one by one, as stages run them, opened as the product opens them.

    Args:
        subject: what is looked for.
        model: asks for a class.
    """

    def __init__(self, subject: GroundedSubject, model: GroundedSam2) -> None:
        self._model = model
        checked = check_grounded(subject.bundle)
        self._tokenizer = PromptTokenizer(subject.bundle.file("tokenizer.json"), checked.prompting)
        self._text = BatchedNetwork(checked.text, subject.runtime, batch=1)
        with TemporaryDirectory() as folder:
            self._parts = open_parts(subject.bundle, subject.runtime, subject.batch, Path(folder))
        self.steps = (
            Step("detector", partial(_run, self._parts.detector)),
            Step("mask encoder", partial(_run, self._parts.encoder)),
            Step("mask decoder", partial(_run, self._parts.decoder)),
        )

    def encode(self, class_name: str) -> _Tensors:
        """What the detector takes of a class's prompt, which is encoded now."""
        prompt = self._tokenizer.encode(self._model.prompt(class_name))
        feeds = {
            "input_ids": prompt.input_ids,
            "self_mask": prompt.self_mask,
            "position_ids": prompt.position_ids,
        }
        encoded = self._text.run(_stacked([feeds]), [TEXT_FEATURES.name, TEXT_POSITIONS.name])
        masks = {"text_mask": prompt.mask, "text_self_mask": prompt.self_mask}
        return {**masks, **{name: array[0] for name, array in encoded.items()}}

    def close(self) -> None:
        """Free the runtimes' memory."""
        self._text.close()
        self._parts.close()


def _run(engine: Engine, _: Sequence[int], tensors: _Tensors) -> _Tensors:
    """The tensors of a batch, with those that an engine makes of them."""
    feeds = {spec.name: tensors[spec.name] for spec in engine.inputs}
    return {**tensors, **engine.run(feeds)}


def _stacked(samples: Sequence[Inputs]) -> _Tensors:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
