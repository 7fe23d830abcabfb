"""Accuracy by epoch, drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgdd_engines.optional_imports import import_optional
from fgdd_fast.students.results.result import StudentResult

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
_GREY = "#777777"


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
