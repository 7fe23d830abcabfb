from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import picture

transformers = pytest.importorskip("transformers")

from fgdd_export.checkpoints.pretrained import ProcessorSettings, read_processor  # noqa: E402
from fgdd_fast.errors import BundleError  # noqa: E402

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def write(folder: Path, data: object, name: str = "preprocessor_config.json") -> str:
    (folder / name).write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("architecture", "kind", "settings"),
    [
        ("vit", "ViTImageProcessorPil", {}),
        ("vit", "ViTImageProcessorPil", {"do_normalize": False}),
        ("vit", "ViTImageProcessorPil", {"do_rescale": False, "image_mean": [120, 110, 100]}),
        ("vit", "ViTImageProcessorPil", {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0]}),
        ("convnext", "ConvNextImageProcessorPil", {"image_mean": MEAN, "image_std": STD}),
        ("efficientnet", "EfficientNetImageProcessorPil", {"image_mean": MEAN, "image_std": STD}),
        ("efficientnet", "EfficientNetImageProcessorPil", {"include_top": False, "image_std": STD}),
    ],
)
def test_normalisation_is_the_processors_own(
    tmp_path: Path, architecture: str, kind: str, settings: dict[str, Any]
) -> None:
    module = f"transformers.models.{architecture}.image_processing_pil_{architecture}"
    try:
        processor = getattr(import_module(module), kind)(**settings)
    except ModuleNotFoundError:
        pytest.skip(f"this version of transformers has no {kind}")
    processor.save_pretrained(tmp_path)
    read = read_processor(str(tmp_path))
    assert read.mean is not None
    assert read.std is not None
    image = picture(40, 32)
    found = (image / 255 - np.array(read.mean)) / np.array(read.std)
    expected = processor(image, do_resize=False, do_center_crop=False, return_tensors="np")
    np.testing.assert_allclose(found.transpose(2, 0, 1), expected["pixel_values"][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ({"size": 224}, 224),
        ({"size": {"height": 192, "width": 192}}, 192),
        ({"size": {"shortest_edge": 256}}, 256),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, 224),
        ({"size": 256, "do_center_crop": True, "crop_size": {"height": 240, "width": 240}}, 240),
        ({"size": 256, "do_center_crop": False, "crop_size": 224}, 256),
        ({}, None),
    ],
)
def test_size_after_cropping(tmp_path: Path, data: dict[str, Any], size: int | None) -> None:
    assert read_processor(write(tmp_path, data)).size == size


def test_settings_within_a_processor_come_first(tmp_path: Path) -> None:
    write(tmp_path, {"size": 32})
    write(tmp_path, {"processor_class": "Some"}, "processor_config.json")
    assert read_processor(str(tmp_path)).size == 32
    write(tmp_path, {"image_processor": {"size": 64}}, "processor_config.json")
    assert read_processor(str(tmp_path)).size == 64


def test_what_is_not_said_is_not_known(tmp_path: Path) -> None:
    assert read_processor(str(tmp_path)) == ProcessorSettings()
    said = read_processor(write(tmp_path, {"size": 32}))
    assert said == ProcessorSettings(32, None, None)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ({"size": {"width": 3}}, "cannot be read"),
        ({"size": "large"}, "cannot be read"),
        ({"image_mean": "grey", "image_std": [1]}, "cannot be read"),
        ({"image_mean": MEAN, "image_std": STD, "rescale_factor": 0}, "cannot be read"),
        ({"size": {"height": 192, "width": 256}}, "192 x 256 pixels, not square"),
        ({"do_flip_channel_order": True}, "as BGR"),
    ],
)
def test_bad_settings_are_told(tmp_path: Path, data: object, problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        read_processor(write(tmp_path, data))
