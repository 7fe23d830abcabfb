"""Settings of all tests, and fixtures of several modules."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from fgdd_engines.tensorrt_backend.api import TensorRt

# The tests' networks are so small that threads cost more than they bring; read when PyTorch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background jobs ignore Ctrl-C, and so would the commands that are stopped by it here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow; what a test finds must not depend on that.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_xdist_auto_num_workers() -> int:
    """Half as many processes again as processors: a third of the time, tests wait for commands and disks."""
    return (3 * len(os.sched_getaffinity(0)) + 1) // 2


@pytest.fixture(scope="session")
def rtx() -> TensorRt:
    """TensorRT for RTX, which builds engines without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    from fgdd_engines.tensorrt_backend.api import import_tensorrt

    return import_tensorrt("tensorrt-rtx")


@pytest.fixture
def nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The test must write nothing, from native libraries neither."""
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `data`, the two tiny models, and a cache of its own."""
    import tiny_pipeline as tiny
    from tiny_distillation import IMAGES

    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    tiny.write_squares(tmp_path / "data", IMAGES)
    tiny.foreground_bundle(tmp_path)
    tiny.teacher_bundle(tmp_path)
    return tmp_path
