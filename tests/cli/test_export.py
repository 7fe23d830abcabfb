"""`fgdd-fast export` as a user meets it: options, bad input, and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result

from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.cli import main
from fgdd_fast.runtime.sample_images import SampleImage

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from fgdd_export.grounded_sam2.bundle import GroundedSettings

MINIATURES = Path(__file__).parents[1] / "miniatures"
DETECTOR, SEGMENTER = MINIATURES / "grounding-dino", MINIATURES / "sam2"
FAST = ["--canvas", "128x160", "--text-length", "12", "--check-images", "2"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_each_network_alone_is_exported_with_its_parity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command, checkpoint, role, options in (
        ("grounding-dino", DETECTOR, "detector", FAST),
        ("sam2", SEGMENTER, "image-encoder", ["--size", "96", *FAST[-2:]]),
    ):
        with monkeypatch.context() as patch:
            if role == "detector":  # slimming it takes most of the time; test_grounded_sam2.py does it
                patch.setattr("fgdd_export.graphs.torch_export.slim_model", lambda model: model)
            result = run(command, checkpoint, "-o", tmp_path / command, "--licence", "Apache-2.0", *options)
        assert result.exit_code == 0, result.output
        assert result.output.endswith(f"{tmp_path / command}.onnx\n")
        bundle = load_bundle(tmp_path / f"{command}.onnx")
        assert bundle.role == role
        assert bundle.licence == "Apache-2.0"
        assert bundle.source["checkpoint"] == checkpoint.name
        assert bundle.source["export"]["nodes_before_slimming"] > 0
        assert bundle.parity["images"] == 2
        assert all(bundle.part(name).sha256 for name in bundle.parts)
    assert load_bundle(tmp_path / "grounding-dino").prompting is not None
    assert load_bundle(tmp_path / "sam2").preprocessing.width == 96
    if find_spec("tensorrt_rtx") is not None:
        monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
        words = ["engine", "build", tmp_path / "sam2", "--device", "tensorrt-rtx", "--batch-profile", "1:1:2"]
        result = CliRunner().invoke(main, list(map(str, words)))
        assert result.exit_code == 0, result.output
        plans = {plan.key.model: plan for plan in PlanStore().list()}
        assert plans.keys() == {"sam2", "sam2.decoder"}
        assert plans["sam2.decoder"].key.axes == {"boxes": 8}  # a fixed number of boxes


def test_photographs_are_asked_for_the_names_of_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.write_squares(tmp_path / "data", 1)
    (data / tiny.CLASSES[0]).rename(data / "n02123045")
    prompts = tmp_path / "prompts.json"
    arguments = ["grounding-dino", DETECTOR, "-o", tmp_path / "x", *FAST, "--check", data]
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "'n02123045'" in refused.output
    assert "--prompts" in refused.output
    prompts.write_text(json.dumps({"n02123045": "green cross", **dict.fromkeys(tiny.CLASSES, "red disc")}))
    asked: list[str] = []

    def export(*_: object, check: Sequence[SampleImage], **__: object) -> Bundle:
        asked.extend(each.image.class_name for each in check)
        return tiny.backbone_bundle(tmp_path)

    monkeypatch.setattr("fgdd_export.grounding_dino.bundle.export_grounding_dino", export)
    result = run(*arguments, "--prompts", prompts)
    assert result.exit_code == 0, result.output
    assert asked == ["red disc", "green cross"]


@pytest.mark.parametrize(
    ("words", "split", "size"), [((), True, None), (("--joint", "--segmenter-size", "512"), False, 512)]
)
def test_grounded_sam2_is_two_graphs_of_the_published_size_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], split: bool, size: int | None
) -> None:
    asked: list[GroundedSettings] = []

    def export(*arguments: Any, **_: object) -> Bundle:
        asked.append(arguments[3])
        return tiny.backbone_bundle(tmp_path)

    monkeypatch.setattr("fgdd_export.grounded_sam2.bundle.export_grounded_sam2", export)
    checkpoints = ["--detector", DETECTOR, "--segmenter", SEGMENTER, "--check-images", "1"]
    result = run("grounded-sam2", *checkpoints, "-o", tmp_path / "x", *words)
    assert result.exit_code == 0, result.output
    assert [(each.split, each.segmenter_size) for each in asked] == [(split, size)]


@pytest.mark.parametrize("canvas", ["800", "x800", "800x", "-1x5", "8.5x9"])
def test_a_canvas_is_height_x_width(tmp_path: Path, canvas: str) -> None:
    result = run("grounding-dino", DETECTOR, "-o", tmp_path / "x", "--canvas", canvas)
    assert result.exit_code == 2
    assert "is not HEIGHTxWIDTH" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grounding-dino", SEGMENTER], "is a sam2, not a grounding-dino"),
        (["sam2", DETECTOR], "is a grounding-dino, not a sam2"),
        (["sam2", "nowhere/at/all"], "no checkpoint nowhere/at/all"),
        (["grounding-dino", DETECTOR, "--check", "nowhere"], "nowhere"),
        (["sam2", SEGMENTER, "--size", "100"], "steps of 32, not 100"),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_written(
    tmp_path: Path, arguments: list[object], message: str
) -> None:
    result = run(*arguments, "-o", tmp_path / "x")
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["teacher", "sam2", "grounding-dino"])
def test_a_path_with_brackets_is_a_path(tmp_path: Path, command: str) -> None:
    result = run(command, tmp_path / "a[/b] [red]" / "c.safetensors", "-o", tmp_path / "x[/bold]")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert "[/b]" in result.output
