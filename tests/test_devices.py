"""A runtime is taken by itself only where it decides as the reference does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny
from tiny_grounded import write_grounded_bundle

from fgdd_fast import devices
from fgdd_fast.devices import Agreement, choose_device, measure_agreement
from fgdd_fast.engines.base import Array
from fgdd_fast.engines.bundle import Bundle
from fgdd_fast.errors import EngineError, MissingExtraError
from fgdd_fast.networks import BatchedNetwork, Runtime

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["foreground", "teacher", "backbone"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    makers = {
        "foreground": tiny.foreground_bundle,
        "teacher": tiny.teacher_bundle,
        "backbone": tiny.backbone_bundle,
    }
    return makers[request.param](tmp_path)


def distort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make OpenVINO's results wrong: other samples' results come back."""
    run = BatchedNetwork.run

    def distorted(self: BatchedNetwork, feeds: dict[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        results = run(self, feeds, outputs)
        step = -1 if "OpenVINO" in self.engine.arithmetic else 1
        return {name: result[::step].copy() for name, result in results.items()}

    monkeypatch.setattr(BatchedNetwork, "run", distorted)


def test_openvino_is_taken_where_it_agrees(bundle: Bundle) -> None:
    assert measure_agreement(bundle, "fp32").error < 1e-3
    choice = choose_device(bundle, "auto", "fp32")
    assert choice.device == "openvino"
    assert "agrees" in choice.reason


def test_openvino_is_not_taken_where_it_decides_otherwise(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    distort(monkeypatch)
    choice = choose_device(bundle, "auto", "fp32")
    assert choice.device == "cpu"
    assert "does not agree" in choice.reason


def test_the_verdict_is_remembered_for_the_same_model_only(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = choose_device(bundle, "auto", "fp32")

    def fail(*_: object) -> Agreement:
        raise AssertionError("it is known")

    with monkeypatch.context() as patch:
        patch.setattr(devices, "measure_agreement", fail)
        assert choose_device(bundle, "auto", "fp32") == first
        other = tiny.teacher_bundle(tmp_path, ("a", "b", "c"), "other")
        if other.sha256 != bundle.sha256:
            with pytest.raises(AssertionError, match="it is known"):
                choose_device(other, "auto", "fp32")
    for file in (tmp_path / "cache" / "agreement").iterdir():
        file.write_text("{")  # damaged: compared again
    assert choose_device(bundle, "auto", "fp32") == first


def test_a_model_that_openvino_cannot_run_goes_to_the_reference(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Agreement:
        raise EngineError("an operator is unknown")

    monkeypatch.setattr(devices, "measure_agreement", fail)
    choice = choose_device(bundle, "auto", "fp32")
    assert choice.device == "cpu"
    assert "an operator is unknown" in choice.reason


@pytest.mark.parametrize("installed", [("cpu",), ("openvino",)])
def test_the_only_runtime_is_taken(
    bundle: Bundle, installed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: installed)
    assert choose_device(bundle, "auto", "auto").device == installed[0]


def test_no_runtime_at_all_gives_the_install_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ())
    with pytest.raises(MissingExtraError, match=r"pip install 'fgdd-fast\[cpu\]'"):
        choose_device(bundle, "auto", "auto")


def test_what_is_asked_for_is_not_questioned(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ())
    assert choose_device(bundle, "openvino", "auto").device == "openvino"


def test_a_model_that_is_asked_for_a_class_runs_on_the_reference_uncompared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Agreement:
        raise AssertionError("nothing is compared")

    monkeypatch.setattr(devices, "measure_agreement", fail)
    bundle = write_grounded_bundle(tmp_path)
    choice = choose_device(bundle, "auto", "auto")
    assert choice.device == "cpu"
    assert "asked for a class" in choice.reason
    assert choose_device(bundle, "openvino", "auto").device == "openvino"


@pytest.mark.parametrize(("limit", "pictures"), [(10**9, 12), (1, 4)])
def test_a_large_network_is_shown_fewer_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, pictures: int
) -> None:
    shown: list[int] = []
    run = BatchedNetwork.run

    def counted(self: BatchedNetwork, feeds: dict[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        shown.append(len(feeds["images"]))
        return run(self, feeds, outputs)

    monkeypatch.setattr(BatchedNetwork, "run", counted)
    monkeypatch.setattr(devices, "FULL_COMPARISON", limit)
    assert measure_agreement(tiny.teacher_bundle(tmp_path), "fp32").accepted
    assert shown == [6 * pictures, 6 * pictures]


def test_several_outputs_come_from_one_inference(tmp_path: Path) -> None:
    bundle = tiny.foreground_bundle(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (5, tiny.SIDE, tiny.SIDE, 3), dtype=np.uint8)
    with closing(BatchedNetwork(bundle, Runtime("cpu", "fp32", 1), batch=2)) as network:
        both = network.run({"images": images}, ["mask", "occupancy"])
        assert list(both) == ["mask", "occupancy"]
        for name, array in both.items():
            assert np.array_equal(array, network.run({"images": images}, [name])[name])
    assert both["occupancy"] == pytest.approx((both["mask"] > 0).mean(axis=(1, 2)), abs=1e-6)


def test_a_network_fills_up_its_last_batch(tmp_path: Path) -> None:
    bundle = tiny.backbone_bundle(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (7, tiny.SIDE, tiny.SIDE, 3), dtype=np.uint8)
    network = BatchedNetwork(bundle, Runtime("cpu", "fp32", 1), batch=3)
    features = network.run({"images": images}, ["features"])["features"]
    network.close()
    assert features == pytest.approx(images.mean(axis=(1, 2)), rel=1e-5)
