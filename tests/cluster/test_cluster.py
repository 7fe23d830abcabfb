"""Workers of a cluster die, and nothing is lost; what cannot work is refused."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipeline as tiny
from fake_ray import FakeRay, FakeWorker
from hypothesis import given
from hypothesis import strategies as st
from tiny_distillation import assert_refused, contents, distill
from tiny_labels import label, make_out
from tiny_measuring import RUNTIME

from fgdd_engines.errors import BundleError, EngineError, MissingExtraError
from fgdd_fast.cluster import cluster
from fgdd_fast.cluster.cluster import Cluster
from fgdd_fast.labels import making
from fgdd_fast.models.saliency import SaliencyModel


def cluster_of(ray: FakeRay, count: int, function: Callable[[Any], Any]) -> tuple[Cluster, list[FakeWorker]]:
    workers = [FakeWorker(ray, place, function) for place in range(count)]
    return Cluster(ray, workers, 1), workers


def squares(ray: FakeRay, count: int, items: int = 20) -> list[int]:
    found, _ = cluster_of(ray, count, lambda item: item**2)
    return sorted(found.map(lambda item: item**2, range(items), str))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.2)
    monkeypatch.setattr(cluster.time, "sleep", lambda _: None)


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 19)), max_size=30))
def test_every_item_is_done_once_whichever_workers_die(count: int, deaths: list[tuple[int, int]]) -> None:
    left = Counter({death: min(times, 2) for death, times in Counter(deaths).items()})

    def dies(place: int, item: int) -> bool:
        left[place, item] -= 1
        return left[place, item] >= 0

    assert squares(FakeRay(dies), count) == [item**2 for item in range(20)]


def test_workers_that_never_return_are_not_waited_for() -> None:
    ray = FakeRay(lambda place, _: place > 0, returns=False)
    assert squares(ray, 3) == [item**2 for item in range(20)]


def test_all_workers_get_work() -> None:
    ray = FakeRay()
    found, workers = cluster_of(ray, 4, str)
    assert len(list(found.map(str, range(8), str))) == 8
    assert min(worker.calls for worker in workers) > 0


def test_without_any_worker_it_does_not_wait_for_ever() -> None:
    with pytest.raises(EngineError, match="no worker that is running"):
        squares(FakeRay(lambda *_: True, returns=False), 2)


def test_what_kills_every_worker_is_named() -> None:
    with pytest.raises(EngineError, match="10 workers died, one after another, at 7: it died"):
        squares(FakeRay(lambda _, item: item == 7), 3)


def test_an_error_arrives_as_it_was_raised() -> None:
    def fail(item: int) -> None:
        raise MissingExtraError("openvino", "cpu")

    found, _ = cluster_of(FakeRay(), 2, fail)
    with pytest.raises(MissingExtraError, match="'openvino' is not installed") as caught:
        list(found.map(fail, range(3), str))
    assert "fgdd-fast[cpu]" in caught.value.advice


def test_a_model_opens_anew_in_another_process(tmp_path: Path) -> None:
    model = SaliencyModel(tiny.foreground_bundle(tmp_path), RUNTIME, batch=2, resize="area")
    pixels = tiny.square("red", 0.5)
    pickled = pickle.dumps(model)
    copies = [pickle.loads(pickled) for _ in range(2)]
    assert copies[0]._network.engine is copies[1]._network.engine  # it opens once
    for copy in copies:
        assert copy.fingerprint("red") == model.fingerprint("red")
        inputs = [each.prepare(pixels, None) for each in (model, copy)]  # type: ignore[arg-type]
        assert np.array_equal(model.find(inputs[:1])[0].occupancy, copy.find(inputs[1:])[0].occupancy)
    model.close()


def test_another_model_at_its_path_is_refused(tmp_path: Path) -> None:
    model = SaliencyModel(tiny.foreground_bundle(tmp_path), RUNTIME, batch=1, resize="area")
    pickled = pickle.dumps(model)
    tiny.foreground_bundle(tmp_path, side=32)
    with pytest.raises(EngineError, match="is another one here"):
        pickle.loads(pickled)
    (tmp_path / "tiny-foreground.onnx").write_bytes(b"")
    with pytest.raises(BundleError):
        pickle.loads(pickled)


class Backwards:
    """A cluster whose workers answer in the wrong order, each after it was sent what it calls."""

    def map(
        self, function: Callable[[Any], Any], items: Iterable[Any], name: Callable[[Any], str]
    ) -> Iterator[Any]:
        received = pickle.loads(pickle.dumps(function))
        yield from reversed([received(item) for item in items])


def test_labels_are_the_same_whoever_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make_out(tmp_path)
    assert label(out).exit_code == 0
    expected = contents(out / "labels")
    shutil.rmtree(out / "labels")
    monkeypatch.setattr(making, "workers_for", lambda options, _: nullcontext((Backwards(), options)))
    assert label(out, executor="ray").exit_code == 0
    assert contents(out / "labels") == expected


def test_what_cannot_be_is_refused(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(distill(workplace, executor="dask"), "There is no executor 'dask'")
    assert_refused(distill(workplace, executor="ray:"), "There is no executor 'ray:'")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert_refused(distill(workplace, executor="ray"), "pip install 'fgdd-fast[ray]'")
