"""A training set as the command line names it: a distilled data set, or a folder of photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.errors import DataError, SettingsError, TeacherError
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.labels.stored import StoredLabels, open_labels
from fgdd_fast.labels.training_views import ViewRecipe, default_batch
from fgdd_fast.models.network import Teacher
from fgdd_fast.output.distilled import DistilledSet, open_distilled
from fgdd_fast.output.folder import LABEL_INDEX, LABELS, MANIFEST
from fgdd_fast.students.inputs.labelled_images import read_whole
from fgdd_fast.students.inputs.online_labels import OnlineLabels
from fgdd_fast.students.inputs.training_set import TrainingSet

LabelKind = Literal["stored", "online", "hard"]
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
EPOCHS = 300  # RDED's
FOLDER_SIZE = 224  # pixels, of views of a folder of photographs


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user says of the training; None for what the data say.

    Attributes:
        labels: what students learn: the teacher's logits, stored or online, or the true classes.
        size: side of a view in pixels.
        epochs: passes over the images.
        batch: views of a step, which are mixed together.
        seed: of the views, where none are stored.
    """

    labels: LabelKind | None
    size: int | None
    epochs: int | None
    batch: int | None
    seed: int


@dataclass(frozen=True)
class OpenedTraining:
    """A training set, and how it came to be.

    Attributes:
        training: with hard labels, if the teacher has yet to be asked.
        labels: what will be learned.
        epochs: passes over it.
        resize: how its images were resized, and validation images should be.
        stored: the stored labels, where they are learned.
        skipped: photographs that cannot be used.
        sources: SHA-256 of the photographs that it is made of.
    """

    training: TrainingSet
    labels: LabelKind
    epochs: int
    resize: ResizeMethod
    stored: StoredLabels | None = None
    skipped: tuple[Skipped, ...] = ()
    sources: frozenset[str] = frozenset()

    def with_teacher(self, teacher: Teacher) -> TrainingSet:
        """The training set with the labels of a teacher that is asked online."""
        base = self.training
        soft = OnlineLabels(teacher, base.classes, base.images, base.views)
        return replace(base, soft=soft, origin=soft.origin)


def open_training(
    data: Path,
    wishes: Wishes,
    *,
    has_teacher: bool,
    threads: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> OpenedTraining:
    """Open a distilled data set, or a folder of photographs for students of real data.

    Args:
        data: what `fgdd-fast distill` wrote, or a folder with one folder of images for each class.
        wishes: what the user says.
        has_teacher: whether a teacher can be asked.
        threads: that read.
        advance: told how many photographs there are, whenever one is read.

    Raises:
        DataError: data or stored labels are missing, damaged, or do not belong together.
        SettingsError: the wishes contradict each other, or the stored labels.
        TeacherError: soft labels are wanted, and there is nothing that gives them.
    """
    if not (data / MANIFEST).exists():
        return _open_folder(data, wishes, has_teacher, threads, advance)
    distilled = open_distilled(data)
    has_stored = (data / LABELS / LABEL_INDEX).exists()
    kind = wishes.labels or ("stored" if has_stored and not has_teacher else "online")
    if kind == "stored":
        return _open_stored(distilled, wishes)
    if kind == "online" and not has_teacher:
        raise TeacherError(
            f"Students of {data} need a teacher: it has no stored labels, and no teacher is named",
            f"Add --teacher BUNDLE, or store labels: fgdd-fast label {data} --teacher BUNDLE",
        )
    classes = distilled.manifest.classes
    views = _views(wishes, len(distilled), len(classes), size=distilled.size, factor=distilled.factor)
    training = TrainingSet(distilled.read_all(), distilled.labels, classes, views)
    return _opened(distilled, training, kind, wishes.epochs or EPOCHS)


def _open_stored(distilled: DistilledSet, wishes: Wishes) -> OpenedTraining:
    stored = open_labels(distilled)
    views, folder = stored.recipe, distilled.folder / LABELS
    if views is None:
        raise DataError(
            f"The labels in {folder} are of whole images and tiles alone, and students learn from views",
            f"Label epochs: fgdd-fast label {distilled.folder} --teacher BUNDLE --epochs {EPOCHS}",
        )
    for name, wished, has in (("size", wishes.size, views.size), ("batch", wishes.batch, views.batch)):
        if wished not in (None, has):
            raise SettingsError(
                f"The stored labels in {folder} are of views with a {name} of {has}, not {wished}",
                f"Leave --{name} out, or name a teacher with --teacher, which labels online.",
            )
    epochs = wishes.epochs or stored.epochs
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
    return OpenedTraining(training, labels, epochs, method, stored, sources=sources)


def _open_folder(
    data: Path, wishes: Wishes, has_teacher: bool, threads: int, advance: Callable[[int], None]
) -> OpenedTraining:
    """Real data: photographs resized whole to the students' size."""
    kind = wishes.labels or ("online" if has_teacher else "hard")
    if kind == "stored":
        raise SettingsError(
            f"{data} is no distilled data set, so it has no stored labels", "Use --labels online or hard."
        )
    if kind == "online" and not has_teacher:
        raise TeacherError("Online labels need a teacher, and none is named", "Add: --teacher BUNDLE")
    size = wishes.size or FOLDER_SIZE
    found = read_whole(data, size, threads=threads, advance=advance)
    views = _views(wishes, len(found.images), len(found.classes), size=size, factor=1)
    training = TrainingSet(found.images, found.labels, found.classes, views)
    epochs, sources = wishes.epochs or EPOCHS, frozenset(found.hashes)
    return OpenedTraining(training, kind, epochs, "area", skipped=found.skipped, sources=sources)


def _views(wishes: Wishes, images: int, classes: int, *, size: int, factor: int) -> ViewRecipe:
    """RDED's views, for images of a size."""
    return ViewRecipe(
        size=wishes.size or size,
        factor=factor,
        batch=wishes.batch or default_batch(classes, max(round(images / classes), 1)),
        seed=wishes.seed,
    )
