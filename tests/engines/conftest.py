"""The tiny classifier's bundle, and a store of plans."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import tiny_bundle

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.tensorrt_backend.plans.store import PlanStore


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle that no test changes; variants are written beside it."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "engines")
