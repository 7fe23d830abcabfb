"""TensorRT builds what is exported from PyTorch on its own: teachers, and SAM 2's two networks."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from click.testing import CliRunner
from tiny_classifiers import CONFIGS, save_pretrained

from fgdd_engines.tensorrt_backend.api import TensorRt
from fgdd_engines.tensorrt_backend.plans.store import Plan, PlanStore
from fgdd_fast.cli import main

SAM2 = Path(__file__).parents[1] / "miniatures" / "sam2"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))


def run(*arguments: object) -> None:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output


def built(bundle: Path, precision: str = "fp32") -> dict[str, Plan]:
    """The engines that the command builds of a bundle, by model."""
    run(
        "engine",
        "build",
        bundle,
        "--device",
        "tensorrt-rtx",
        "--precision",
        precision,
        "--batch-profile",
        "1:1:2",
    )
    return {plan.key.model: plan for plan in PlanStore().list() if plan.key.precision == precision}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_teacher(architecture: str, tmp_path: Path, rtx: TensorRt) -> None:
    checkpoint = save_pretrained(tmp_path / architecture, architecture)
    run("export", "teacher", checkpoint, "-o", tmp_path / "teacher.onnx")
    run("convert", tmp_path / "teacher.onnx", "--precision", "fp16", "--check-images", 6)
    for precision in ("fp32", "fp16"):
        layers = built(tmp_path / "teacher.onnx", precision)["teacher"].layers
        share = sum(layer.precision == precision for layer in layers) / len(layers)
        assert share > (0.99 if precision == "fp32" else 0.6)


def test_sam2_alone_for_a_fixed_number_of_boxes(tmp_path: Path, rtx: TensorRt) -> None:
    run("export", "sam2", SAM2, "-o", tmp_path / "sam.onnx", "--check-images", 1)
    plans = built(tmp_path / "sam.onnx")
    assert plans.keys() == {"sam", "sam.decoder"}
    assert plans["sam.decoder"].key.axes == {"boxes": 8}
