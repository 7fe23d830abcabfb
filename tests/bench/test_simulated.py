"""The study of large data sets does every step on a small one, and what it says adds up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies.simulated.made import Made
from benchmarks.studies.simulated.steps import STEPS, run
from fgdd_fast.labels.stored import open_labels
from fgdd_fast.output.distilled import open_distilled


def test_every_step_goes_on_from_those_before(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    made = Made(tmp_path, classes=5, images=30, ipc=3)
    found: dict[str, dict[str, Any]] = {step: run(made, step) for step in STEPS}
    assert found["files"]["files"] == found["store"]["images"] == found["missing"]["known"] == 150
    assert found["missing"]["unknown"] == 0
    assert found["decide"]["tiles"] == 4 * found["manifest"]["mosaics"] == 60
    assert found["images"]["items"] == found["views"]["items"] == found["tiles"]["items"] / 4 == 15
    assert open_labels(open_distilled(tmp_path / "out")).epochs == found["labels"]["epochs"]
    for row in found.values():
        assert 0 < row["memory_before"] <= row["peak_memory"]
