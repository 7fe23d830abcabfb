"""ONNX Runtime with buffers and recorded graphs: on a CPU here; on a GPU only their device is another."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from every_engine import BATCH, Sessions, open_bound
from tiny_models import tiny_feeds

from fgdd_engines.bundle.bundle import Bundle

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


def test_a_graph_that_fails_when_it_is_recorded(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second session cannot record, as when memory ends: both are freed before another opens."""
    sessions = Sessions(bundle)
    recorded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def opens(record: bool) -> Any:
        alive.append(sum(session() is not None for session in recorded))
        session = sessions(record)
        recorded.append(weakref.ref(session))
        return session

    binding = onnxruntime.InferenceSession.run_with_iobinding
    calls = 0

    def run(session: Any, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("CUDA failure 2: out of memory")
        binding(session, *arguments)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", run)
    with open_bound(bundle, opens) as engine:
        engine.run(tiny_feeds(BATCH))
    assert sessions.asked == [True, True, False]
    assert alive == [0, 1, 0]
