"""Networks with random weights are made once, and again when what they depend on has changed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from tiny_grounded import write_grounded_bundle

from fgdd_engines.bundle.bundle import Bundle

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from fgdd_bench.references.grounded import random_grounded as module
from fgdd_bench.references.grounded.random_grounded import random_grounded


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The bundles exported; a tiny one instead of the real size, and empty folders as checkpoints."""
    made: list[Path] = []

    def write_checkpoints(folder: Path, *_: str) -> None:
        for checkpoint in module._checkpoints(folder):
            Path(checkpoint).mkdir(parents=True)

    def export(detector: str, segmenter: str, onnx: Path, *_: Any, **__: Any) -> Bundle:
        assert Path(detector).is_dir()
        assert Path(segmenter).is_dir()
        tiny = write_grounded_bundle(onnx.parent)
        for path in onnx.parent.glob(f"{tiny.onnx.stem}.*"):
            path.rename(path.with_name(path.name.replace(tiny.onnx.stem, onnx.stem)))
        made.append(onnx)
        return tiny

    monkeypatch.setattr(module, "write_checkpoints", write_checkpoints)
    monkeypatch.setattr(module, "export_grounded_sam2", export)
    return made


def test_networks_are_made_once(exports: list[Path], tmp_path: Path) -> None:
    first, second = random_grounded(tmp_path), random_grounded(tmp_path)
    assert first == second
    assert len(exports) == 1
    assert first.bundle.prompting is not None
    assert Path(first.checkpoints[0]).parent == Path(first.checkpoints[1]).parent == first.bundle.onnx.parent
    assert [place.name for place in tmp_path.iterdir()] == [first.bundle.onnx.parent.name]


@pytest.mark.parametrize("changed", ["version", "SIZE"])
def test_what_they_depend_on_makes_others(
    exports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    first = random_grounded(tmp_path)
    other: Any = (lambda _: "0.0") if changed == "version" else "base"
    monkeypatch.setattr(module, changed, other)
    assert random_grounded(tmp_path).bundle.onnx != first.bundle.onnx
    assert len(exports) == 2


def test_of_two_that_want_them_at_once_one_makes_them(
    exports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, waiting = module._make, threading.Event()
    monkeypatch.setattr(module._log, "info", lambda text: waiting.set() if "Another" in text else None)

    def make(folder: Path) -> None:
        other.start()
        assert waiting.wait(30)
        alone(folder)

    def want() -> None:
        made.append(random_grounded(tmp_path).bundle)

    made: list[Bundle] = []
    other = threading.Thread(target=want)
    monkeypatch.setattr(module, "_make", make)
    made.append(random_grounded(tmp_path).bundle)
    other.join(30)
    assert made == [made[0]] * 2
    assert len(exports) == 1
