"""The benchmarks run, and what they write adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_grounded import write_grounded_bundle

from benchmarks.studies import sizes, stages, views


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    tiny.write_squares(tmp_path / "data", 6)
    tiny.foreground_bundle(tmp_path)
    tiny.teacher_bundle(tmp_path)
    return tmp_path


def run(command: click.Command, folder: Path, *options: str) -> dict[str, Any]:
    output = folder / "result.json"
    words = [str(folder / "data"), "--device", "cpu", "--json", str(output), *options]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    data = json.loads(output.read_text())
    assert data["environment"]["cores"] >= 1
    assert str(folder) not in json.dumps(data)
    return dict(data)


@pytest.mark.parametrize("model", ["tiny-foreground", "tiny-grounded"])
def test_stages(workplace: Path, model: str) -> None:
    write_grounded_bundle(workplace)
    foreground, teacher = (str(workplace / f"{name}.onnx") for name in (model, "tiny-teacher"))
    options = (
        "--teacher",
        teacher,
        "--foreground",
        foreground,
        "--images",
        "12",
        "--repeats",
        "2",
        "--tile",
        "8",
    )
    data = run(stages.main, workplace, *options)
    assert data["images"] == 12
    assert data["models"]["foreground"]["name"] == model
    assert len(data["seconds"]) == len(data["surplus"]) == 2
    for times, surplus in zip(data["seconds"], data["surplus"], strict=True):
        parts = [seconds for stage, seconds in times.items() if stage != "whole"]
        assert len(parts) == 4
        assert min(parts) > 0
        assert times["whole"] == pytest.approx(sum(parts) * (1 + surplus))


def test_sizes_compare_with_the_first_model(workplace: Path) -> None:
    model = str(workplace / "tiny-foreground.onnx")
    data = run(sizes.main, workplace, "--model", model)
    assert [(row["occupancy_error"], row["path_agreement"]) for row in data["rows"]] == [(0, 1), (0, 1)]
    assert data["images"] == 18


def test_sizes_leave_out_what_cannot_be_read(workplace: Path) -> None:
    (workplace / "data" / "red" / "broken.png").write_bytes(b"\x89PNG and no more")
    grounded = str(write_grounded_bundle(workplace).onnx)
    saliency = str(workplace / "tiny-foreground.onnx")
    data = run(sizes.main, workplace, "--model", saliency, "--model", grounded)
    assert [row["model"] for row in data["rows"]] == ["tiny-foreground", "tiny-foreground", "tiny-grounded"]
    assert data["rows"][2]["occupancy_error"] < 0.05


def test_views_compare_with_the_first_view(workplace: Path) -> None:
    data = run(views.main, workplace, "--teacher", str(workplace / "tiny-teacher.onnx"), "--tile", "16")
    rows = {row["view"]: row for row in data["rows"]}
    assert rows.keys() == {"pad", "resize", "native"}
    for row in rows.values():  # a tile as large as the input looks the same in every view
        assert row["same_as_first"] == 1
        assert row["top1_whole"] == rows["pad"]["top1_whole"] > 0.5
        assert 0 < row["chosen_area"] <= 1
