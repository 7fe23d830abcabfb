"""The foreground model that a user names is found: a bundle, a family of the project, or one of a plug-in."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner
from plugin_packages import install_plugin
from tiny_distillation import distill
from tiny_grounded import scene, write_grounded_bundle

from fgdd_engines.bundle.bundle import Bundle, write_bundle
from fgdd_engines.plugins import FOREGROUNDS, Plugin
from fgdd_fast.cli import main
from fgdd_fast.errors import BundleError, FgddError, SettingsError
from fgdd_fast.images.dataset import SourceImage, scan
from fgdd_fast.models import grounded_sam2
from fgdd_fast.models.catalogue.catalogue import own_bundle_path
from fgdd_fast.models.factory import choose_as_exported, choose_foreground, list_families, open_foreground
from fgdd_fast.models.foreground import FingerprintsImages, ForegroundChoice
from fgdd_fast.models.given.masks import MASKS
from fgdd_fast.models.grounded_sam2 import GroundedSam2
from fgdd_fast.models.network import BatchedNetwork, Runtime


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))


def test_a_threshold_of_zero_is_an_option_too(tmp_path: Path) -> None:
    bundle = tiny.foreground_bundle(tmp_path)
    with pytest.raises(SettingsError, match="--box-threshold does not apply"):
        choose_foreground(str(bundle.onnx), ["red"], box_threshold=0.0)
    prompted = write_grounded_bundle(tmp_path)
    assert choose_foreground(str(prompted.onnx), ["red"], box_threshold=0.0).box_threshold == 0


@pytest.mark.parametrize("name", ["masks", "mask:folder", "nothing"])
def test_what_is_no_model_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="neither a foreground bundle"):
        choose_foreground(name, ["red"])


def test_the_exported_model_has_a_name_of_its_own() -> None:
    with pytest.raises(BundleError, match="has not been exported yet") as caught:
        choose_foreground("grounded-sam2", ["red"])
    assert "fgdd-fast export grounded-sam2" in caught.value.advice
    place = own_bundle_path("grounded-sam2")
    place.parent.mkdir(parents=True)
    bundle = write_grounded_bundle(place.parent)
    for part in ("", ".text"):
        for suffix in ("onnx", "json"):
            bundle.onnx.with_name(f"{bundle.onnx.stem}{part}.{suffix}").rename(
                place.with_name(f"grounded-sam2{part}.{suffix}")
            )
    assert choose_foreground("grounded-sam2", ["red"]).source.sha256 == bundle.sha256


def test_saliency_is_short_for_the_model_of_the_catalogue() -> None:
    with pytest.raises(BundleError, match="saliency-u2netp has not been pulled"):
        choose_foreground("saliency", ["red"])


# A family from outside: an installed package offers it, and no file of this project knows it

CIRCLE = '''
import hashlib
import numpy as np
from fgdd_fast.models.foreground import Foreground, ForegroundFamily

class Circles:
    """Finds the same circle in every image."""

    def __init__(self, radius):
        self.radius, self.name, self.description, self.streams = radius, "circle", "a fixed circle", 1
        self.sha256 = hashlib.sha256(str(radius).encode()).hexdigest()

    def fingerprint(self, class_name):
        return {"radius": str(self.radius)}

    def prepare(self, pixels, image):
        return {"radius": np.asarray(self.radius)}

    def find(self, prepared, *, masks=False):
        y, x = np.mgrid[-1:1:64j, -1:1:64j]
        mask = np.uint8(255) * (x * x + y * y < self.radius**2).astype(np.uint8)
        return [Foreground(float((mask > 0).mean()), mask=mask if masks else None) for _ in prepared]

    def close(self):
        pass

class Family(ForegroundFamily):
    name = spelling = "circle"

    def find(self, argument):
        return argument or "0.5"

    def open(self, choice, **_):
        return Circles(float(choice.source) if isinstance(choice.source, str) else 0.25)

PLUGIN = Family()
'''


@pytest.fixture
def circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    install_plugin(
        monkeypatch,
        folder,
        group=FOREGROUNDS,
        name="circle",
        module="circle_family",
        code=CIRCLE,
        distribution="toy-circles",
    )


def test_a_family_from_outside_distils(workplace: Path, circle: None) -> None:
    result = distill(workplace, foreground="circle:0.6")
    assert result.exit_code == 0, result.output
    data = json.loads((workplace / "out" / "manifest.json").read_text())
    assert data["models"]["foreground"]["name"] == "circle"
    assert data["models"]["foreground"]["plug-in"] == "toy-circles 1.2"
    assert "plug-in" not in data["models"]["teacher"]
    (occupancy,) = {tile["occupancy"] for image in data["images"] for tile in image["tiles"]}
    assert occupancy == pytest.approx(np.pi * 0.6**2 / 4, abs=0.02)
    words = ["sheet", workplace / "out", workplace / "data", "-o", workplace / "sheet.png"]
    sheet = CliRunner().invoke(main, [*map(str, words)])
    assert sheet.exit_code == 1  # of another radius, which the manifest does not know
    assert "not the one" in sheet.output


def test_the_version_of_the_package_is_part_of_the_fingerprint(workplace: Path, circle: None) -> None:
    options = {"runtime": lambda _: Runtime("cpu", "fp32", 1), "batch": 1, "resize": "area", "threads": 1}
    model = open_foreground(choose_foreground("circle", tiny.CLASSES), **options)  # type: ignore[arg-type]
    assert model.fingerprint("red") == {"radius": "0.5", "plug-in": "toy-circles 1.2"}
    own = tiny.foreground_bundle(workplace)
    model = open_foreground(choose_foreground(str(own.onnx), tiny.CLASSES), **options)  # type: ignore[arg-type]
    assert "plug-in" not in model.fingerprint("red")
    model.close()


def test_a_bundle_names_its_family(workplace: Path, circle: None, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny.foreground_bundle(workplace)
    bundle = write_bundle(replace(bundle, prompting={"family": "circle"}), bundle.onnx.read_bytes())
    choice = choose_foreground(str(bundle.onnx), tiny.CLASSES)
    assert (choice.name, str(choice.plugin)) == (bundle.name, "toy-circles 1.2")
    assert choose_as_exported(bundle, tiny.CLASSES) == choice
    monkeypatch.setattr("fgdd_fast.models.factory._plugins", dict)
    with pytest.raises(BundleError, match="the family 'circle', which is not installed"):
        choose_foreground(str(bundle.onnx), tiny.CLASSES)


def test_a_broken_family_is_named_and_stops_nothing_else(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(
        monkeypatch,
        workplace,
        group=FOREGROUNDS,
        name="broken",
        module="broken_family",
        code="raise RuntimeError('half-installed')",
    )
    with pytest.raises(FgddError, match=r"broken_family 1\.2.*half-installed"):
        choose_foreground("broken", tiny.CLASSES)
    result = distill(workplace, foreground="broken")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert distill(workplace).exit_code == 0
    *known, broken = list_families()
    given = ["masks:FOLDER", "stored-masks:FOLDER", "alpha", "coco:FILE", "yolo:FOLDER"]
    assert [each.spelling for each in known] == ["saliency", "grounded-sam2", "cam", *given, "none"]
    assert (broken.spelling, broken.origin) == ("broken", "broken_family 1.2")
    assert "half-installed" in broken.problem


def test_what_a_plug_in_s_model_needs_of_each_image_is_asked_for(tmp_path: Path) -> None:
    tiny.write_squares(tmp_path / "data", 2)
    source = tiny.write_masks(tmp_path)
    plugin = Plugin("drawn", "drawn:MASKS", "drawn-masks", "1.2")
    choice = ForegroundChoice(source, tiny.CLASSES, family=MASKS, plugin=plugin)
    with closing(open_foreground(choice, runtime=no_runtime, batch=1, resize="area", threads=1)) as model:
        assert isinstance(model, FingerprintsImages)
        images = scan(tmp_path / "data").images
        found = {str(model.image_fingerprint(image)) for image in images}
    assert len(found) > 1  # masks of other squares
    assert all("drawn-masks 1.2" in each for each in found)


def no_runtime(bundle: Bundle) -> Runtime:
    raise AssertionError("masks are run by nothing")


@pytest.mark.parametrize("split", [False, True])
def test_the_text_encoder_is_gone_before_the_other_networks_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: bool
) -> None:
    pytest.importorskip("tokenizers")
    events: list[tuple[str, str]] = []

    class Watched(BatchedNetwork):
        def __init__(self, graph: Bundle, *args: Any, **options: Any) -> None:
            super().__init__(graph, *args, **options)
            events.append(("opened", graph.role))

        def close(self) -> None:
            super().close()
            events.append(("closed", self.bundle.role))

    monkeypatch.setattr(grounded_sam2, "BatchedNetwork", Watched)
    choice = choose_foreground(
        str(write_grounded_bundle(tmp_path, split=split).onnx),
        ["blue", "green", "red"],
        prompts={"green": ("red",)},
    )
    runtime = Runtime("cpu", "fp32", 1)
    model = open_foreground(choice, runtime=lambda _: runtime, batch=2, resize="area", threads=1)
    with closing(model):
        assert isinstance(model, GroundedSam2)
        opened = ["opened text-encoder", "closed text-encoder", "opened foreground"]
        assert [" ".join(event) for event in events[:3]] == opened
        assert [*model.tokens] == ["a blue.", "a red."]  # equal prompts are encoded once
        pixels = scene((16, 32), red=(0, 0, 16, 16))
        images = [SourceImage(f"{name}/1.png", name, tmp_path) for name in ("green", "red", "blue")]
        found = model.find([model.prepare(pixels, image) for image in images])
    assert [each.occupancy for each in found] == [0.5, 0.5, 0]
    assert events.count(("opened", "text-encoder")) == 1
