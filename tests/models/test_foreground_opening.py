"""The foreground model that a user names is found, checked and opened."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from tiny_grounded import write_grounded_bundle

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.catalogue.catalogue import own_bundle_path
from fgdd_fast.models.factory import choose_foreground, open_foreground
from fgdd_fast.models.network import Runtime

RUNTIME = Runtime("cpu", "fp32", 2)
IMAGE = SourceImage("red/0.jpg", "red", Path("data"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGDD_FAST_CACHE", str(tmp_path / "cache"))


def test_a_prompted_bundle_is_asked_for_every_class(tmp_path: Path) -> None:
    bundle = write_grounded_bundle(tmp_path)
    choice = choose_foreground(str(bundle.onnx), ["red", "blue_green"], prompts={"red": ("a", "b")})
    assert (choice.name, choice.source) == (bundle.name, bundle)
    assert choice.prompts == {"red": ("a", "b"), "blue_green": ("blue green",)}
    assert choice.box_threshold == 0.4  # the bundle's own
    assert choose_foreground(str(bundle.onnx), ["red"], box_threshold=0.0).box_threshold == 0


def test_a_threshold_of_zero_is_an_option_too(tmp_path: Path) -> None:
    bundle = tiny.foreground_bundle(tmp_path)
    with pytest.raises(SettingsError, match="--box-threshold does not apply"):
        choose_foreground(str(bundle.onnx), ["red"], box_threshold=0.0)


def test_what_cannot_be_looked_for_is_told_without_opening_anything(tmp_path: Path) -> None:
    bundle = write_grounded_bundle(tmp_path)
    with pytest.raises(SettingsError, match="'n02123045'"):
        choose_foreground(str(bundle.onnx), ["red", "n02123045"])


@pytest.mark.parametrize("name", ["masks", "mask:folder", "nothing"])
def test_what_is_no_model_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="neither a foreground bundle"):
        choose_foreground(name, ["red"])


def test_each_kind_finds_a_red_square(tmp_path: Path) -> None:
    picture = tiny.square("red", 0.4)
    coloured = np.ptp(picture.astype(int), axis=2) > 60
    (tmp_path / "masks" / "red").mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / "masks" / "red" / "0.png"), coloured.astype(np.uint8) * 255)
    names = {
        str(tiny.foreground_bundle(tmp_path).onnx): True,
        str(write_grounded_bundle(tmp_path).onnx): True,
        f"masks:{tmp_path / 'masks'}": False,
    }
    opened: list[str] = []

    def runtime(bundle: Bundle) -> Runtime:
        opened.append(str(bundle.onnx))
        return RUNTIME

    for name in names:
        choice = choose_foreground(name, tiny.CLASSES)
        model = open_foreground(choice, runtime=runtime, batch=2, resize="area", threads=2)
        (found,) = model.find([model.prepare(picture, IMAGE)], masks=True)
        assert found.occupancy == pytest.approx(coloured.mean(), abs=0.08)
        assert found.mask is not None
        assert (found.mask > 127).mean() == pytest.approx(found.occupancy, abs=1e-6)
        model.close()
    assert opened == [name for name, has_engine in names.items() if has_engine]


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
