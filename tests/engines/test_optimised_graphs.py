"""Graphs that ONNX Runtime's CPU provider optimised: kept once, used again, and done without when need be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import external_data_helper
from tiny_models import tiny_bundle, tiny_description, tiny_feeds, tiny_graph

from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.bundle.files import file_sha256
from fgdd_engines.onnxruntime_backend import optimised_graphs
from fgdd_engines.onnxruntime_backend.cpu import OnnxRuntimeEngine

onnxruntime = pytest.importorskip("onnxruntime")
BATCH = 4


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where graphs are kept; every model is worth it."""
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(optimised_graphs, "WORTH_KEEPING", 0)
    return tmp_path / "cache" / "onnxruntime"


def results(bundle: Bundle, batch: int = BATCH) -> dict[str, Array]:
    with OnnxRuntimeEngine(bundle, {"batch": batch}, 1) as engine:
        return engine.run(tiny_feeds(batch))


def same(first: dict[str, Array], second: dict[str, Array]) -> bool:
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_results_are_the_same_to_the_bit(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = results(bundle), results(bundle)
    monkeypatch.setattr(optimised_graphs, "WORTH_KEEPING", 1 << 40)
    assert all(same(one, results(bundle)) for one in kept)
    (folder,) = cache.iterdir()
    assert {file.name for file in folder.iterdir()} == {"graph.onnx", "weights.bin", "sha256.json"}


def test_the_kept_one_is_what_runs(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results(bundle)
    opened = []
    session = onnxruntime.InferenceSession

    def open_session(path: str, **settings: Any) -> Any:
        opened.append(Path(path).relative_to(cache).name)
        return session(path, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    results(bundle)
    assert opened == ["graph.onnx"]


def test_other_shapes_have_their_own(bundle: Bundle, cache: Path) -> None:
    results(bundle)
    results(bundle, batch=2)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_one_is_made_again(bundle: Bundle, cache: Path, damage: bytes | None) -> None:
    expected = results(bundle)
    (folder,) = cache.iterdir()
    graph = (folder / "graph.onnx").read_bytes()
    if damage is None:
        (folder / "graph.onnx").unlink()
    else:
        (folder / "graph.onnx").write_bytes(damage)
    assert same(results(bundle), expected)
    assert (folder / "graph.onnx").read_bytes() == graph


def test_a_cache_that_cannot_be_written_is_done_without(bundle: Bundle, cache: Path) -> None:
    cache.parent.write_text("a file in the place of the folder")
    assert results(bundle)["loss"].shape == (BATCH,)


def test_a_full_disk_leaves_nothing(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(optimised_graphs, "write_checksums", full)
    assert results(bundle)["loss"].shape == (BATCH,)
    assert list(cache.iterdir()) == []


def test_a_small_model_is_not_worth_it(bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimised_graphs, "WORTH_KEEPING", bundle.onnx.stat().st_size + 1)
    results(bundle)
    assert not cache.exists()


def test_other_weights_beside_the_same_graph_have_their_own(tmp_path: Path, cache: Path) -> None:
    model = onnx.load_model_from_string(tiny_graph())
    external_data_helper.convert_model_to_external_data(model, location="tiny.weights", size_threshold=100)
    external_data_helper.write_external_data_tensors(model, str(tmp_path))
    weights = tmp_path / "tiny.weights"
    given = []
    for _ in range(2):
        description = replace(
            tiny_description(tmp_path / "tiny.onnx"), files={"weights": file_sha256(weights)}
        )
        given.append(results(write_bundle(description, model.SerializeToString())))
        weights.write_bytes((np.frombuffer(weights.read_bytes(), np.float32) * 2).tobytes())
    assert not same(*given)
