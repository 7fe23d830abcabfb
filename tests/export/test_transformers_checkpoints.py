# ruff: noqa: E402 - what needs PyTorch is imported once it is known to be there
"""Checkpoints as transformers saves them, with Grounding DINO as the example: what is read and refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hostile_pickles import Harmful
from image_files import picture
from safetensors.torch import load_file, save_file
from tiny_grounded import tokenizer_json
from tiny_networks import save_grounding_dino

from fgdd_export.checkpoints.pretrained import ProcessorSettings, load_config, provenance, read_processor
from fgdd_export.grounding_dino.network import load_grounding_dino
from fgdd_fast.errors import BundleError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_grounding_dino(tmp_path_factory.mktemp("checkpoint"))


def test_loading_reads_the_processor_and_the_tokenizer(checkpoint: Path) -> None:
    loaded = load_grounding_dino(str(checkpoint))
    assert loaded.tokenizer == tokenizer_json()
    assert loaded.image_mean == (0.485, 0.456, 0.406)
    assert loaded.image_std == (0.229, 0.224, 0.225)
    assert (loaded.shortest_edge, loaded.longest_edge) == (80, 133)
    assert loaded.unused == ()
    assert not loaded.model.training


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint to be damaged."""
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edit_json(path: Path, changes: Mapping[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_settings_inside_processor_config_are_found(copied: Path) -> None:
    """As newer versions of transformers save them."""
    (copied / "preprocessor_config.json").rename(copied / "processor_config.json")
    settings = json.loads((copied / "processor_config.json").read_text())
    settings["size"] = {"shortest_edge": 7, "longest_edge": 9}
    (copied / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    loaded = load_grounding_dino(str(copied))
    assert (loaded.shortest_edge, loaded.longest_edge) == (7, 9)


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        ("config.json", {"model_type": "resnet"}, "is a resnet, not a grounding-dino"),
        ("config.json", {"two_stage": False}, "two_stage"),
        ("config.json", {"position_embedding_type": "learned"}, "position_embedding_type"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, "preprocessor_config.json"),
        ("preprocessor_config.json", {"size": {"height": 8, "width": 8}}, "shortest_edge"),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, "multiplies pixels by 1.0"),
    ],
)
def test_unsuitable_settings_are_refused(
    copied: Path, file: str, changes: Mapping[str, object], problem: str
) -> None:
    edit_json(copied / file, changes)
    with pytest.raises(BundleError, match=problem):
        load_grounding_dino(str(copied))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_missing_and_damaged_files_are_named(copied: Path, file: str, content: bytes | None) -> None:
    if content is None:
        (copied / file).unlink()
    else:
        (copied / file).write_bytes(content)
    with pytest.raises(BundleError, match=str(copied) if file == "config.json" else file):
        load_grounding_dino(str(copied))


def test_tensors_that_do_not_fill_the_network_are_refused(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    more = tensors | {"more": tensors["model.level_embed"].clone()}
    save_file(more, copied / "model.safetensors", metadata={"format": "pt"})
    assert load_grounding_dino(str(copied)).unused == ("more",)
    name = "model.encoder.layers.1.fusion_layer.attn.vision_proj.weight"
    fewer = {key: tensor for key, tensor in tensors.items() if key != name}
    save_file(fewer, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BundleError, match=f"lacks 1 of .*: {name}"):
        load_grounding_dino(str(copied))
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    edit_json(copied / "config.json", {"num_queries": 21})
    with pytest.raises(BundleError, match="wrong shape for 1"):
        load_grounding_dino(str(copied))


@pytest.mark.parametrize("length", [0, 900])
def test_truncated_weights_are_refused(copied: Path, length: int) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_grounding_dino(str(copied))


def test_a_pickle_that_would_execute_code_is_refused(copied: Path) -> None:
    harm = copied / "harm"
    (copied / "model.safetensors").unlink()
    torch.save({"weight": Harmful(harm)}, copied / "pytorch_model.bin")
    with pytest.raises(BundleError, match="more than tensors"):
        load_grounding_dino(str(copied))
    assert not harm.exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no checkpoint") as caught:
        load_grounding_dino(str(tmp_path / "nowhere"))
    assert "config.json" in caught.value.advice
    assert provenance("owner/model") == {"checkpoint": "owner/model"}  # of the hub


@pytest.mark.parametrize(
    ("shown", "hub_shown", "fails"), [(True, True, False), (True, False, True), (False, True, False)]
)
def test_progress_bars_and_logging_are_left_as_they_were(
    checkpoint: Path, tmp_path: Path, shown: bool, hub_shown: bool, fails: bool
) -> None:
    from huggingface_hub import utils as hub
    from transformers.utils import logging as bars

    (bars.enable_progress_bar if shown else bars.disable_progress_bar)()
    (hub.enable_progress_bars if hub_shown else hub.disable_progress_bars)()
    bars.set_verbosity_info()
    try:
        with pytest.raises(BundleError) if fails else nullcontext():
            load_config(str(tmp_path if fails else checkpoint))
        assert bars.is_progress_bar_enabled() is shown
        assert hub.are_progress_bars_disabled() is not hub_shown
        assert bars.get_verbosity() == bars.INFO
    finally:
        bars.enable_progress_bar()
        hub.enable_progress_bars()
        bars.set_verbosity_warning()


# The settings of an image processor

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def write_settings(folder: Path, data: object, name: str = "preprocessor_config.json") -> str:
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
    assert read_processor(write_settings(tmp_path, data)).size == size


def test_settings_within_a_processor_come_first(tmp_path: Path) -> None:
    write_settings(tmp_path, {"size": 32})
    write_settings(tmp_path, {"processor_class": "Some"}, "processor_config.json")
    assert read_processor(str(tmp_path)).size == 32
    write_settings(tmp_path, {"image_processor": {"size": 64}}, "processor_config.json")
    assert read_processor(str(tmp_path)).size == 64


def test_what_is_not_said_is_not_known(tmp_path: Path) -> None:
    assert read_processor(str(tmp_path)) == ProcessorSettings()
    said = read_processor(write_settings(tmp_path, {"size": 32}))
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
        read_processor(write_settings(tmp_path, data))
