"""The result of an evaluation: as JSON values, and as a picture of the curves."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fgdd_engines.optional_imports import import_optional
from fgdd_fast.models.linear_head import Accuracy
from fgdd_fast.output.manifest import Model
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.opening import OpenedTraining
from fgdd_fast.students.results.result import StudentResult, summarise
from fgdd_fast.students.training.recipe import StudentRecipe

FORMAT = 1
# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_GREY = "#777777"


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


def draw_curves(results: Sequence[StudentResult], levels: Mapping[str, float]) -> bytes:
    """Draw the validation accuracy of students by epoch: each seed thin, an architecture's mean thick.

    Args:
        results: at least one; those of one architecture have been validated after the same epochs.
        levels: accuracies in [0, 1] to compare with, by what they are, such as the teacher's.

    Returns:
        A PNG file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = import_optional("matplotlib.figure", "evaluate").Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(dict.fromkeys(result.student.architecture for result in results)):
        group = [result for result in results if result.student.architecture == name]
        _draw_group(axes, name, group, _COLOURS[place % len(_COLOURS)])
    for name, level in levels.items():
        axes.axhline(100 * level, color=_GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            name,
            (1, 100 * level),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=_GREY,
            fontsize=8,
        )
    axes.set_xlabel("epochs")
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(0, 100)
    axes.set_xlim(0, max(max(result.curve) for result in results))
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()


def _draw_group(axes: Any, name: str, group: Sequence[StudentResult], colour: str) -> None:
    epochs = list(group[0].curve)
    values = 100 * np.array([[result.curve[epoch] for epoch in epochs] for result in group])
    axes.plot(epochs, values.T, color=colour, alpha=0.3, linewidth=0.8)
    axes.plot(epochs, values.mean(axis=0), color=colour, linewidth=2, label=name)
