"""Tiny networks in the place of the catalogue's models, so that what the documents show runs in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_pipeline as tiny

from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_fast.models.catalogue.catalogue import own_bundle_path

TEACHER_SIDE = 224


def install_tiny_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the cache a folder of its own, with networks under the names of the catalogue's.

    They run on the processor alone, as asked by `auto`, so that nothing has to be compared.
    """
    monkeypatch.setenv("FGDD_FAST_CACHE", str(folder / "cache"))
    monkeypatch.setattr("fgdd_fast.runtime.choose.all_devices", lambda: ("cpu",))
    monkeypatch.setattr("fgdd_export.catalogue.prepare._provenance", lambda entry: {})
    scratch = folder / "scratch"
    scratch.mkdir()
    _install(tiny.foreground_bundle(scratch), "saliency-u2netp")
    monkeypatch.setattr(tiny, "SIDE", TEACHER_SIDE)
    _install(tiny.backbone_bundle(scratch), "imagenet-efficientnet-lite0")


def _install(bundle: Bundle, name: str) -> None:
    path = own_bundle_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(replace(bundle, onnx=path, name=name), bundle.onnx.read_bytes())
