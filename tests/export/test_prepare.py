"""Models of the catalogue are made of their sources: U2-Netp, and what every recipe is held to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from catalogue_files import catalogue_data, real_source, write_catalogue
from installed_devices import available_devices
from numpy.typing import NDArray
from saliency_source import saliency_source

from fgdd_engines.factory import open_engine
from fgdd_export.catalogue import prepare as module
from fgdd_export.catalogue.prepare import Status, prepare, pull_model, verify
from fgdd_export.catalogue.u2netp import build_u2netp, prepare_u2netp, reference_probabilities
from fgdd_export.graphs.graph import OPSET, run_model, serialise
from fgdd_export.graphs.parity import drawn_images
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.models.catalogue.catalogue import Preparation, bundle_path, find_bundle, load_catalogue

BLACK = np.zeros((2, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return build_u2netp(saliency_source(), 96)


def test_graph_has_the_form_of_a_foreground_bundle(model: onnx.ModelProto) -> None:
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Shape", "Slice", "Unsqueeze", "Gather"}
    readers = [node.op_type for node in model.graph.node if "images" in node.input]
    assert readers == ["Cast"]  # all that TensorRT allows a uint8 input
    assert [entry.version for entry in model.opset_import] == [OPSET]
    assert [value.name for value in model.graph.output] == ["mask", "occupancy"]
    batch = {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.output}
    assert batch == {"batch"}


def test_graph_is_the_published_network(model: onnx.ModelProto) -> None:
    images = drawn_images(96, 96)
    reference = reference_probabilities(saliency_source(), images)
    found = run_model(serialise(model), {"images": images})
    assert found["mask"].dtype == np.uint8
    assert np.abs(found["mask"] - reference * 255).max() < 0.51  # rounded to the nearest grey level
    np.testing.assert_allclose(found["occupancy"], (reference > 0.5).mean(axis=(1, 2)), atol=1e-3)
    assert found["occupancy"].std() > 0.01
    assert found["mask"].min() == 0
    assert (found["mask"].max(axis=(1, 2)) == 255).all()


@pytest.mark.parametrize(
    ("source", "images"),
    [
        pytest.param(saliency_source(gain=0.1, bias=-5), drawn_images(64, 64), id="nothing likely"),
        pytest.param(saliency_source(gain=0, bias=3), drawn_images(64, 64), id="flat map"),
        pytest.param(saliency_source(gain=0.1, bias=-5), BLACK, id="black images"),
    ],
)
def test_where_nothing_is_found_occupancy_is_zero(source: bytes, images: NDArray[np.uint8]) -> None:
    found = run_model(serialise(build_u2netp(source, 64)), {"images": images})
    assert (found["occupancy"] == 0).all()
    assert (found["mask"] == 0).all()


def test_an_exporter_fault_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "source.onnx"
    path.write_bytes(saliency_source())
    monkeypatch.setattr("fgdd_export.catalogue.u2netp.MEAN", (0.0, 0.0, 0.0))
    wrong = build_u2netp(path.read_bytes(), 64)
    monkeypatch.undo()
    monkeypatch.setattr("fgdd_export.catalogue.u2netp.build_u2netp", lambda source, size: wrong)
    with pytest.raises(BundleError, match="differs from its source"):
        prepare_u2netp(path, Preparation("u2netp", 64))
    for size in (100, None):
        with pytest.raises(SettingsError, match="multiple of 32"):
            prepare_u2netp(path, Preparation("u2netp", size))


def test_other_models_are_refused() -> None:
    with pytest.raises(BundleError, match="no ONNX model"):
        build_u2netp(b"not a model", 64)
    with pytest.raises(BundleError, match="no U2-Netp"):
        build_u2netp(serialise(build_u2netp(saliency_source(), 64)), 64)


def test_preparing_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    """onnxslim imports ONNX Runtime, whose telemetry would leave an identifier there."""
    (tmp_path / "source.onnx").write_bytes(saliency_source())
    script = (
        "import sys\n"
        "from fgdd_export.catalogue.u2netp import build_u2netp\n"
        "build_u2netp(open(sys.argv[1], 'rb').read(), 64)\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("XDG_CACHE_HOME", None)
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "source.onnx")], env=environment, check=True)
    assert list(home.rglob("*")) == []


# From the catalogue's source to a bundle


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
    assert bundle.parity["max_probability_difference"] < 0.51 / 255
    assert bundle.parity["mask_iou_loss"] < 1e-3
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


def test_verify_tells_absent_damaged_and_outdated_apart(own_catalogue: Path) -> None:
    entry = load_catalogue()["mine"]
    assert verify(entry) == Status("absent")
    bundle = pull_model("mine")
    bundle.onnx.write_bytes(bundle.onnx.read_bytes()[:-1])
    assert verify(entry).state == "damaged"
    assert "SHA-256" in verify(entry).reason
    bundle.sidecar.unlink()
    assert verify(entry).state == "damaged"
    assert "sidecar" in verify(entry).reason
    data = json.loads(own_catalogue.read_text())
    data["models"][0]["preparation"]["size"] = 64
    own_catalogue.write_text(json.dumps(data))
    assert pull_model("mine").preprocessing.height == 64
    data["models"][0]["preparation"]["size"] = 32
    own_catalogue.write_text(json.dumps(data))
    assert verify(load_catalogue()["mine"]) == Status("outdated", "it was made with another size")


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
