"""The demo on one's own images, with each kind of foreground model that its user may name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from tiny_grounded import write_grounded_bundle

from fgdd_fast.cli import main
from fgdd_fast.models.catalogue.catalogue import bundle_path, load_catalogue
from fgdd_fast.models.fitting import BACKBONE
from fgdd_fast.output.manifest_reading import read_manifest

pytestmark = pytest.mark.skipif(
    not bundle_path(load_catalogue()[BACKBONE]).exists(), reason=f"run: fgdd-fast models pull {BACKBONE}"
)


def demo(folder: Path, *options: str) -> str:
    words = ["demo", "--data", str(folder / "data"), "--out", str(folder / "demo"), "--ipc", "1"]
    result = CliRunner().invoke(main, [*words, "--device", "cpu", *options])
    assert result.exit_code == 0, result.output
    assert (folder / "demo" / "contact-sheet.png").is_file()
    return result.output


def test_the_demo_looks_for_what_it_is_told(tmp_path: Path) -> None:
    tiny.write_squares(tmp_path / "data", 15)
    bundle = write_grounded_bundle(tmp_path)
    (tmp_path / "prompts.json").write_text('{"green": "blue"}')
    output = demo(tmp_path, "--foreground", str(bundle.onnx), "--prompts", str(tmp_path / "prompts.json"))
    assert f"Model {BACKBONE}" in output
    assert "saliency" not in output  # only what is used is pulled
    manifest = read_manifest(tmp_path / "demo" / "distilled")
    assert manifest.prompts["green"] == ("blue",)
    shutil.rmtree(tmp_path / "demo" / "distilled")
    saliency = tiny.foreground_bundle(tmp_path)
    demo(tmp_path, "--foreground", str(saliency.onnx))
    manifest = read_manifest(tmp_path / "demo" / "distilled")
    assert manifest.models["foreground"].sha256 == saliency.sha256
