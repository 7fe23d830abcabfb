"""How often the teacher is right about the images that judge its students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import TeacherError
from fgdd_fast.images.dataset import scan
from fgdd_fast.images.resize import Pixels, ResizeMethod
from fgdd_fast.models.linear_head import CHANCE_P_VALUE, Accuracy, accuracy, swapped_classes, whole_images
from fgdd_fast.models.network import Teacher
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.training_set import class_logits

_CHUNK = 64  # images held enlarged to the teacher's input


def accuracy_on_photographs(
    teacher: Teacher,
    folder: Path,
    classes: Sequence[str],
    *,
    method: ResizeMethod,
    threads: int,
    advance: Callable[[], None] = lambda: None,
) -> Accuracy:
    """The teacher's accuracy on a folder of photographs, each resized whole to the teacher's input.

    Args:
        teacher: opened for tiles of the size of its input.
        folder: holds one folder of images for each class.
        classes: their names; the teacher knows them all.
        method: how images are resized.
        threads: that read.
        advance: called once for each image.

    Raises:
        DataError: the folder cannot be read, or not one image of it.
        TeacherError: the teacher takes classes for each other, or is no better than guessing.
    """
    columns = [teacher.label(name) for name in classes]
    logits, used, _ = whole_images(
        scan(folder).images,
        teacher,
        lambda images: teacher.logits(images)[:, columns],
        method=method,
        threads=threads,
        advance=advance,
    )
    place = {name: label for label, name in enumerate(classes)}
    judged = accuracy(logits, np.array([place[image.class_name] for image in used]), classes)
    refuse_wrong_teacher(judged, teacher.bundle.name, folder)
    return judged


def accuracy_on_views(teacher: Teacher, validation: LabelledImages) -> Accuracy:
    """The teacher's accuracy on what students are shown of the validation images.

    Args:
        teacher: opened for tiles of the size of these images.
        validation: the images.
    """

    def logits(images: Pixels) -> NDArray[np.float32]:
        return class_logits(teacher, images, validation.classes)

    chunks = range(0, len(validation.images), _CHUNK)
    answers = np.concatenate([logits(validation.images[start : start + _CHUNK]) for start in chunks])
    return accuracy(answers, validation.labels, validation.classes)


def refuse_wrong_teacher(judged: Accuracy, name: str, folder: Path) -> None:
    """Refuse a teacher that students had better not listen to.

    Too few images to tell it from guessing are accepted.

    Raises:
        TeacherError: it takes classes for each other, or is no better than guessing.
    """
    if swapped := swapped_classes(judged.confusion):
        pairs = "; ".join(
            f"'{judged.classes[one]}' is taken for '{judged.classes[other]}'" for one, other in swapped
        )
        raise TeacherError(
            f"The teacher {name} names the classes of {folder} in another order: {pairs}",
            "Correct the order of 'classes' in its sidecar, or the names of the folders.",
        )
    if not judged.above_chance() and judged.chance**judged.images < CHANCE_P_VALUE:
        raise TeacherError(
            f"The teacher {name} is no better than guessing on {folder}: {judged.top1:.1%} of "
            f"{judged.images} images are right, and always naming the most frequent class gets "
            f"{judged.chance:.1%}",
            "Is it the right teacher, and are the labels right? Try: fgdd-fast teacher check BUNDLE FOLDER",
        )
