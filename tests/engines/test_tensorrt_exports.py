"""TensorRT builds what is exported from PyTorch: teachers, SAM 2 alone, and Grounded SAM 2 split."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from click.testing import CliRunner
from tiny_classifiers import CONFIGS, save_pretrained

from fgdd_engines.tensorrt_backend.api import TensorRt
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_engines.tensorrt_backend.plans.store import Plan, PlanStore
from fgdd_fast.cli import main

MINIATURES = Path(__file__).parents[1] / "miniatures"
DETECTOR, SAM2 = MINIATURES / "grounding-dino", MINIATURES / "sam2"


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


def test_grounded_sam2(tmp_path: Path, rtx: TensorRt) -> None:
    words = ["--canvas", "128x160", "--text-length", "12", "--check-images", "1", "--force", "--split"]
    sources = ["--detector", DETECTOR, "--segmenter", SAM2]
    run("export", "grounded-sam2", *sources, "-o", tmp_path / "found.onnx", *words)
    plans = built(tmp_path / "found.onnx")
    assert plans.keys() == {"found", "found.text", "found.segmenter"}
    for plan in plans.values():
        assert plan.bytes == plan.path.stat().st_size > 1000
        assert plan.precisions.keys() <= {"fp32"}
        assert (plan.key.flavour, plan.state) == (
            "tensorrt-rtx",
            "unchecked" if find_cuda_device() is None else "passed",
        )
