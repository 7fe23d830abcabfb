"""One contract for every runtime, and what a result may depend on: the sample alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from every_engine import BATCH, KINDS, LABELS, Kind, open_kind
from tiny_models import CLASSES, SIDE, tiny_feeds, tiny_reference

from fgdd_engines.base import Array, Engine, TensorSpec
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.pool import Pool
from fgdd_fast.errors import EngineError


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def engine(bundle: Bundle, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with open_kind(kind, bundle, monkeypatch) as engine:
        yield engine


class TestContract:
    def test_the_tensors_have_the_chosen_lengths(self, engine: Engine) -> None:
        assert engine.inputs == (
            TensorSpec("images", "uint8", (BATCH, SIDE, SIDE, 3)),
            TensorSpec("labels", "int32", (BATCH,)),
        )
        assert engine.outputs == (
            TensorSpec("logits", "float32", (BATCH, len(CLASSES))),
            TensorSpec("loss", "float32", (BATCH,)),
            TensorSpec("mask", "uint8", (BATCH, SIDE, SIDE)),
        )

    def test_it_computes_what_the_graph_says(self, engine: Engine, kind: Kind) -> None:
        feeds = tiny_feeds(BATCH)
        results = engine.run(feeds)
        for spec in engine.outputs:
            assert (results[spec.name].dtype.name, results[spec.name].shape) == (spec.dtype, spec.shape)
        logits, losses = tiny_reference(feeds)
        np.testing.assert_allclose(results["logits"], logits, rtol=0, atol=kind.tolerance)
        np.testing.assert_allclose(results["loss"], losses, rtol=0, atol=2 * kind.tolerance)
        if kind.variant is not None:
            assert not np.allclose(results["logits"], logits, rtol=0, atol=1e-6)

    def test_the_loss_is_exact_for_its_logits_at_any_precision(self, engine: Engine) -> None:
        feeds = tiny_feeds(BATCH)
        results = engine.run(feeds)
        logits = results["logits"].astype(np.float64)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(BATCH), feeds["labels"]]
        np.testing.assert_allclose(results["loss"], losses, rtol=1e-6, atol=1e-6)

    def test_only_the_outputs_wanted_come(self, engine: Engine) -> None:
        feeds = tiny_feeds(BATCH)
        everything = engine.run(feeds)
        some = engine.run(feeds, ["mask", "loss"])
        assert list(some) == ["mask", "loss"]
        assert all(np.array_equal(some[name], everything[name]) for name in some)

    def test_results_are_the_callers_own(self, engine: Engine) -> None:
        first = engine.run(tiny_feeds(BATCH, seed=0))
        kept = {name: array.copy() for name, array in first.items()}
        engine.run(tiny_feeds(BATCH, seed=1))
        assert all(np.array_equal(first[name], kept[name]) for name in kept)
        assert all(array.flags.writeable for array in first.values())

    def test_feeds_may_be_read_only_and_strided(self, engine: Engine) -> None:
        feeds = tiny_feeds(BATCH)
        mirrored = {name: np.ascontiguousarray(feed[::-1])[::-1] for name, feed in feeds.items()}
        for feed in mirrored.values():
            feed.setflags(write=False)
        expected, found = engine.run(feeds), engine.run(mirrored)
        assert all(np.array_equal(expected[name], found[name]) for name in expected)

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"labels": None}, "takes the inputs"),
            ({"weights": np.zeros(3)}, "takes the inputs"),
            ({"labels": np.zeros(BATCH, np.int64)}, "'labels' takes int32"),
            ({"images": np.zeros((BATCH, SIDE, SIDE, 3), np.float32)}, "'images' takes uint8"),
            ({"images": np.zeros((BATCH - 1, SIDE, SIDE, 3), np.uint8)}, "'images' takes uint8"),
            ({"images": np.zeros((BATCH, 3, SIDE, SIDE), np.uint8)}, "'images' takes uint8"),
        ],
    )
    def test_wrong_feeds_are_refused(
        self, engine: Engine, change: dict[str, Array | None], problem: str
    ) -> None:
        feeds = {name: feed for name, feed in {**tiny_feeds(BATCH), **change}.items() if feed is not None}
        with pytest.raises(EngineError, match=problem):
            engine.run(feeds)

    def test_an_unknown_output_is_refused(self, engine: Engine) -> None:
        with pytest.raises(EngineError, match=r"no output.*'probabilities'"):
            engine.run(tiny_feeds(BATCH), ["probabilities"])

    def test_a_closed_engine_refuses_to_run(self, engine: Engine) -> None:
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            engine.run(tiny_feeds(BATCH))

    def test_the_description_names_runtime_precision_and_streams(self, engine: Engine, kind: Kind) -> None:
        assert engine.arithmetic.startswith(LABELS[kind.device])
        assert engine.arithmetic.endswith(kind.arithmetics)
        assert engine.description.startswith(engine.arithmetic)
        assert f", {engine.streams} stream" in engine.description


class TestWhatAResultDependsOn:
    """A sample's result is the same to the last bit whatever surrounds it."""

    COUNT = 24

    def results(self, engine: Engine, order: list[int], workers: int) -> dict[int, set[bytes]]:
        """Run the samples in this order, in whole batches from several threads; what each one gave."""
        feeds = tiny_feeds(self.COUNT)
        batch = engine.inputs[0].shape[0]
        assert isinstance(batch, int)
        parts = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]

        def run(part: list[int]) -> list[bytes]:
            outputs = engine.run({name: feed[part] for name, feed in feeds.items()})
            return [b"".join(array[row].tobytes() for array in outputs.values()) for row in range(batch)]

        given: dict[int, set[bytes]] = {}
        with ThreadPoolExecutor(workers) as pool:
            for part, rows in zip(parts, pool.map(run, parts), strict=True):
                for sample, result in zip(part, rows, strict=True):
                    given.setdefault(sample, set()).add(result)
        return given

    @pytest.mark.parametrize("batch", [1, 6])
    def test_the_sample_alone(
        self, bundle: Bundle, kind: Kind, batch: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(0)
        order = [int(i) for _ in range(12) for i in rng.permutation(self.COUNT)]
        by_threads = []
        for threads in (1, 2, 3):
            with open_kind(kind, bundle, monkeypatch, batch=batch, threads=threads) as engine:
                by_threads.append(self.results(engine, order, workers=threads))
        assert all(len(results) == 1 for results in by_threads[0].values())
        assert all(given == by_threads[0] for given in by_threads)
        assert len(by_threads[0]) == self.COUNT

    def test_four_threads_on_two_streams(self, engine: Engine) -> None:
        order = list(range(self.COUNT)) * 8
        assert self.results(engine, order, workers=4) == self.results(engine, order, workers=1)


class TestPool:
    def test_closing_waits_for_what_is_lent_and_turns_waiters_away(self) -> None:
        pool = Pool(["only"])
        turned_away = threading.Event()

        def borrow() -> None:
            with pool.borrow():
                pass

        def wait_in_vain() -> None:
            with pytest.raises(EngineError, match="closed"):
                borrow()
            turned_away.set()

        with pool.borrow() as member:
            assert member == "only"
            closer = threading.Thread(target=pool.close)
            closer.start()
            closer.join(0.05)
            assert closer.is_alive()
            waiter = threading.Thread(target=wait_in_vain)
            waiter.start()
        closer.join(5)
        waiter.join(5)
        assert not closer.is_alive()
        assert turned_away.is_set()
        with pytest.raises(EngineError, match="closed"):
            borrow()

    def test_a_member_comes_back_after_an_error(self) -> None:
        pool = Pool(["only"])
        with pytest.raises(ValueError, match="wrong"), pool.borrow():
            raise ValueError("wrong")
        with pool.borrow() as member:
            assert member == "only"
