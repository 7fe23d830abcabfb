"""The result of an evaluation, as JSON values."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fgdd_fast.models.linear_head import Accuracy
from fgdd_fast.output.manifest import Model
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.opening import OpenedTraining
from fgdd_fast.students.results.result import StudentResult
from fgdd_fast.students.results.summary import summarise
from fgdd_fast.students.training.recipe import StudentRecipe

FORMAT = 1


@dataclass(frozen=True)
class JudgedTeacher:
    """The teacher's own accuracy on the validation images.

    Attributes:
        model: which teacher.
        photographs: shown each image whole, at the size of its input.
        views: shown what students are shown.
    """

    model: Model
    photographs: Accuracy
    views: Accuracy


def chance(validation: LabelledImages) -> float:
    """Share of the validation images that always naming the most frequent class gets right."""
    counts = [int((validation.labels == label).sum()) for label in range(len(validation.classes))]
    return max(counts) / len(validation.labels)


def balanced(judged: Accuracy) -> float:
    """Mean over the classes of the share of each one's images that is right."""
    return statistics.fmean(judged.per_class.values())


def report(
    opened: OpenedTraining,
    validation: LabelledImages,
    recipe: StudentRecipe,
    results: Sequence[StudentResult],
    *,
    teacher: JudgedTeacher | None,
    environment: Mapping[str, object],
) -> dict[str, Any]:
    """Gather the result of an evaluation.

    Args:
        opened: what students learned from.
        validation: what judged them.
        recipe: how they were trained.
        results: the students.
        teacher: where one was at hand.
        environment: what it was computed with.
    """
    training = opened.training
    return {
        "format": FORMAT,
        "training": {
            "images": len(training.images),
            "classes": list(training.classes),
            "labels": opened.labels,
            "teacher": None if opened.stored is None else asdict(opened.stored.teacher),
            "views": asdict(training.views),
            "skipped": [asdict(item) for item in opened.skipped],
        },
        "recipe": asdict(recipe),
        "validation": {
            "images": len(validation.images),
            "chance": chance(validation),
            "labels": validation.labels.tolist(),
            "skipped": [asdict(item) for item in validation.skipped],
        },
        "teacher": None if teacher is None else _teacher(teacher),
        "architectures": {
            summary.architecture: summary.to_json() for summary in summarise(results, training.classes)
        },
        "students": [result.to_json() for result in results],
        "environment": dict(environment),
    }


def _teacher(teacher: JudgedTeacher) -> dict[str, Any]:
    shown = {"photographs": teacher.photographs, "views": teacher.views}
    return {
        **asdict(teacher.model),
        **{
            name: {
                "top1": judged.top1,
                "balanced": balanced(judged),
                "images": judged.images,
                "per_class": judged.per_class,
            }
            for name, judged in shown.items()
        },
    }
