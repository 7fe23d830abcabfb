from __future__ import annotations

import json
from pathlib import Path

import pytest
from catalogue_files import catalogue_data, real_source, write_catalogue
from installed_devices import available_devices
from saliency_source import saliency_source

from fgdd_engines.factory import open_engine
from fgdd_export.catalogue import prepare as module
from fgdd_export.catalogue.prepare import Status, prepare, pull_model, verify
from fgdd_export.graphs.parity import drawn_images
from fgdd_fast.errors import BundleError
from fgdd_fast.models.catalogue.catalogue import bundle_path, find_bundle, load_catalogue


@pytest.fixture
def own_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue whose model `mine` is a small network of U2-Netp's form, 32 pixels wide."""
    source = saliency_source()
    (tmp_path / "net.onnx").write_bytes(source)
    path = write_catalogue(tmp_path, catalogue_data(source, kind="file", path="net.onnx"))
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FGDD_FAST_CATALOGUE", str(path))
    return path


def test_pull_makes_a_bundle_that_runs(own_catalogue: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fgdd_export")
    bundle = pull_model("mine")
    assert "Preparing mine" in caplog.messages
    assert find_bundle("mine", "foreground") == bundle
    assert bundle.licence == "MIT"
    assert bundle.source["file"] == "net.onnx"
    assert str(own_catalogue.parent) not in bundle.sidecar.read_text()
    for device in available_devices():
        with open_engine(bundle, device=device, precision="fp32", axes={"batch": 4}, threads=1) as engine:
            occupancy = engine.run({"images": drawn_images(32, 32)}, ["occupancy"])["occupancy"]
            assert ((occupancy >= 0) & (occupancy <= 1)).all()


def test_pull_again_does_nothing(own_catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pull_model("mine")
    time = first.onnx.stat().st_mtime_ns
    assert pull_model("mine") == first
    assert first.onnx.stat().st_mtime_ns == time
    first.onnx.write_bytes(b"rotten")
    assert pull_model("mine") == first
    assert verify(load_catalogue()["mine"]) == Status("ok")
    monkeypatch.setattr(module, "RECIPE_VERSION", 99)
    assert verify(load_catalogue()["mine"]).state == "outdated"
    assert pull_model("mine").source["recipe_version"] == 99


def test_verify_tells_absent_from_damaged(own_catalogue: Path) -> None:
    entry = load_catalogue()["mine"]
    assert verify(entry) == Status("absent")
    bundle = pull_model("mine")
    bundle.onnx.write_bytes(bundle.onnx.read_bytes()[:-1])
    assert verify(entry).state == "damaged"
    assert "SHA-256" in verify(entry).reason
    bundle.sidecar.unlink()
    assert verify(entry).state == "damaged"
    assert "sidecar" in verify(entry).reason


def test_another_size_makes_the_bundle_outdated(own_catalogue: Path) -> None:
    pull_model("mine")
    data = json.loads(own_catalogue.read_text())
    data["models"][0]["preparation"]["size"] = 64
    own_catalogue.write_text(json.dumps(data))
    assert verify(load_catalogue()["mine"]) == Status("outdated", "it was made with another size")
    assert pull_model("mine").preprocessing.height == 64


@pytest.mark.parametrize("change", [{"role": "backbone"}, {"preparation": {"recipe": "efficientnet-lite0"}}])
def test_a_recipe_that_does_not_fit_writes_nothing(own_catalogue: Path, change: dict[str, object]) -> None:
    data = json.loads(own_catalogue.read_text())
    data["models"][0].update(change)
    own_catalogue.write_text(json.dumps(data))
    with pytest.raises(BundleError):
        pull_model("mine")
    assert not bundle_path(load_catalogue()["mine"]).exists()


def test_the_real_backbone_meets_its_golden_logits(tmp_path: Path) -> None:
    source = real_source("imagenet-efficientnet-lite0")
    bundle = prepare(load_catalogue()["imagenet-efficientnet-lite0"], source, tmp_path / "backbone.onnx")
    assert bundle.parity["max_logit_difference"] < 1e-4
    assert bundle.preprocessing.pad_value == (127, 127, 127)
    with open_engine(
        bundle, device="cpu", axes={"batch": 1, "height": 112, "width": 112}, threads=1
    ) as engine:
        features = engine.run({"images": drawn_images(112, 112)[:1]}, ["features"])["features"]
    assert features.shape == (1, 1280)


def test_another_network_fails_its_golden_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = real_source("imagenet-efficientnet-lite0")
    monkeypatch.setattr("fgdd_export.catalogue.efficientnet_lite.MEAN", 128.0)
    with pytest.raises(BundleError, match="max logit difference"):
        prepare(load_catalogue()["imagenet-efficientnet-lite0"], source, tmp_path / "backbone.onnx")
    assert list(tmp_path.iterdir()) == []
