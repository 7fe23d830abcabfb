"""Tiny networks in the place of the catalogue's models, so that what the documents show runs in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_pipeline as tiny

from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_fast.models.catalogue.catalogue import own_bundle_path

TEACHER_SIDE = 224


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: `photographs`, their `masks`, `validation`, and networks named as the catalogue's.

    They run on the processor alone, as asked by `auto`, so that nothing has to be compared.
    """
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fgdd_fast.runtime.choose.all_devices", lambda: ("cpu",))
    monkeypatch.setattr("fgdd_export.catalogue.prepare._provenance", lambda entry: {})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    _install(tiny.foreground_bundle(scratch), "saliency-u2netp")
    monkeypatch.setattr(tiny, "SIDE", TEACHER_SIDE)
    _install(tiny.backbone_bundle(scratch), "imagenet-efficientnet-lite0")
    tiny.write_squares(tmp_path / "photographs", 8)
    tiny.write_masks(tmp_path, "photographs")
    tiny.write_squares(tmp_path / "validation", 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _install(bundle: Bundle, name: str) -> None:
    path = own_bundle_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(replace(bundle, onnx=path, name=name), bundle.onnx.read_bytes())
