"""Studies of Grounded SAM 2: smaller inputs, and Meta's own package beside the exported graph."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from benchmarks.studies.grounded import meta_sam2, smaller

MINIATURES = Path(__file__).parents[1] / "miniatures"


def run(command: Any, *words: object) -> dict[str, Any]:
    result = CliRunner().invoke(command, [*map(str, words), "--json", "result.json"])
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(Path("result.json").read_text())
    return data


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_smaller_inputs_are_compared_with_the_first_and_with_the_truth() -> None:
    words = ("--size", 128, "--size", 32, "--canvas", 160, "--scenes", 4)
    data = run(smaller.main, MINIATURES / "grounding-dino", MINIATURES / "sam2", *words)
    assert data["command"].startswith("python -m benchmarks.studies.grounded.smaller ")
    full, small = data["rows"]
    assert (full["segmenter"], full["mean_change"], full["same_path"]) == (128, 0, 1)
    assert full["true_error"] < 0.03 < small["mean_change"]


def test_a_missing_package_of_meta_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sam2", None)
    tiny.write_squares(Path("data"), 1)
    result = CliRunner().invoke(meta_sam2.main, ["data"])
    assert result.exit_code == 1
    assert "fgdd-fast[sam2]" in result.output


def test_metas_predictor_and_the_graph_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sam2", reason="Meta's package sam2 is not installed")
    monkeypatch.setattr("fgdd_export.graphs.torch_export.slim_model", lambda model: model)
    tiny.write_squares(Path("data"), 1)
    same, own = run(meta_sam2.main, "data", "--size", 128)["rows"]
    assert same["least_mask_iou"] > 0.999
    assert own["size"] == 128
