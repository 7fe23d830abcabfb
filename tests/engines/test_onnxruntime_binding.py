"""ONNX Runtime with buffers and recorded graphs: on a CPU here; on a GPU only their device is another."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_bundle, tiny_feeds

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.onnxruntime_backend.binding import BoundEngine
from fgdd_engines.onnxruntime_backend.cpu import OnnxRuntimeEngine
from fgdd_engines.onnxruntime_backend.session import session_options
from fgdd_fast.errors import EngineError

onnxruntime = pytest.importorskip("onnxruntime")
BATCH = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def reference(bundle: Bundle) -> Iterator[OnnxRuntimeEngine]:
    with OnnxRuntimeEngine(bundle, {"batch": BATCH}, 1) as engine:
        assert isinstance(engine, OnnxRuntimeEngine)
        yield engine


class Sessions:
    """Opens sessions on the CPU, and remembers what it was asked."""

    def __init__(self, bundle: Bundle, records: bool = True) -> None:
        self.bundle = bundle
        self.records = records
        self.asked: list[bool] = []

    def __call__(self, record: bool) -> Any:
        self.asked.append(record)
        if record and not self.records:
            raise EngineError("This session cannot use the graph capture feature")
        options = session_options(onnxruntime, {"batch": BATCH})
        return onnxruntime.InferenceSession(
            str(self.bundle.onnx), options, providers=["CPUExecutionProvider"]
        )


def bound(bundle: Bundle, opens: Any = None, streams: int = 2) -> BoundEngine:
    return BoundEngine(
        onnxruntime,
        bundle,
        {"batch": BATCH},
        opens or Sessions(bundle),
        device="cpu",
        streams=streams,
        arithmetic="ONNX Runtime, CPU",
    )


class TestBuffers:
    def test_results_are_those_of_the_cpu_engine(self, bundle: Bundle, reference: OnnxRuntimeEngine) -> None:
        with bound(bundle) as engine:
            assert (engine.inputs, engine.outputs) == (reference.inputs, reference.outputs)
            for seed in range(3):
                feeds = tiny_feeds(BATCH, seed)
                expected, found = reference.run(feeds), engine.run(feeds)
                assert list(found) == list(expected)
                for name, array in expected.items():
                    assert (found[name].dtype, found[name].tobytes()) == (array.dtype, array.tobytes())

    def test_many_callers_on_two_streams(self, bundle: Bundle, reference: OnnxRuntimeEngine) -> None:
        feeds = [tiny_feeds(BATCH, seed) for seed in range(12)]
        with bound(bundle) as engine, ThreadPoolExecutor(6) as callers:
            found = list(callers.map(engine.run, feeds * 4))
        expected = [reference.run(feed) for feed in feeds] * 4
        for one, other in zip(found, expected, strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in other)

    def test_results_are_the_callers_own(self, bundle: Bundle) -> None:
        with bound(bundle, streams=1) as engine:
            first = engine.run(tiny_feeds(BATCH, seed=0))
            kept = {name: array.copy() for name, array in first.items()}
            engine.run(tiny_feeds(BATCH, seed=1))
        assert all(np.array_equal(first[name], kept[name]) for name in kept)
        assert all(array.flags.writeable for array in first.values())

    def test_feeds_may_be_read_only_and_strided(self, bundle: Bundle, reference: OnnxRuntimeEngine) -> None:
        feeds = tiny_feeds(BATCH)
        mirrored = {name: np.ascontiguousarray(feed[::-1])[::-1] for name, feed in feeds.items()}
        for feed in mirrored.values():
            feed.setflags(write=False)
        with bound(bundle) as engine:
            found = engine.run(mirrored)
        expected = reference.run(feeds)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)

    def test_a_session_for_each_stream_where_graphs_are_recorded(self, bundle: Bundle) -> None:
        sessions = Sessions(bundle)
        bound(bundle, sessions, streams=3).close()
        assert sessions.asked == [True, True, True]

    def test_one_session_for_all_where_they_are_refused(
        self, bundle: Bundle, reference: OnnxRuntimeEngine
    ) -> None:
        sessions = Sessions(bundle, records=False)
        feeds = tiny_feeds(BATCH)
        with bound(bundle, sessions, streams=3) as engine:
            found = engine.run(feeds)
        assert sessions.asked == [True, False]
        assert np.array_equal(found["loss"], reference.run(feeds)["loss"])

    def test_a_graph_that_fails_when_it_is_recorded(
        self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
        with bound(bundle, opens) as engine:
            engine.run(tiny_feeds(BATCH))
        assert sessions.asked == [True, True, False]
        assert alive == [0, 1, 0]
