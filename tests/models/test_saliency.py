"""A saliency model behind the interface of all foreground models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny

from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import RESIZE_METHODS, ResizeMethod, resize, resize_arithmetic
from fgdd_fast.models.foreground import ForegroundModel
from fgdd_fast.models.network import BatchedNetwork, Runtime
from fgdd_fast.models.saliency import SaliencyModel

IMAGE = SourceImage("red/00.png", "red", Path("data"))


@pytest.fixture
def model(tmp_path: Path) -> Iterator[ForegroundModel]:
    model = SaliencyModel(tiny.foreground_bundle(tmp_path), Runtime("cpu", "fp32", 2), batch=4, resize="area")
    yield model
    model.close()


def test_occupancies_and_masks_are_those_of_each_image(model: ForegroundModel) -> None:
    pictures = [tiny.square("red", share) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    prepared = [model.prepare(picture, IMAGE) for picture in pictures]
    for picture, inputs, found in zip(pictures, prepared, model.find(prepared, masks=True), strict=True):
        coloured = np.ptp(picture.astype(int), axis=2) > 60
        assert found.occupancy == pytest.approx(coloured.mean(), abs=0.08)  # seen at 16 x 16
        assert found.mask is not None
        assert (found.mask > 127).mean() == pytest.approx(found.occupancy, abs=1e-6)
        assert found.boxes == ()
        alone = model.find([inputs])[0]
        assert (alone.occupancy, alone.mask) == (found.occupancy, None)
    assert model.find([], masks=True) == []


@pytest.mark.parametrize("method", RESIZE_METHODS)
def test_images_are_resized_as_asked_and_the_fingerprint_says_so(
    tmp_path: Path, method: ResizeMethod
) -> None:
    bundle = tiny.foreground_bundle(tmp_path)
    model = SaliencyModel(bundle, Runtime("cpu", "fp32", 1), batch=1, resize=method)
    picture = tiny.square("green", 0.4)
    expected = resize(picture, (tiny.SIDE, tiny.SIDE), method)
    assert np.array_equal(model.prepare(picture, IMAGE)["images"], expected)
    assert model.fingerprint("red") == model.fingerprint("green")
    assert model.fingerprint("red")["resize"] == resize_arithmetic(method)
    assert (model.name, model.sha256) == ("tiny-foreground", bundle.sha256)
    model.close()


def test_the_number_of_threads_plays_no_part_in_reports_and_keys(tmp_path: Path) -> None:
    models = [
        SaliencyModel(
            tiny.foreground_bundle(tmp_path), Runtime("cpu", "fp32", threads), batch=1, resize="area"
        )
        for threads in (1, 3)
    ]
    assert models[0].description == models[1].description
    assert models[0].fingerprint("red") == models[1].fingerprint("red")
    assert [model.streams for model in models] == [1, 3]
    for model in models:
        model.close()


def test_a_graph_without_a_variant_stays_as_it_is_beside_others_that_have_one(tmp_path: Path) -> None:
    bundle, other = tiny.teacher_bundle(tmp_path), tiny.foreground_bundle(tmp_path)
    runtime = Runtime("cpu", "int8", 1, {bundle.sha256: replace(bundle, variant="int8-u8")})
    with closing(BatchedNetwork(bundle, runtime, batch=1)) as network:
        assert network.engine.arithmetic.endswith("int8")
    with closing(BatchedNetwork(other, runtime, batch=1)) as network:
        assert network.engine.arithmetic.endswith("fp32")
