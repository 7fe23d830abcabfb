"""The examples run, on tiny models and tiny data."""

from __future__ import annotations

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner

import fgdd_fast
from fgdd_fast.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_a_folder_is_distilled_and_a_student_trained(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run(monkeypatch, "distil_folder.py", "photographs", "out", "--ipc", "2")
    assert (photographs / "out-sheet.png").is_file()
    words = ["out", "validation", "--teacher", "teacher.onnx", "--epochs", "6"]
    run(monkeypatch, "train_student.py", *words, "--architecture", "convnet3-w8")
    printed = capsys.readouterr().out
    assert "24 images measured, 0 skipped" in printed
    assert printed.count("tiles are whole") == len(tiny.CLASSES)
    assert "of 12 held-out photographs are recognised" in printed


def test_the_notebook_looks_at_a_plan(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.teacher_bundle(photographs, name="teacher")
    notebook = json.loads((EXAMPLES / "look_at_a_plan.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "notebook"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "quantile:0.3: 100% of its tiles are those of quantile:0.3" in printed
    assert (photographs / "sheet.png").is_file()


def test_plugins_are_there_once_they_are_installed(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    site = photographs / "site"
    source = photographs / "source"
    source.mkdir()
    for file in (EXAMPLES / "plugins").glob("*.*"):
        (source / file.name).write_bytes(file.read_bytes())
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", site)
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True)
    monkeypatch.syspath_prepend(str(site))
    tiny.teacher_bundle(photographs, name="teacher")
    words = ["--teacher", "teacher.onnx", "--device", "counting", "--foreground", "centre:0.6", "--ipc", "1"]
    result = CliRunner().invoke(main, ["distill", "photographs", "out", *words])
    assert result.exit_code == 0, result.output
    assert importlib.import_module("example_plugins").CountingEngine.calls > 0
    manifest = json.loads((photographs / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["models"]["foreground"]["plug-in"] == "example-plugins 1.0"
    assert "plug-in example-plugins 1.0" in manifest["tool"]["runtime"]
    fgdd_fast.make_labels("out", "teacher.onnx", epochs=1)
    found = fgdd_fast.evaluate("out", validation="validation", architectures=["linear"], students=1)
    assert found.results[0].origin == "example-plugins 1.0"
