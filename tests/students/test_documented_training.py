"""The documents' training loop runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_distillation import distill

from fgdd_fast.cli.distillation.label import label

PAGE = Path(__file__).resolve().parents[2] / "docs" / "students.md"
PHOTOGRAPHS = 6  # of each class


def training_loop() -> str:
    """The page's one block of Python that trains a student."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if "from fgdd_fast.data import" in block]
    return str(found)


def test_the_training_loop_is_short_and_teaches(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert distill(workplace, "distilled", ipc=2, size=16, factor=1).exit_code == 0
    tiny.write_squares(workplace / "photographs" / "validation", PHOTOGRAPHS)
    command = ["distilled", "--teacher", "tiny-teacher.onnx", "--epochs", "8", "--device", "cpu"]
    monkeypatch.chdir(workplace)
    labelled = CliRunner().invoke(label, command)
    assert labelled.exit_code == 0, labelled.output

    loop = training_loop()
    assert len(loop.splitlines()) < 40
    torch.manual_seed(0)
    capsys.readouterr()
    exec(compile(loop, str(PAGE), "exec"), {"__name__": "training_loop"})

    said = re.fullmatch(r"(\d+) of (\d+) held-out photographs are recognised\n", capsys.readouterr().out)
    assert said is not None
    right, photographs = (int(number) for number in said.groups())
    assert photographs == 3 * PHOTOGRAPHS
    assert right > photographs / 2  # guessing gets a third
