"""What became of an evaluation: for reports, as JSON, and as a picture of the curves."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgdd_engines.bundle.files import write_file
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.models.linear_head import Accuracy
from fgdd_fast.output.folder import writing
from fgdd_fast.output.manifest import Model
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.opening import OpenedTraining
from fgdd_fast.students.results.result import StudentResult, Summary, summarise
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

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        shown = {"photographs": self.photographs, "views": self.views}
        figures = {
            name: {
                "top1": judged.top1,
                "balanced": balanced(judged),
                "images": judged.images,
                "per_class": judged.per_class,
            }
            for name, judged in shown.items()
        }
        return {**_named(self.model), **figures}


@dataclass(frozen=True)
class Evaluation:
    """What became of an evaluation.

    Attributes:
        opened: what students learned from.
        validation: what judged them.
        recipe: how they were trained.
        results: the students.
        teacher: the teacher's own accuracy, where one was named.
        device: that the students were trained on.
    """

    opened: OpenedTraining
    validation: LabelledImages
    recipe: StudentRecipe
    results: tuple[StudentResult, ...]
    teacher: JudgedTeacher | None
    device: str

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The students of each architecture together."""
        return summarise(self.results, self.validation.classes)

    @property
    def chance(self) -> float:
        """The share of the validation images that always naming the most frequent class gets right."""
        return float(np.bincount(self.validation.labels).max() / len(self.validation.labels))

    def to_json(self, environment: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return everything as JSON values, with what else is noted, such as versions and the machine."""
        opened, validation, training = self.opened, self.validation, self.opened.training
        return {
            "format": FORMAT,
            "training": {
                "images": len(training.images),
                "classes": list(training.classes),
                "labels": opened.labels,
                "teacher": None if opened.stored is None else _named(opened.stored.teacher),
                "views": asdict(training.views),
                "skipped": [asdict(item) for item in opened.skipped],
            },
            "recipe": asdict(self.recipe),
            "validation": {
                "images": len(validation.images),
                "chance": self.chance,
                "labels": validation.labels.tolist(),
                "skipped": [asdict(item) for item in validation.skipped],
            },
            "teacher": None if self.teacher is None else self.teacher.to_json(),
            "architectures": {summary.architecture: summary.to_json() for summary in self.summaries},
            "students": [result.to_json() for result in self.results],
            "environment": {**(environment or {}), "device": self.device},
        }

    def write_json(self, path: Path, environment: Mapping[str, object] | None = None) -> None:
        """Write everything to a file of JSON, which is replaced; see `to_json`.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(self.to_json(environment), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
        with writing(path):
            write_file(path, text.encode("ascii"))

    def draw(self, path: Path) -> None:
        """Draw the students' accuracy by epoch into a PNG file.

        Raises:
            OutputError: it cannot be written.
            MissingExtraError: matplotlib is not installed.
        """
        levels = {"chance": self.chance}
        if self.teacher is not None:
            levels["teacher"] = self.teacher.photographs.top1
        picture = _draw_curves(self.results, levels)
        with writing(path):
            write_file(path, picture)


def _named(model: Model) -> dict[str, str]:
    return {"name": model.name, "sha256": model.sha256}


def balanced(judged: Accuracy) -> float:
    """Return the mean over the classes of the share of each one's images that is right."""
    return statistics.fmean(judged.per_class.values())


def _draw_curves(results: Sequence[StudentResult], levels: Mapping[str, float]) -> bytes:
    """Draw the validation accuracy of students by epoch: each seed thin, an architecture's mean thick."""
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
