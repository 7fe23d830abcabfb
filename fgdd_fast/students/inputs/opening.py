"""A training set by its folder: a distilled data set, or a folder of photographs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import DataError, SettingsError, TeacherError
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.labels.stored import StoredLabels, open_labels
from fgdd_fast.labels.training_views import ViewRecipe, default_batch
from fgdd_fast.models.network import Teacher
from fgdd_fast.output.distilled import DistilledSet, open_distilled
from fgdd_fast.output.folder import LABEL_INDEX, LABELS, MANIFEST
from fgdd_fast.students.inputs.labelled_images import read_whole
from fgdd_fast.students.inputs.training_set import OnlineLabels, TrainingSet

LabelKind = Literal["stored", "online", "hard"]
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
EPOCHS = 300  # RDED's
FOLDER_SIZE = 224  # pixels, of views of a folder of photographs


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What is asked of the training; None for what the data say.

    Attributes:
        labels: what students learn: the teacher's logits, stored or online, or the true classes.
        size: side of a view in pixels.
        epochs: passes over the images.
        batch: views of a step, which are mixed together.
        seed: of the views, where none are stored.
    """

    labels: LabelKind | None = None
    size: int | None = None
    epochs: int | None = None
    batch: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class OpenedTraining:
    """A training set, and how it came to be.

    Attributes:
        training: with hard labels, if the teacher has yet to be asked.
        labels: what will be learned.
        epochs: passes over it.
        resize: how its images were resized, and validation images should be.
        sixteen_bit: how those of 16 bits were read, and should be; likewise.
        stored: the stored labels, where they are learned.
        skipped: photographs that cannot be used.
        sources: SHA-256 of the photographs that it is made of.
    """

    training: TrainingSet
    labels: LabelKind
    epochs: int
    resize: ResizeMethod
    sixteen_bit: SixteenBit = "shift"
    stored: StoredLabels | None = None
    skipped: tuple[Skipped, ...] = ()
    sources: frozenset[str] = frozenset()

    def with_teacher(self, teacher: Teacher) -> TrainingSet:
        """Return the training set with the labels of a teacher that is asked online."""
        base = self.training
        soft = OnlineLabels(teacher, base.classes, base.images, base.views)
        return replace(base, soft=soft, origin=soft.origin)


def open_training(
    data: Path,
    asked: TrainingOptions,
    *,
    has_teacher: bool,
    threads: int = 1,
    progress: Progress = SILENT,
) -> OpenedTraining:
    """Open a distilled data set, or a folder of photographs for students of real data.

    Args:
        data: what `fgdd-fast distill` wrote, or a folder with one folder of images for each class.
        asked: how it is trained on.
        has_teacher: whether a teacher can be asked.
        threads: that read.
        progress: shows how many photographs are read.

    Raises:
        DataError: data or stored labels are missing, damaged, or do not belong together.
        SettingsError: what is asked contradicts itself, or the stored labels.
        TeacherError: soft labels are wanted, and there is nothing that gives them.
    """
    if not (data / MANIFEST).exists():
        return _open_folder(data, asked, has_teacher, threads, progress)
    distilled = open_distilled(data)
    has_stored = (data / LABELS / LABEL_INDEX).exists()
    kind = asked.labels or ("stored" if has_stored and not has_teacher else "online")
    if kind == "stored":
        return _open_stored(distilled, asked)
    if kind == "online" and not has_teacher:
        raise TeacherError(
            f"Students of {data} need a teacher: it has no stored labels, and no teacher is named",
            f"Add --teacher BUNDLE, or store labels: fgdd-fast label {data} --teacher BUNDLE",
        )
    classes = distilled.manifest.classes
    views = _views(asked, len(distilled), len(classes), size=distilled.size, factor=distilled.factor)
    training = TrainingSet(distilled.read_all(), distilled.labels, classes, views)
    return _opened(distilled, training, kind, asked.epochs or EPOCHS)


def _open_stored(distilled: DistilledSet, asked: TrainingOptions) -> OpenedTraining:
    stored = open_labels(distilled)
    views, folder = stored.recipe, distilled.folder / LABELS
    if views is None:
        raise DataError(
            f"The labels in {folder} are of whole images and tiles alone, and students learn from views",
            f"Label epochs: fgdd-fast label {distilled.folder} --teacher BUNDLE --epochs {EPOCHS}",
        )
    for name, wanted, has in (("size", asked.size, views.size), ("student-batch", asked.batch, views.batch)):
        if wanted not in (None, has):
            raise SettingsError(
                f"The stored labels in {folder} are of views with a {name.replace('-', ' ')} of {has}, not "
                f"{wanted}",
                f"Leave --{name} out, or name a teacher with --teacher, which labels online.",
            )
    epochs = asked.epochs or stored.epochs
    if epochs > stored.epochs:
        raise SettingsError(
            f"The stored labels in {folder} are of {stored.epochs} epochs, and {epochs} are asked for",
            f"Label more: fgdd-fast label {distilled.folder} --teacher BUNDLE --epochs {epochs}",
        )
    training = TrainingSet(
        distilled.read_all(),
        distilled.labels,
        distilled.manifest.classes,
        views,
        soft=stored.epoch,
        origin=file_sha256(folder / LABEL_INDEX),
    )
    return _opened(distilled, training, "stored", epochs, stored)


def _opened(
    distilled: DistilledSet,
    training: TrainingSet,
    labels: LabelKind,
    epochs: int,
    stored: StoredLabels | None = None,
) -> OpenedTraining:
    tiles = (tile for image in distilled.manifest.images for tile in image.tiles)
    sources = frozenset(tile.sha256 for tile in tiles)
    method: ResizeMethod = "pil" if distilled.manifest.settings.get("resize") == "pil" else "area"
    depth: SixteenBit = "scale" if distilled.manifest.settings.get("sixteen_bit") == "scale" else "shift"
    return OpenedTraining(training, labels, epochs, method, depth, stored, sources=sources)


def _open_folder(
    data: Path, asked: TrainingOptions, has_teacher: bool, threads: int, progress: Progress
) -> OpenedTraining:
    """Real data: photographs resized whole to the students' size."""
    kind = asked.labels or ("online" if has_teacher else "hard")
    if kind == "stored":
        raise SettingsError(
            f"{data} is no distilled data set, so it has no stored labels", "Use --labels online or hard."
        )
    if kind == "online" and not has_teacher:
        raise TeacherError("Online labels need a teacher, and none is named", "Add: --teacher BUNDLE")
    size = asked.size or FOLDER_SIZE
    found = read_whole(data, size, threads=threads, progress=progress)
    views = _views(asked, len(found.images), len(found.classes), size=size, factor=1)
    training = TrainingSet(found.images, found.labels, found.classes, views)
    epochs, sources = asked.epochs or EPOCHS, frozenset(found.hashes)
    return OpenedTraining(training, kind, epochs, "area", skipped=found.skipped, sources=sources)


def _views(asked: TrainingOptions, images: int, classes: int, *, size: int, factor: int) -> ViewRecipe:
    """RDED's views, for images of a size."""
    return ViewRecipe(
        size=asked.size or size,
        factor=factor,
        batch=asked.batch or default_batch(classes, max(round(images / classes), 1)),
        seed=asked.seed,
    )
