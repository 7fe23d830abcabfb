"""ONNX Runtime with buffers and recorded graphs: on a CPU here; on a GPU only their device is another."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from every_engine import BATCH, Sessions, open_bound
from tiny_models import tiny_feeds

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import EngineError

onnxruntime = pytest.importorskip("onnxruntime")


def test_a_session_for_each_stream_where_graphs_are_recorded(bundle: Bundle) -> None:
    sessions = Sessions(bundle)
    open_bound(bundle, sessions, streams=3).close()
    assert sessions.asked == [True, True, True]


def test_one_session_for_all_where_they_are_refused(bundle: Bundle) -> None:
    sessions = Sessions(bundle, records=False)
    feeds = tiny_feeds(BATCH)
    with open_bound(bundle) as engine:
        expected = engine.run(feeds)
    with open_bound(bundle, sessions, streams=3) as engine:
        found = engine.run(feeds)
    assert sessions.asked == [True, False]
    assert np.array_equal(found["loss"], expected["loss"])


@pytest.mark.parametrize("step", ["run_with_iobinding", "io_binding", "get_inputs"])
def test_what_fails_is_freed_before_its_fallback_opens(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """The second session cannot record, or not even be bound, as when memory ends: both are gone at once."""
    sessions = Sessions(bundle)
    recorded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def opens(record: bool) -> Any:
        alive.append(sum(session() is not None for session in recorded))
        session = sessions(record)
        recorded.append(weakref.ref(session))
        return session

    real = getattr(onnxruntime.InferenceSession, step)
    calls = 0

    def fail(session: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise EngineError("CUDA failure 2: out of memory")
        return real(session, *arguments)

    monkeypatch.setattr(onnxruntime.InferenceSession, step, fail)
    gc.collect()
    gc.disable()  # which may come too late
    try:
        with caplog.at_level("INFO"), open_bound(bundle, opens) as engine:
            engine.run(tiny_feeds(BATCH))
    finally:
        gc.enable()
    assert sessions.asked == [True, True, False]
    assert alive == [0, 1, 0]
    assert "tiny runs without a CUDA graph: " in caplog.text
    assert "CUDA failure 2: out of memory" in caplog.text
