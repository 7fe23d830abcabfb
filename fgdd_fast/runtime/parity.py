"""Run a bundle in two ways on the same images, and compare what would be decided.

The reference is the fp32 graph in ONNX Runtime on the CPU. Each role is asked what the pipeline asks it: a
foreground model for occupancies, a teacher for the losses of the whole image and its candidate crops, a
backbone for features.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from fgdd_engines.backends import find_backend
from fgdd_engines.base import Array, Device
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.resize import resize
from fgdd_fast.models.factory import choose_as_exported, open_foreground
from fgdd_fast.models.foreground import ForegroundModel, Inputs
from fgdd_fast.models.network import BatchedNetwork, Runtime, Teacher
from fgdd_fast.parallel import batched
from fgdd_fast.runtime.sample_images import (
    CROPS,
    SampleImage,
    of_known_classes,
    open_for_comparison,
    views_of,
)
from fgdd_fast.runtime.tolerances import (
    Floats,
    ParityReport,
    ToleranceLevel,
    cosine_distance,
    feature_figures,
    loss_figures,
    occupancy_figures,
)

REFERENCE = Runtime("cpu", "fp32", threads=1)
_TELLING_LAPS = 3  # inferences after which a rate can be judged
TURNS = 5  # of a race, each of about a second of the reference, or of so many images:
MOST_IN_A_TURN = 16


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


class Answer(NamedTuple):
    """What was answered to sample images, a row for each; of a teacher also for which labels."""

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
        self._reference = reference
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

    def mirrored(self) -> dict[str, float]:
        """Return how the reference's decisions on mirrored images compare with those on the images."""
        self._subject.mirrors = True
        found = self._subject.answer(self._reference, 1).values
        self._subject.mirrors = False
        return self._subject.figures(self.expected.values, found)

    def race(self, candidate: Runtime, *, batch: int) -> float:
        """Return how many times as fast as the reference a candidate is, each with one thread or stream.

        They run in turns, so that what else the machine does hits both: the median over the turns.

        Raises:
            FgddError: the candidate cannot run the bundle.
        """
        count = round(min(max(self.expected.images_per_second, 1), MOST_IN_A_TURN))
        with (
            self._subject.timed(self._reference, 1, count) as first,
            self._subject.timed(candidate, batch, count) as second,
        ):
            turns = [(first(), second()) for _ in range(TURNS + 1)][1:]  # the first warms up
        return median(one / other for one, other in turns)


def _level(candidate: Runtime) -> ToleranceLevel:
    return "lower precision" if candidate.variants or candidate.precision != "fp32" else "same arithmetic"


class _Subject(ABC):
    """What a bundle of some role is asked, and how answers are compared."""

    batch_figure: str
    mirrors = False  # whether images, or what is shown of them, are mirrored
    labels: tuple[int, ...] | None = None  # for which a teacher scores the images

    def __init__(self, bundle: Bundle, images: Sequence[SampleImage]) -> None:
        self.bundle = bundle
        self.images = images

    @abstractmethod
    def open(self, runtime: Runtime, batch: int) -> Any:
        """Open the bundle for so many images an inference."""

    @abstractmethod
    def show(self, model: Any, places: Sequence[int]) -> Any:
        """Return what the model is given of the images at these places."""

    @abstractmethod
    def ask(self, model: Any, shown: Any) -> Floats:
        """Return the model's answers, a row for each image."""

    @abstractmethod
    def figures(self, expected: Floats, found: Floats) -> dict[str, float]:
        """Compare answers."""

    def error(self, alone: Floats, together: Floats) -> float:
        """Return how much answers depend on the batch."""
        return float(np.abs(alone - together).mean())

    def answer(self, runtime: Runtime, batch: int, slowest: float = 0.0) -> Answer:
        """Open the bundle, ask it about each image, and close it; raise TooSlowError where it is that."""
        with closing(self.open(replace(runtime, threads=1), batch)) as model:
            now, seconds, answers = _clock_of(runtime.device), list[float](), list[Floats]()
            for places in _whole_batches(range(len(self.images)), batch):
                shown = self.show(model, places)
                begin = now()
                answers.append(self.ask(model, shown))
                seconds.append(now() - begin)
                warm = seconds[1:] or seconds
                rate = batch * len(warm) / max(sum(warm), 1e-9)
                if len(seconds) > _TELLING_LAPS and rate < slowest:
                    raise TooSlowError(rate)
            return Answer(np.concatenate(answers)[: len(self.images)], rate, model.description, self.labels)

    @contextmanager
    def timed(self, runtime: Runtime, batch: int, count: int) -> Iterator[Callable[[], float]]:
        """Open the bundle; the function given asks it about so many images at least: seconds an image."""
        now = _clock_of(runtime.device)
        whole = -(-count // batch) * batch
        with closing(self.open(replace(runtime, threads=1), batch)) as model:
            parts = batched(islice(cycle(range(len(self.images))), whole), batch)
            shown = [self.show(model, places) for places in parts]

            def run() -> float:
                begin = now()
                for part in shown:
                    self.ask(model, part)
                return max(now() - begin, 1e-9) / whole

            yield run


class _Foreground(_Subject):
    """Occupancies [n]."""

    batch_figure = "batch_occupancy_error"

    def open(self, runtime: Runtime, batch: int) -> ForegroundModel:
        self.images = of_known_classes(self.bundle, self.images)
        choice = choose_as_exported(self.bundle, sorted({image.image.class_name for image in self.images}))
        return open_foreground(choice, runtime=lambda _: runtime, batch=batch, resize="area", threads=1)

    def show(self, model: ForegroundModel, places: Sequence[int]) -> list[Inputs]:
        step = -1 if self.mirrors else 1
        shown = ((self.images[place].pixels[:, ::step], self.images[place].image) for place in places)
        return [model.prepare(np.ascontiguousarray(pixels), image) for pixels, image in shown]

    def ask(self, model: ForegroundModel, shown: list[Inputs]) -> Floats:
        return np.array([found.occupancy for found in model.find(shown)], np.float32)

    def figures(self, expected: Floats, found: Floats) -> dict[str, float]:
        return occupancy_figures(expected, found)


class _Teacher(_Subject):
    """For each image, the class that the whole image is taken for; then losses of that and of its crops.

    Losses are for the image's class; one that the teacher does not know is replaced by the one that it sees
    in the whole image.
    """

    batch_figure = "batch_loss_error"

    def open(self, runtime: Runtime, batch: int) -> Teacher:
        return open_for_comparison(self.bundle, runtime, batch * (1 + CROPS))

    def show(self, model: Teacher, places: Sequence[int]) -> dict[str, Array]:
        labels = self._known_labels(model)
        views = [view for place in places for view in views_of(self.images[place], model)]
        repeated = np.repeat(np.array([labels[place] for place in places], np.int32), 1 + CROPS)
        shown = np.stack(views)[:, :, :: -1 if self.mirrors else 1]
        return {"images": np.ascontiguousarray(shown), "labels": repeated}

    def ask(self, model: Teacher, shown: dict[str, Array]) -> Floats:
        found = model.run(shown, ["loss", "logits"])
        classes = found["logits"][:: 1 + CROPS].argmax(axis=1)
        return np.column_stack([classes, found["loss"].reshape(-1, 1 + CROPS)]).astype(np.float32)

    def _known_labels(self, teacher: Teacher) -> tuple[int, ...]:
        """The label of each image, settled by the reference, which comes first."""
        if self.labels is None:
            known = ByClassName.places(self.bundle.classes or ())
            self.labels = tuple(
                teacher.label(image.image.class_name)
                if image.image.class_name in known
                else int(teacher.logits(next(views_of(image, teacher))[None])[0].argmax())
                for image in self.images
            )
        return self.labels

    def figures(self, expected: Floats, found: Floats) -> dict[str, float]:
        same = {"same_class": float((expected[:, 0] == found[:, 0]).mean())}
        return {**loss_figures(expected[:, 1:], found[:, 1:]), **same}

    def error(self, alone: Floats, together: Floats) -> float:
        return super().error(alone[:, 1:], together[:, 1:])


class _Backbone(_Subject):
    """Features [n, channels]."""

    batch_figure = "batch_cosine_distance"

    def open(self, runtime: Runtime, batch: int) -> BatchedNetwork:
        return BatchedNetwork(self.bundle, runtime, batch=batch)

    def show(self, model: BatchedNetwork, places: Sequence[int]) -> dict[str, Array]:
        pixels = [resize(self.images[place].pixels, model.size, "area") for place in places]
        return {"images": np.stack(pixels)}

    def ask(self, model: BatchedNetwork, shown: dict[str, Array]) -> Floats:
        return model.run(shown, ["features"])["features"]

    def figures(self, expected: Floats, found: Floats) -> dict[str, float]:
        return feature_figures(expected, found)

    def error(self, alone: Floats, together: Floats) -> float:
        return cosine_distance(alone, together)


_ROLES: dict[str, type[_Subject]] = {"foreground": _Foreground, "teacher": _Teacher, "backbone": _Backbone}


def _subject(bundle: Bundle, images: Sequence[SampleImage]) -> _Subject:
    if bundle.role not in _ROLES:
        raise SettingsError(
            f"The bundle {bundle.onnx} is a {bundle.role}: no decision of the pipeline depends on it alone",
            f"Bundles of these roles can be compared: {', '.join(_ROLES)}.",
        )
    return _ROLES[bundle.role](bundle, images)


def _whole_batches(items: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Batches of items, which are repeated until the last batch is whole and there are two: one warms up."""
    count = len(items) if batch == 1 else batch * max(2, -(-len(items) // batch))
    return batched(islice(cycle(items), count), batch)


def _clock_of(device: Device) -> Callable[[], float]:
    """On a processor it is its own time that counts, which other programs hardly change."""
    return time.process_time if find_backend(device).on_processor else time.perf_counter
