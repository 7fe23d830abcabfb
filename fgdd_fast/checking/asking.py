"""What a teacher and a foreground model say of the images of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import MissingExtraError
from fgdd_fast.images.dataset import DataSet, SourceImage
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.factory import open_foreground
from fgdd_fast.models.foreground import ForegroundChoice
from fgdd_fast.models.linear_head import fit_head, whole_images
from fgdd_fast.models.network import BatchedNetwork, Images
from fgdd_fast.runtime.choose import RuntimeOptions, batch_of, runtime_of
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.selection.records import ImageRecord

FOLDS = 5


@dataclass(frozen=True)
class Answers:
    """What is known of the class of each image.

    Attributes:
        images: that could be used.
        labels: the place of each one's class among `classes`, [n].
        classes: names of folders.
        probabilities: of the classes, float64 [n, classes], by a network that did not learn from the image
            where `cross_validated`; else by the teacher. None where neither can say.
        losses: the teacher's cross-entropies (nats), float64 [n]; None where it does not know the classes.
        cross_validated: whether the probabilities are those of linear classifiers on features, each fitted
            on the images of other folds.
    """

    images: tuple[SourceImage, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64] | None
    losses: NDArray[np.float64] | None
    cross_validated: bool


@dataclass(frozen=True)
class Models:
    """The models that are asked.

    Attributes:
        data: the data set.
        images: those that are looked at.
        teacher: a teacher, or a backbone, which has features alone; None for none.
        choice: the foreground model; None for none.
        store: the folder that keeps what foregrounds were found.
        resize, sixteen_bit: how images are resized, and how those of 16 bits are read.
        runtime: how the models run.
        progress: told how far they are.
    """

    data: DataSet
    images: tuple[SourceImage, ...]
    teacher: Bundle | None
    choice: ForegroundChoice | None
    store: Path
    resize: ResizeMethod = "area"
    sixteen_bit: SixteenBit = "shift"
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    progress: Progress = SILENT

    @cached_property
    def answers(self) -> Answers | None:
        """What the teacher, or a classifier on its features, says; None without a teacher."""
        if self.teacher is None:
            return None
        outputs = [spec.name for spec in self.teacher.outputs if spec.name in ("logits", "features")]
        parts, images = self._run(self.teacher, outputs)
        place = {name: index for index, name in enumerate(self.data.classes)}
        labels = np.array([place[image.class_name] for image in images])
        logits = self._own_logits(parts.get("logits"))
        own = None if logits is None else _softmax(logits)
        losses = None if own is None else -np.log(np.maximum(own[np.arange(len(labels)), labels], 1e-300))
        fitted = None
        if "features" in parts:
            sources = [image.source for image in images]
            fitted = cross_validated(parts["features"], labels, sources, len(place))
        return Answers(
            images,
            labels,
            self.data.classes,
            own if fitted is None else fitted,
            losses,
            fitted is not None,
        )

    def _own_logits(self, logits: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """The logits of the folders' classes, if the teacher knows them all."""
        known = {} if self.teacher is None else {name: i for i, name in enumerate(self.teacher.classes or ())}
        if logits is None or not set(self.data.classes) <= set(known):
            return None
        return logits[:, [known[name] for name in self.data.classes]]

    def _run(
        self, bundle: Bundle, outputs: Sequence[str]
    ) -> tuple[dict[str, NDArray[np.float32]], tuple[SourceImage, ...]]:
        network = BatchedNetwork(
            bundle, runtime_of(bundle, self.runtime), batch=batch_of(bundle, self.runtime)
        )
        widths: list[int] = []
        needs_labels = any(spec.name == "labels" for spec in bundle.inputs)

        def run(images: Images) -> NDArray[np.float32]:
            labels = {"labels": np.zeros(len(images), np.int32)} if needs_labels else {}
            found = network.run({"images": images, **labels}, outputs)
            widths[:] = [found[name].shape[1] for name in outputs]
            return np.concatenate([found[name] for name in outputs], axis=1)

        with closing(network), self.progress.task("Asking the teacher", len(self.images)) as task:
            joined, images, _ = whole_images(
                self.images,
                network,
                run,
                method=self.resize,
                sixteen_bit=self.sixteen_bit,
                threads=self.runtime.threads,
                advance=task.advance,
            )
        parts = np.split(joined, np.cumsum(widths)[:-1], axis=1)
        return dict(zip(outputs, parts, strict=True)), images

    @cached_property
    def occupancies(self) -> Mapping[str, Sequence[float]]:
        """The occupancies that the foreground model finds, by class; empty without one."""
        if self.choice is None:
            return {}
        batch = batch_of(self.choice.source, self.runtime)
        settings = MeasureSettings(
            1, 0, self.resize, batch, self.runtime.threads, sixteen_bit=self.sixteen_bit
        )
        found: dict[str, list[float]] = {}
        with Store(self.store) as store:
            model = open_foreground(
                self.choice,
                runtime=lambda bundle: runtime_of(bundle, self.runtime),
                batch=batch,
                resize=self.resize,
                threads=self.runtime.threads,
            )
            with closing(model):
                measurer = Measurer(model, None, settings, store, self.data.classes)
                measurer.measure(self.images, progress=self.progress)
                for record in measurer.records(self.images):
                    if isinstance(record, ImageRecord):
                        found.setdefault(record.class_name, []).append(record.occupancy)
        return found


def cross_validated(
    features: NDArray[np.float32], labels: NDArray[np.int64], sources: Sequence[str], classes: int
) -> NDArray[np.float64] | None:
    """Return the probabilities of the classes, each by a linear classifier that did not see the image.

    Args:
        features: float32 [n, channels].
        labels: the images' classes from 0, [n].
        sources: their names, by which the folds are drawn.
        classes: how many there are.

    Returns:
        float64 [n, classes]. Of a class with fewer images than folds all are learned from, none is judged:
        its own class has the probability 1. None where fewer than two classes can be judged, or where
        scikit-learn is not installed.
    """
    present = np.unique(labels)
    judged = present[np.bincount(labels)[present] >= FOLDS]
    if len(judged) < 2:
        return None
    drawn = [seeded_hash("fgdd folds", 0, source).digest() for source in sources]
    fold = np.full(len(labels), -1)
    for label in judged:
        members = sorted(np.flatnonzero(labels == label).tolist(), key=drawn.__getitem__)
        fold[members] = np.arange(len(members)) % FOLDS
    places = np.searchsorted(present, labels)
    shares = np.zeros((len(labels), classes))
    shares[np.arange(len(labels)), labels] = 1
    for held in (fold == place for place in range(FOLDS)):
        try:
            head = fit_head(features[~held], places[~held])
        except MissingExtraError:
            return None
        shares[np.ix_(held, present)] = _softmax(head.logits(features[held]))
    return shares


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)
