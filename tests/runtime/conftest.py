"""A cache of each test's own, and a bundle of each role."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_pipeline as tiny

from fgdd_engines.bundle.bundle import Bundle


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["foreground", "teacher", "backbone"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    makers = {
        "foreground": tiny.foreground_bundle,
        "teacher": tiny.teacher_bundle,
        "backbone": tiny.backbone_bundle,
    }
    return makers[request.param](tmp_path)
