"""Networks at a fixed batch."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny

from fgdd_fast.models.network import BatchedNetwork, Runtime

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, tiny.SIDE, tiny.SIDE, 3), dtype=np.uint8)


def test_several_outputs_come_from_one_inference(tmp_path: Path) -> None:
    bundle = tiny.foreground_bundle(tmp_path)
    feeds = {"images": images(5)}
    with closing(BatchedNetwork(bundle, Runtime("cpu", "fp32", 1), batch=2)) as network:
        both = network.run(feeds, ["mask", "occupancy"])
        assert list(both) == ["mask", "occupancy"]
        for name, array in both.items():
            assert np.array_equal(array, network.run(feeds, [name])[name])
    assert both["occupancy"] == pytest.approx((both["mask"] > 0).mean(axis=(1, 2)), abs=1e-6)


def test_a_network_fills_up_its_last_batch(tmp_path: Path) -> None:
    bundle = tiny.backbone_bundle(tmp_path)
    feeds = {"images": images(7)}
    with closing(BatchedNetwork(bundle, Runtime("cpu", "fp32", 1), batch=3)) as network:
        features = network.run(feeds, ["features"])["features"]
    assert features == pytest.approx(feeds["images"].mean(axis=(1, 2)), rel=1e-5)


def test_a_variant_runs_in_place_of_its_graph_and_stands_in_the_fingerprint(tmp_path: Path) -> None:
    bundle = tiny.teacher_bundle(tmp_path)
    other = tiny.teacher_bundle(tmp_path, tuple("dcba")[: len(bundle.classes or ())], "other")
    other = replace(other, sha256="f" * 64)
    runtime = Runtime("cpu", "fp32", 1, {bundle.sha256: other})
    with closing(BatchedNetwork(bundle, runtime, batch=1)) as network:
        assert network.fingerprint["model"] == "f" * 64
    with closing(BatchedNetwork(bundle, Runtime("cpu", "fp32", 1), batch=1)) as network:
        assert network.fingerprint["model"] == bundle.sha256


def test_a_graph_without_a_variant_stays_as_it_is_beside_others_that_have_one(tmp_path: Path) -> None:
    bundle, other = tiny.teacher_bundle(tmp_path), tiny.foreground_bundle(tmp_path)
    runtime = Runtime("cpu", "int8", 1, {bundle.sha256: replace(bundle, variant="int8-u8")})
    with closing(BatchedNetwork(bundle, runtime, batch=1)) as network:
        assert network.engine.arithmetic.endswith("int8")
    with closing(BatchedNetwork(other, runtime, batch=1)) as network:
        assert network.engine.arithmetic.endswith("fp32")
