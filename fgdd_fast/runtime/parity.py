"""Run a bundle in two ways on the same images, and compare what would be decided.

The reference is the fp32 graph in ONNX Runtime on the CPU. Each role is asked what the pipeline asks it: a
foreground model for occupancies, a teacher for the losses of the whole image and its candidate crops, a
backbone for features.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TypeVar

import numpy as np

from fgdd_engines.backends import find_backend
from fgdd_engines.base import Array, Device
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.resize import resize
from fgdd_fast.images.tiles import ScoreView, tile_pixels
from fgdd_fast.models.factory import choose_as_exported, open_foreground
from fgdd_fast.models.network import BatchedNetwork, Images, Runtime, Teacher
from fgdd_fast.parallel import batched
from fgdd_fast.runtime.sample_images import SampleImage
from fgdd_fast.runtime.tolerances import (
    Floats,
    ParityReport,
    ToleranceLevel,
    cosine_distance,
    feature_figures,
    loss_figures,
    occupancy_figures,
)

T = TypeVar("T")

REFERENCE = Runtime("cpu", "fp32", threads=1)
CROPS = 5
_TELLING_LAPS = 3  # inferences after which a rate can be judged


class TooSlowError(Exception):
    """A way to run a bundle is slower than was asked for, and was not compared to the end.

    Attributes:
        images_per_second: its rate until then.
    """

    def __init__(self, images_per_second: float) -> None:
        super().__init__(f"{images_per_second:.1f} images a second")
        self.images_per_second = images_per_second


@dataclass(frozen=True)
class ComparisonResult:
    """What a candidate did when it was compared with the reference.

    Attributes:
        parity: how its decisions compare.
        images_per_second: by one thread, or stream; the first inference, which warms up, is not counted where
            there are more. On a processor it is its own time that counts, which other programs hardly change.
        arithmetic: what really ran.
    """

    parity: ParityReport
    images_per_second: float
    arithmetic: str


@dataclass(frozen=True)
class Answer:
    """What was answered to sample images: float32 along their first axis; of a teacher for which labels."""

    values: Floats
    images_per_second: float
    arithmetic: str
    labels: tuple[int, ...] | None = None


class Comparison:
    """The reference's answers on sample images, with which any number of candidates are compared.

    Args:
        bundle: the fp32 bundle; a foreground model, a teacher or a backbone.
        images: at least one.
        reference: what the candidates are compared with.
        expected: what it answers to these images, where that is known; it does not run then.

    Raises:
        SettingsError: nothing is decided by what a bundle of this role gives.
        FgddError: the reference cannot run the bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        images: Sequence[SampleImage],
        reference: Runtime = REFERENCE,
        expected: Answer | None = None,
    ) -> None:
        self._subject = _subject(bundle, images)
        self._images = len(images)
        self.expected = expected or self._subject.answer(reference, 1)
        self._subject.labels = self.expected.labels

    def of_reference(self) -> ComparisonResult:
        """Return how the reference compares with itself, one image an inference, without running it again."""
        answer = self.expected
        figures = self._subject.figures(answer.values, answer.values)
        parity = ParityReport(figures, "same arithmetic", self._images)
        return ComparisonResult(parity, answer.images_per_second, answer.arithmetic)

    def compare(
        self, candidate: Runtime, *, batch: int, single: int = 1, slowest: float = 0.0
    ) -> ComparisonResult:
        """Compare a candidate's answers with the reference's.

        Args:
            candidate: the way to run the bundle.
            batch: images an inference.
            single: a smaller batch, whose answers must be the same; where it equals `batch`, nothing is
                compared.
            slowest: images a second, below which it is not worth while.

        Raises:
            TooSlowError: the candidate is slower than that.
            FgddError: the candidate cannot run the bundle.
        """
        answer = self._subject.answer(candidate, batch, slowest)
        figures = self._subject.figures(self.expected.values, answer.values)
        if single != batch:
            alone = self._subject.answer(candidate, single)
            figures[self._subject.batch_figure] = self._subject.error(alone.values, answer.values)
        parity = ParityReport(figures, _level(candidate), self._images)
        return ComparisonResult(parity, answer.images_per_second, answer.arithmetic)


def sample_feeds(bundle: Bundle, images: Sequence[SampleImage]) -> list[dict[str, Array]]:
    """Return what a graph is fed for images, as in a comparison: one sample each, with a batch axis.

    A teacher is fed the whole image and each crop. Not for models that are asked for a class by its name.
    """
    if bundle.role != "teacher":
        size = (bundle.preprocessing.width, bundle.preprocessing.height)
        feeds = [{"images": resize(image.pixels, size, "area")[None]} for image in images]
        if bundle.classes is None:
            return feeds
        places = ByClassName.places(bundle.classes)
        labels = [places[each.image.class_name] for each in _of_known_classes(bundle, images)]
        return [
            {**feed, "labels": np.array([label], np.int32)} for feed, label in zip(feeds, labels, strict=True)
        ]
    with closing(_open_teacher(bundle, REFERENCE, 1)) as teacher:
        label = np.zeros(1, np.int32)
        return [
            {"images": view[None], "labels": label} for image in images for view in _views(image, teacher)
        ]


def _of_known_classes(bundle: Bundle, images: Sequence[SampleImage]) -> Sequence[SampleImage]:
    """Give the bundle's own classes in turn to images of classes that it does not know, where it has any."""
    classes = bundle.classes
    if classes is None:
        return images
    known = ByClassName.places(classes)
    return [
        image
        if image.image.class_name in known
        else replace(image, image=replace(image.image, class_name=classes[place % len(classes)]))
        for place, image in enumerate(images)
    ]


def _level(candidate: Runtime) -> ToleranceLevel:
    return "lower precision" if candidate.variants or candidate.precision != "fp32" else "same arithmetic"


class _Subject(ABC):
    """What a bundle of some role is asked, and how answers are compared."""

    batch_figure: str
    labels: tuple[int, ...] | None = None  # for which a teacher scores the images

    def __init__(self, bundle: Bundle, images: Sequence[SampleImage]) -> None:
        self.bundle = bundle
        self.images = images

    @abstractmethod
    def answer(self, runtime: Runtime, batch: int, slowest: float = 0.0) -> Answer:
        """Open the bundle, ask it about each image, and close it; raise TooSlowError where it is that."""

    @abstractmethod
    def figures(self, expected: Floats, found: Floats) -> dict[str, float]:
        """Compare answers."""

    def error(self, alone: Floats, together: Floats) -> float:
        """Return how much answers depend on the batch."""
        return float(np.abs(alone - together).mean())


class _Foreground(_Subject):
    """Occupancies [n]."""

    batch_figure = "batch_occupancy_error"

    def answer(self, runtime: Runtime, batch: int, slowest: float = 0.0) -> Answer:
        images = _of_known_classes(self.bundle, self.images)
        choice = choose_as_exported(self.bundle, sorted({image.image.class_name for image in images}))
        one = replace(runtime, threads=1)
        model = open_foreground(choice, runtime=lambda _: one, batch=batch, resize="area", threads=1)
        with closing(model):
            clock = _Clock(runtime.device, slowest)
            occupancies = []
            for part in _whole_batches(images, batch):
                prepared = [model.prepare(image.pixels, image.image) for image in part]
                with clock.running(len(part)):
                    occupancies += [found.occupancy for found in model.find(prepared)]
            return Answer(np.array(occupancies[: len(images)], np.float32), clock.rate, model.description)

    def figures(self, expected: Floats, found: Floats) -> dict[str, float]:
        return occupancy_figures(expected, found)


class _Teacher(_Subject):
    """Losses [n, 1 + crops] of the whole image and its crops, for the image's class.

    A class that the teacher does not know is replaced by the one that it sees in the whole image.
    """

    batch_figure = "batch_loss_error"

    def answer(self, runtime: Runtime, batch: int, slowest: float = 0.0) -> Answer:
        views = 1 + CROPS
        with closing(_open_teacher(self.bundle, replace(runtime, threads=1), batch * views)) as teacher:
            labels = self._known_labels(teacher)
            clock = _Clock(runtime.device, slowest)
            losses = []
            for part in _whole_batches(list(zip(self.images, labels, strict=True)), batch):
                shown = np.stack([view for image, _ in part for view in _views(image, teacher)])
                repeated = np.repeat(np.array([label for _, label in part], np.int32), views)
                with clock.running(len(part)):
                    losses.append(teacher.losses(shown, repeated))
            values = np.concatenate(losses).reshape(-1, views)[: len(self.images)]
            return Answer(values, clock.rate, teacher.engine.arithmetic, labels)

    def _known_labels(self, teacher: Teacher) -> tuple[int, ...]:
        """The label of each image, settled by the reference, which comes first."""
        if self.labels is None:
            known = ByClassName.places(self.bundle.classes or ())
            self.labels = tuple(
                teacher.label(image.image.class_name)
                if image.image.class_name in known
                else int(teacher.logits(next(_views(image, teacher))[None])[0].argmax())
                for image in self.images
            )
        return self.labels

    def figures(self, expected: Floats, found: Floats) -> dict[str, float]:
        return loss_figures(expected, found)


def _open_teacher(bundle: Bundle, runtime: Runtime, batch: int) -> Teacher:
    """A teacher that is shown tiles of half its input's side: padded, where it has a value to pad with."""
    preprocessing = bundle.preprocessing
    if bundle.tile_of is not None:
        return Teacher(bundle, runtime, view="pad", tile_size=preprocessing.width, batch=batch)
    view: ScoreView = "resize" if preprocessing.pad_value is None else "pad"
    return Teacher(bundle, runtime, view=view, tile_size=max(preprocessing.width // 2, 1), batch=batch)


def _views(image: SampleImage, teacher: Teacher) -> Iterator[Images]:
    """The whole image, then candidate crops of it, as the teacher is shown them."""
    height, width = image.pixels.shape[:2]
    crops = candidate_boxes(image.image.source, width, height, count=CROPS, seed=0)
    for box in (Box(0, 0, width, height), *crops):
        yield teacher.show(tile_pixels(image.pixels, box, teacher.tile_size, "area"))


class _Backbone(_Subject):
    """Features [n, channels]."""

    batch_figure = "batch_cosine_distance"

    def answer(self, runtime: Runtime, batch: int, slowest: float = 0.0) -> Answer:
        with closing(BatchedNetwork(self.bundle, replace(runtime, threads=1), batch=batch)) as network:
            clock = _Clock(runtime.device, slowest)
            features = []
            for part in _whole_batches(self.images, batch):
                pixels = np.stack([resize(image.pixels, network.size, "area") for image in part])
                with clock.running(len(part)):
                    features.append(network.run({"images": pixels}, ["features"])["features"])
            return Answer(np.concatenate(features)[: len(self.images)], clock.rate, network.engine.arithmetic)

    def figures(self, expected: Floats, found: Floats) -> dict[str, float]:
        return feature_figures(expected, found)

    def error(self, alone: Floats, together: Floats) -> float:
        return cosine_distance(alone, together)


_SUBJECTS: Mapping[str, type[_Subject]] = {
    "foreground": _Foreground,
    "teacher": _Teacher,
    "backbone": _Backbone,
}


def _subject(bundle: Bundle, images: Sequence[SampleImage]) -> _Subject:
    if bundle.role not in _SUBJECTS:
        raise SettingsError(
            f"The bundle {bundle.onnx} is a {bundle.role}: no decision of the pipeline depends on it alone",
            f"Bundles of these roles can be compared: {', '.join(_SUBJECTS)}.",
        )
    return _SUBJECTS[bundle.role](bundle, images)


def _whole_batches(items: Sequence[T], batch: int) -> Iterator[list[T]]:
    """Batches of items, which are repeated until the last batch is whole and there are two: one warms up."""
    count = len(items) if batch == 1 else batch * max(2, -(-len(items) // batch))
    return batched(islice(cycle(items), count), batch)


class _Clock:
    """Images a second, without the first inference where there are more."""

    def __init__(self, device: Device, slowest: float) -> None:
        self._slowest = slowest
        self._now = time.process_time if find_backend(device).on_processor else time.perf_counter
        self._laps: list[tuple[int, float]] = []

    @contextmanager
    def running(self, images: int) -> Iterator[None]:
        """Time one inference of so many images; raise TooSlowError where they are too few a second."""
        begin = self._now()
        yield
        self._laps.append((images, self._now() - begin))
        if len(self._laps) > _TELLING_LAPS and self.rate < self._slowest:
            raise TooSlowError(self.rate)

    @property
    def rate(self) -> float:
        laps = self._laps[1:] or self._laps
        return sum(images for images, _ in laps) / max(sum(seconds for _, seconds in laps), 1e-9)
