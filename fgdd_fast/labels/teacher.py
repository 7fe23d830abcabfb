"""Which teacher may label a distilled data set: one that knows its classes, by name and by sight."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import TeacherError
from fgdd_fast.models.linear_head import CHANCE_P_VALUE, Accuracy, compare, swapped_classes
from fgdd_fast.models.network import check_classes
from fgdd_fast.output.distilled import DistilledSet
from fgdd_fast.output.manifest import Model

_log = logging.getLogger(__name__)


def teacher_model(bundle: Bundle) -> Model:
    """Return who a bundle is, as manifests name it: what was made of a teacher stands for it."""
    return Model(bundle.name, bundle.tile_of or bundle.variant_of or bundle.sha256)


def check_labelling_teacher(bundle: Bundle, distilled: DistilledSet, *, other_teacher: bool) -> None:
    """Make sure that a teacher may label a distilled data set.

    Raises:
        TeacherError: it lacks a class, or is not the one by which the data set was distilled and
            `other_teacher` is not set.
    """
    check_classes(bundle, distilled.manifest.classes)
    model, named = teacher_model(bundle), distilled.manifest.models["teacher"]
    if model.sha256 != named.sha256 and not other_teacher:
        raise TeacherError(
            f"The teacher {model.name} ({model.sha256[:12]}) is not the one that {distilled.folder} was "
            f"distilled with: {named.name} ({named.sha256[:12]})",
            "Name that one, or pass --other-teacher to have the labels of this one.",
        )


def check_predictions(
    mosaics: NDArray[np.int64],
    tiles: NDArray[np.int64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    name: str,
) -> None:
    """Refuse a teacher whose predictions contradict the classes of the images.

    It is judged by what it knows better, whole images or tiles: it need not know small tiles as they are
    shown to it.

    Args:
        mosaics: the classes predicted of the images shown whole, [n].
        tiles: those of their tiles, [n, tiles].
        labels: classes of the images, as indices, [n].
        classes: names in the order of the indices.
        name: of the teacher.

    Raises:
        TeacherError: it takes whole classes for each other, or is no better than guessing.
    """
    judged, kind = max(
        (compare(mosaics, labels, classes), "images"),
        (compare(tiles.reshape(-1), np.repeat(labels, tiles.shape[1]), classes), "tiles"),
        key=lambda pair: pair[0].top1,
    )
    refuse_wrong_teacher(judged, name, kind)


def refuse_wrong_teacher(judged: Accuracy, name: str, kind: str) -> None:
    """Refuse a teacher that students had better not listen to.

    Class names in another order than the teacher's outputs give no error of their own: its labels would only
    teach the wrong thing. Of too few images to tell there is a warning.

    Args:
        judged: how often it is right.
        name: of the teacher.
        kind: what it was shown, such as `images`.

    Raises:
        TeacherError: it takes whole classes for each other, or is no better than guessing.
    """
    advice = "Try it on photographs: fgdd-fast teacher check BUNDLE DATA"
    if swapped := swapped_classes(judged.confusion):
        pairs = "; ".join(
            f"{kind} of {judged.classes[one]!r} are taken for {judged.classes[other]!r}"
            for one, other in swapped
        )
        raise TeacherError(
            f"The class names of the teacher {name} are not in the order of its outputs: {pairs}", advice
        )
    if judged.above_chance():
        return
    says = f"{judged.top1:.1%} of {judged.images} {kind} are right, and guessing gets {judged.chance:.1%}"
    if judged.chance**judged.images < CHANCE_P_VALUE:
        raise TeacherError(f"The teacher {name} is no better than guessing on {kind}: {says}", advice)
    _log.warning("Too few %s to tell whether the teacher %s knows these classes: %s", kind, name, says)
