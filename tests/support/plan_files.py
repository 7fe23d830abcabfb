"""Plans that were never built: keys, contents, and a process that builds one."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fgdd_engines.tensorrt_backend.build import Built, BuiltLayer, Profile
from fgdd_engines.tensorrt_backend.plans import store as plan_store
from fgdd_engines.tensorrt_backend.plans.key import PlanKey
from fgdd_engines.tensorrt_backend.plans.store import Origin, Plan, PlanStore
from fgdd_fast.errors import EngineError

KEY = PlanKey(
    model="tiny",
    model_sha256="a" * 64,
    precision="fp16",
    flavour="tensorrt",
    version="10.16.2",
    cuda="13.2",
    device="Orin",
    compute_capability="8.7",
    profile=Profile(1, 4, 8),
    axes={"height": 320, "width": 320},
)
CONTENT = b"kernels" * 1000
LAYERS = (
    BuiltLayer("conv1", "CONVOLUTION", "fp16"),
    BuiltLayer("norm1", "NORMALIZATION", "fp32"),
    BuiltLayer("conv2", "CONVOLUTION", "fp16"),
)
ORIGIN = Origin(Path("/models/tiny.fp16.onnx"), Path("/models/tiny.onnx"))


PARITY = {"figures": {"same_path": 1.0}, "shortfalls": []}


def key(**changes: Any) -> PlanKey:
    """`KEY` with other values."""
    return replace(KEY, **changes)


def builder(content: bytes = CONTENT, timing_cache: bytes = b"timings") -> Callable[[bytes], Built]:
    """A build that gives this content."""
    return lambda _: Built(content, timing_cache, LAYERS, "engine inspector", 1.5)


def unexpected(timing_cache: bytes) -> Built:
    """A build that must not run."""
    raise AssertionError("it is built again")


def stored(store: PlanStore, wanted: PlanKey = KEY, content: bytes = CONTENT) -> Plan:
    """A plan that was built and may be used."""
    plan = store.build_once(wanted, builder(content), ORIGIN)
    return store.record_parity(plan, PARITY, "passed")


def names(store: PlanStore) -> list[str]:
    """The files of a store."""
    return sorted(path.name for path in store.folder.iterdir())


def refusal(store: PlanStore, wanted: PlanKey = KEY) -> str:
    """Why a store has no plan for a key; it must say what to do."""
    with pytest.raises(EngineError) as caught:
        store.load(wanted)[0]
    assert "fgdd-fast engine build" in caught.value.advice
    return caught.value.problem


class _Listener(logging.Handler):
    def __init__(self, hear: Callable[[str], object]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record.getMessage())


@contextmanager
def listening(hear: Callable[[str], object]) -> Iterator[None]:
    """Pass on what the stores of plans log."""
    listener, logger = _Listener(hear), logging.getLogger(plan_store.__name__)
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(logging.NOTSET)


def build_slowly(folder: Path, log: Path, go: Path) -> None:
    """Build the plan of `KEY`, which lasts until a file is there, and write into a log what happens."""

    def note(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{line}\n")

    def build(timing_cache: bytes) -> Built:
        note("building")
        while not go.exists():
            time.sleep(0.01)
        return builder()(timing_cache)

    with listening(note):
        plan = PlanStore(folder).build_once(KEY, build, ORIGIN)
    note(f"has {plan.sha256}")


if __name__ == "__main__":
    build_slowly(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
