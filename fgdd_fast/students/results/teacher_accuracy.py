"""How often the teacher is right about the images that judge its students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fgdd_fast.images.dataset import scan
from fgdd_fast.images.depth import SixteenBit
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.labels.teacher import refuse_wrong_teacher
from fgdd_fast.models.linear_head import Accuracy, accuracy, whole_images
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
    sixteen_bit: SixteenBit = "shift",
    threads: int,
    advance: Callable[[], None] = lambda: None,
) -> Accuracy:
    """Return the teacher's accuracy on a folder of photographs, each resized whole to the teacher's input.

    Args:
        teacher: opened for tiles of the size of its input.
        folder: holds one folder of images for each class.
        classes: their names; the teacher knows them all.
        method: how images are resized.
        sixteen_bit: how samples of 16 bits are read; see `fgdd_fast.images.depth`.
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
        sixteen_bit=sixteen_bit,
        threads=threads,
        advance=advance,
    )
    place = {name: label for label, name in enumerate(classes)}
    judged = accuracy(logits, np.array([place[image.class_name] for image in used]), classes)
    refuse_wrong_teacher(judged, teacher.bundle.name, f"images in {folder}")
    return judged


def accuracy_on_views(teacher: Teacher, validation: LabelledImages) -> Accuracy:
    """Return the teacher's accuracy on what students are shown of the validation images.

    Args:
        teacher: opened for tiles of the size of these images.
        validation: the images.
    """
    chunks = range(0, len(validation.images), _CHUNK)
    answers = [
        class_logits(teacher, validation.images[start : start + _CHUNK], validation.classes)
        for start in chunks
    ]
    return accuracy(np.concatenate(answers), validation.labels, validation.classes)
