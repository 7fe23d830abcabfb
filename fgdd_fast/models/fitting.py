"""Fit a teacher on one's own images, and check one against them before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.class_names import ByClassName, order_of_numbers
from fgdd_fast.errors import DataError, SettingsError, TeacherError
from fgdd_fast.images.dataset import DataSet, Skipped, SourceImage, pool, scan
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.images.groups import grouping, hold_out_groups
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.linear_head import (
    Accuracy,
    Head,
    accuracy,
    fit_head,
    hold_out,
    swapped_classes,
    whole_images,
)
from fgdd_fast.models.network import BatchedNetwork, Images, Teacher, check_classes
from fgdd_fast.runtime.choose import RuntimeOptions, batch_of, runtime_of

BACKBONE = "imagenet-efficientnet-lite0"
TILE = 112  # pixels of a tile's side: mosaics of 224 at factor 2


@dataclass(frozen=True)
class JudgedTeacher:
    """A teacher, and how often it is right about images that it was not fitted on.

    Attributes:
        bundle: the teacher.
        accuracy: by class.
        skipped: the images that cannot be used.
    """

    bundle: Bundle
    accuracy: Accuracy
    skipped: tuple[Skipped, ...]


class PoorTeacherError(TeacherError):
    """A teacher that is no better than guessing, or takes whole classes for each other.

    Args:
        problem, advice: see `FgddError`.
        accuracy: how often it is right.
    """

    def __init__(self, problem: str, advice: str, accuracy: Accuracy) -> None:
        super().__init__(problem, advice)
        self.accuracy = accuracy


def fit_teacher(
    data: str | Path | DataSet,
    path: str | Path,
    *,
    backbone: str = BACKBONE,
    validation: str | Path | None = None,
    held_out: float = 0.2,
    group: str | None = None,
    seed: int = 0,
    resize: ResizeMethod = "area",
    sixteen_bit: SixteenBit = "shift",
    force: bool = False,
    tile: int | None = TILE,
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
) -> JudgedTeacher:
    """Fit a linear classifier on the features of a frozen backbone, and write both as one bundle.

    Args:
        data: a folder with one folder of images for each class, or what `fgdd_fast.open_data` opened.
        path: of the bundle's ONNX file, whose suffix may be left out.
        backbone: gives the features: a name of the catalogue, or a bundle's path.
        validation: a folder of held-out images; a part of `data` is held out when None.
        held_out: share of each class that is held out, in (0, 1).
        group: a regular expression that finds in an image's path, such as `cat/film2/017.jpg`, what names the
            images that are held out together; see `fgdd_fast.images.groups`. None takes each for itself.
        seed: of what is held out, at least 0.
        resize: how images are resized.
        sixteen_bit: how images of 16 bits are read: `shift` or `scale`; see `fgdd_fast.images.depth`.
        force: write the bundle even if it is no better than guessing.
        tile: side of the tiles in pixels for which a cropped-input graph is written beside it; None for none.
        runtime: how the backbone runs; the fastest that decides as the reference does by default.
        progress: told how far the reading of images is.

    Raises:
        PoorTeacherError: it is no better than guessing, and `force` is not set; nothing is written.
        FgddError: the images or the backbone cannot be used.
    """
    dataset = data if isinstance(data, DataSet) else scan(Path(data))
    images, others = _split(dataset, None if validation is None else Path(validation), held_out, seed, group)
    bundle, options = find_bundle(backbone, "backbone"), runtime or RuntimeOptions()
    network = BatchedNetwork(bundle, runtime_of(bundle, options, progress), batch=batch_of(bundle, options))
    with closing(network):
        run = _features_of(network)
        reading = _Reading(network, dataset.classes, run, resize, sixteen_bit, options.threads, progress)
        features, labels = reading.read(images)
        held_features, held_labels = reading.read(others)
        arithmetic = network.engine.arithmetic
    _check_present(dataset.classes, labels)
    with progress.task("Fitting"):
        head = fit_head(features, labels)
    judged = accuracy(head.logits(held_features), held_labels, dataset.classes)
    if not force:
        _refuse_guessing_head(judged)
    description = {
        "source": {"fitted_on": {"images": len(labels), "seed": seed, "resize": resize}},
        "accuracy": _described(judged, None if validation else held_out, group, arithmetic),
    }
    fitted = _write(bundle, head, dataset.classes, Path(path), description, tile)
    return JudgedTeacher(fitted, judged, tuple(reading.skipped))


def _refuse_guessing_head(judged: Accuracy) -> None:
    if not judged.above_chance():
        raise PoorTeacherError(
            f"The teacher is no better than guessing: {judged.top1:.1%} of {judged.images} held-out images "
            f"are right, and always naming the most frequent class gets {judged.chance:.1%}",
            "Check the labels, add images, or name another --backbone; --force writes it all the same.",
            judged,
        )


def _write(
    backbone: Bundle,
    head: Head,
    classes: Sequence[str],
    path: Path,
    description: Mapping[str, Mapping[str, Any]],
    tile: int | None,
) -> Bundle:
    """Write backbone and head as a teacher, and its cropped-input graph beside it."""
    from fgdd_export.classifier.teacher import build_teacher  # noqa: PLC0415 - needs the extra `models`
    from fgdd_export.tile.bundle import make_cropped_graph  # noqa: PLC0415

    onnx = path if path.suffix == ".onnx" else path.with_name(f"{path.name}.onnx")
    fitted = build_teacher(backbone, head.weight, head.bias, classes, onnx, **description)
    if tile is not None and fitted.preprocessing.pad_value is not None:
        make_cropped_graph(fitted, tile)
    return fitted


def check_teacher(
    bundle: str | Path,
    data: str | Path,
    *,
    limit: int | None = 20,
    seed: int = 0,
    resize: ResizeMethod = "area",
    sixteen_bit: SixteenBit = "shift",
    runtime: RuntimeOptions | None = None,
    progress: Progress = SILENT,
) -> JudgedTeacher:
    """Check that a teacher knows the classes of a data set, by name and by sight.

    Class names in another order than the teacher's outputs give chance accuracy without any error: this says
    which folder is taken for which class.

    Args:
        bundle: the teacher: a bundle's path, or a name of the catalogue.
        data: a folder with one folder of images for each class.
        limit: images tried of each class; None for all.
        seed: of which images are tried, at least 0.
        resize: how images are resized.
        sixteen_bit: how images of 16 bits are read; see `fit_teacher`.
        runtime: how the teacher runs; the fastest that decides as the reference does by default.
        progress: told how far the reading of images is.

    Raises:
        PoorTeacherError: it takes classes for each other, or is no better than guessing.
        FgddError: the images or the teacher cannot be used, or it lacks a class.
    """
    dataset = scan(Path(data))
    teacher = find_bundle(str(bundle), "teacher")
    check_classes(teacher, dataset.classes)
    classes = teacher.classes or ()
    images = pool(dataset, limit, seed)
    logits, labels, skipped = ask_teacher(
        teacher,
        images,
        classes,
        resize=resize,
        sixteen_bit=sixteen_bit,
        runtime=runtime or RuntimeOptions(),
        progress=progress,
    )
    judged = accuracy(logits, labels, classes)
    _refuse_wrong_teacher(teacher, judged)
    return JudgedTeacher(teacher, judged, skipped)


def ask_teacher(
    teacher: Bundle,
    images: Sequence[SourceImage],
    classes: Sequence[str],
    *,
    resize: ResizeMethod,
    sixteen_bit: SixteenBit = "shift",
    runtime: RuntimeOptions,
    progress: Progress,
) -> tuple[NDArray[np.float32], NDArray[np.int64], tuple[Skipped, ...]]:
    """Ask a teacher about whole images.

    Args:
        teacher: the bundle.
        images: of these classes.
        classes: names in the order of the labels.
        resize: how images are resized.
        sixteen_bit: how samples of 16 bits are read; see `fgdd_fast.images.depth`.
        runtime: how the teacher runs.
        progress: told how far the reading of images is.

    Returns:
        Its logits, float32 [n, outputs], of the n images that can be used; their labels, [n]; the others.
    """
    network = Teacher(
        teacher,
        runtime_of(teacher, runtime, progress),
        view="native",
        tile_size=teacher.preprocessing.width,
        batch=batch_of(teacher, runtime),
    )
    with closing(network):
        reading = _Reading(network, classes, network.logits, resize, sixteen_bit, runtime.threads, progress)
        logits, labels = reading.read(images)
    return logits, labels, tuple(reading.skipped)


def _refuse_wrong_teacher(teacher: Bundle, judged: Accuracy) -> None:
    classes = judged.classes
    if swapped := swapped_classes(judged.confusion):
        pairs = "; ".join(
            f"images in the folder '{classes[folder]}' are taken for '{classes[taken]}'"
            for folder, taken in swapped
        )
        raise PoorTeacherError(
            f"The teacher's class names are not in the order of its outputs: {pairs}"
            + order_of_numbers([(classes[folder], classes[taken]) for folder, taken in swapped], classes),
            "Write it anew with the names of the folders: "
            f"fgdd-fast teacher rename {teacher.onnx} --from DATA -o RENAMED",
            judged,
        )
    if not judged.above_chance():
        raise PoorTeacherError(
            f"The teacher is no better than guessing on these images: {judged.top1:.1%} of {judged.images} "
            "are right",
            "Is it the right teacher, and are the labels right? To fit one: fgdd-fast teacher fit",
            judged,
        )


def _described(judged: Accuracy, share: float | None, group: str | None, arithmetic: str) -> dict[str, Any]:
    """What the bundle says of its accuracy; `share` is held out of each class, None for another folder."""
    held_out = "validation folder" if share is None else f"{share:g} of each class"
    return {
        "top1": judged.top1,
        "images": judged.images,
        "held_out": held_out if group is None or share is None else f"{held_out}, in groups by {group}",
        "per_class": judged.per_class,
        "features": arithmetic,
    }


def _split(
    dataset: DataSet, validation: Path | None, share: float, seed: int, group: str | None
) -> tuple[tuple[SourceImage, ...], tuple[SourceImage, ...]]:
    """The images to fit on, and those held out: a share of each class, or all of another folder."""
    if len(dataset.classes) < 2:
        raise TeacherError(f"{dataset.given} has one class, and a teacher must tell at least two apart")
    if validation is None:
        if group is None:
            fitting, held = hold_out(dataset.images, share, seed)
        else:
            fitting, held = hold_out_groups(dataset.images, share, seed, grouping(group))
        if not held:
            raise DataError(
                f"No image of {dataset.given} can be held out: every class has a single "
                + ("one" if group is None else f"group by {group!r}"),
                "Add images, or name held-out ones with --validation.",
            )
        return fitting, held
    other = scan(validation)
    known = ByClassName.places(dataset.classes)
    unknown = [name for name in other.classes if name not in known]
    if unknown:
        raise SettingsError(
            f"{validation} has classes that the images to fit on lack: {', '.join(map(repr, unknown))}",
            "Both folders need the same class folders.",
        )
    return dataset.images, other.images


def _check_present(classes: Sequence[str], labels: NDArray[np.int64]) -> None:
    absent = sorted(set(range(len(classes))) - set(labels.tolist()))
    if absent:
        raise DataError(
            f"No image of the class '{classes[absent[0]]}' is left to fit on",
            "Add images to it, or remove its folder.",
        )


def _features_of(network: BatchedNetwork) -> Callable[[Images], NDArray[np.float32]]:
    return lambda images: network.run({"images": images}, ["features"])["features"]


@dataclass
class _Reading:
    """Reads images and asks a network about them whole; gathers those that cannot be used."""

    network: BatchedNetwork
    classes: Sequence[str]
    run: Callable[[Images], NDArray[np.float32]]
    method: ResizeMethod
    sixteen_bit: SixteenBit
    threads: int
    progress: Progress

    def __post_init__(self) -> None:
        self.skipped: list[Skipped] = []

    def read(self, images: Sequence[SourceImage]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What the network says of each image [n, ...], and the images' labels [n]."""
        with self.progress.task("Reading images", len(images)) as task:
            results, used, skipped = whole_images(
                images,
                self.network,
                self.run,
                method=self.method,
                sixteen_bit=self.sixteen_bit,
                threads=self.threads,
                advance=task.advance,
            )
        self.skipped += skipped
        index = ByClassName.places(self.classes)
        return results, np.array([index[image.class_name] for image in used])
