"""Exports that several modules look at, made once."""

from __future__ import annotations

import pytest
from miniature_bundles import export_miniature

from fgdd_engines.bundle.bundle import Bundle


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The trained miniatures as one graph."""
    return export_miniature(tmp_path_factory.mktemp("joint") / "grounded.onnx", split=False, images=4)


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The trained miniatures as detector and segmenter."""
    return export_miniature(tmp_path_factory.mktemp("split") / "grounded.onnx", split=True, images=1)
