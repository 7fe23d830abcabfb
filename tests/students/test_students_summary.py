from __future__ import annotations

import math

import numpy as np
import pytest

from fgdd_fast.students.results.result import Spread, Student, StudentResult, summarise

LABELS = np.array([0, 0, 0, 1])


def result(architecture: str, seed: int, predictions: list[int], best: float = 0.75) -> StudentResult:
    return StudentResult(
        student=Student(architecture, seed),
        parameters=5,
        losses=(0.5, math.inf),
        curve={1: best, 2: 0.5},
        predictions=np.array(predictions),
        labels=LABELS,
        seconds=1.0,
    )


def test_a_result_counts_images_and_classes() -> None:
    found = result("a", 0, [0, 1, 1, 1])
    assert found.accuracy == 0.5
    assert found.per_class == pytest.approx({0: 1 / 3, 1: 1.0})
    assert found.balanced_accuracy == pytest.approx(2 / 3)
    assert found.best_accuracy == 0.75
    assert found.to_json()["losses"] == [0.5, None]


def test_students_are_brought_together_by_architecture() -> None:
    results = [
        result("b", 0, [0, 0, 0, 0]),
        result("a", 0, [0, 1, 1, 1]),
        result("b", 1, [0, 0, 1, 1], best=1.0),
    ]
    found = summarise(results, ("x", "y"))
    assert [(one.architecture, one.seeds) for one in found] == [("b", (0, 1)), ("a", (0,))]
    assert found[0].top1.values == (0.75, 0.75)
    assert found[0].best.values == (0.75, 1.0)
    assert found[0].per_class == pytest.approx({"x": 5 / 6, "y": 1 / 2})


def test_a_spread_has_the_sample_deviation() -> None:
    spread = Spread((0.2, 0.4, 0.6))
    assert (spread.mean, spread.deviation) == (pytest.approx(0.4), pytest.approx(0.2))
    assert str(spread) == "40.0 ± 20.0"
    assert (Spread((0.25,)).deviation, str(Spread((0.25,)))) == (None, "25.0")
