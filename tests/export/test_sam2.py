# ruff: noqa: E402 - what needs PyTorch is imported once it is known to be there
"""SAM 2's two exported networks against transformers' model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import tiny_sam2 as tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tiny_sam2 import assert_same_weights
from transformers import Sam2Model, Sam2VideoConfig, Sam2VideoModel

from fgdd_engines.base import Array
from fgdd_export.graphs.graph import OPSET, load_model, serialise
from fgdd_export.graphs.torch_export import Exported, export_network
from fgdd_export.sam2.network import (
    MEAN,
    STD,
    ImageEncoder,
    MaskDecoder,
    Sam2,
    decoder_example,
    decoder_network,
    encoder_example,
    encoder_network,
    load_sam2,
)
from fgdd_fast.errors import BundleError, SettingsError

EMBEDDINGS = ("image_embedding", "high_resolution_0", "high_resolution_1")
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@pytest.fixture(scope="module")
def sam2() -> Sam2:
    return Sam2(tiny.tiny_model(), tiny.SIDE, MEAN, STD, ())


@pytest.fixture(scope="module")
def before(sam2: Sam2) -> dict[str, Array]:
    """What the network gave before anything was exported."""
    return reference(sam2, tiny.images(2), tiny.boxes(2, 5))


@pytest.fixture(scope="module")
def exported(sam2: Sam2, before: dict[str, Array]) -> dict[str, Exported]:
    return {
        "encoder": export_network(encoder_network(sam2), encoder_example(sam2)),
        "decoder": export_network(decoder_network(sam2), decoder_example(sam2)),
    }


@pytest.fixture(scope="module")
def run(exported: dict[str, Exported]) -> Run:
    """Both graphs in ONNX Runtime, one after the other."""
    encode, decode = (load_model(serialise(exported[name].model)) for name in ("encoder", "decoder"))

    def both(feeds: Mapping[str, Array]) -> dict[str, Array]:
        embeddings = encode({"images": feeds["images"]})
        return {**embeddings, **decode({**embeddings, "boxes": feeds["boxes"]})}

    return both


def reference(sam2: Sam2, images: Array, boxes: Array) -> dict[str, Array]:
    """The unchanged network of transformers, under the names of the graphs' outputs."""
    planes = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (sam2.image_mean, sam2.image_std))
    with torch.inference_mode():
        found = sam2.model(
            pixel_values=(planes - mean) / std, input_boxes=torch.from_numpy(boxes), multimask_output=False
        )
    fine, middle, coarse = found.image_embeddings
    tensors = (coarse, fine, middle, found.pred_masks[:, :, 0], found.iou_scores[:, :, 0])
    return {name: tensor.numpy() for name, tensor in zip((*EMBEDDINGS, "masks", "iou"), tensors, strict=True)}


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=0, atol=5e-5, err_msg=name)


@pytest.mark.parametrize(("images", "boxes"), [(2, 5), (1, 1)])
def test_graphs_are_the_published_network(sam2: Sam2, run: Run, images: int, boxes: int) -> None:
    feeds = {"images": tiny.images(images), "boxes": tiny.boxes(images, boxes)}
    expected = reference(sam2, **feeds)
    assert_same(run(feeds), expected)
    shares = (expected["masks"] > 0).mean(axis=(2, 3))
    assert ((shares > 0.01) & (shares < 0.99)).all()  # masks worth comparing


@settings(max_examples=6, derandomize=True)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 2), st.integers(1, 4), st.just(4)),
        elements=st.floats(-tiny.SIDE, 2 * tiny.SIDE, width=32),
    )
)
def test_any_four_numbers_are_a_box(sam2: Sam2, run: Run, boxes: Array) -> None:
    """Empty, reversed, and outside of the image."""
    feeds = {"images": tiny.images(len(boxes)), "boxes": boxes}
    assert_same(run(feeds), reference(sam2, **feeds))


def test_single_and_best_of_three_masks_both_occur(sam2: Sam2, before: dict[str, Array]) -> None:
    decoder = sam2.model.mask_decoder
    decoder.dynamic_multimask_via_stability = False
    try:
        single = reference(sam2, tiny.images(2), tiny.boxes(2, 5))["iou"]
    finally:
        decoder.dynamic_multimask_via_stability = True
    same = single == before["iou"]
    assert same.any()
    assert not same.all()


def test_a_result_does_not_depend_on_its_batch(run: Run) -> None:
    images, boxes = tiny.images(3), tiny.boxes(3, 4)
    together = run({"images": images, "boxes": boxes})
    for image in range(3):
        for box in range(4):
            alone = run({"images": images[image, None], "boxes": boxes[image, None, box, None]})
            np.testing.assert_allclose(alone["masks"][0, 0], together["masks"][image, box], atol=5e-5)
            np.testing.assert_allclose(alone["iou"][0, 0], together["iou"][image, box], atol=1e-6)


def test_exporting_leaves_the_network_as_it_was(
    sam2: Sam2, before: dict[str, Array], exported: dict[str, Exported]
) -> None:
    after = reference(sam2, tiny.images(2), tiny.boxes(2, 5))
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    assert not any(module.training for module in sam2.model.modules())


def test_graphs_hold_nothing_that_an_engine_stumbles_over(exported: dict[str, Exported]) -> None:
    for each in exported.values():
        operators = {node.op_type for node in each.model.graph.node}
        assert not operators & {"If", "Loop", "Scan", "NonZero", "ScatterND", "ScatterElements"}
        assert [entry.version for entry in each.model.opset_import] == [OPSET]
        assert each.nodes < each.nodes_before
    encoder = exported["encoder"].model.graph
    assert [node.op_type for node in encoder.node if "images" in node.input] == ["Cast"]
    modes = [
        onnx.helper.get_node_attr_value(node, "mode") for node in encoder.node if node.op_type == "Resize"
    ]
    assert modes == [b"nearest"]  # of the feature pyramid: the position embedding's cubic one is gone


def test_loads_a_folder(sam2: Sam2, tmp_path: Path) -> None:
    sam2.model.save_pretrained(tmp_path)
    loaded = load_sam2(str(tmp_path))
    assert (loaded.image_size, loaded.unused) == (tiny.SIDE, ())
    assert (loaded.image_mean, loaded.image_std) == (MEAN, STD)
    assert_same_weights(loaded.model, sam2.model)

    settings_file = tmp_path / "preprocessor_config.json"
    settings_file.write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 4]}))
    loaded = load_sam2(str(tmp_path))
    assert (loaded.image_mean, loaded.image_std) == ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))

    for damaged in (b'{"image_mean": [0.1, 0.2', b'{"image_mean": [0.1]}', b'{"image_std": "one"}', b"[]"):
        settings_file.write_bytes(damaged)
        with pytest.raises(BundleError, match=r"damaged preprocessor_config.json"):
            load_sam2(str(tmp_path))


def test_normalisation_is_part_of_the_encoder(sam2: Sam2) -> None:
    other = Sam2(sam2.model, tiny.SIDE, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), ())
    images, boxes = tiny.images(1), tiny.boxes(1, 2)
    with torch.inference_mode():
        embeddings = ImageEncoder(other)(torch.from_numpy(images))
    expected = reference(other, images, boxes)
    for name, tensor in zip(EMBEDDINGS, embeddings, strict=True):
        np.testing.assert_allclose(tensor.numpy(), expected[name], atol=5e-5)
    assert np.abs(expected["masks"] - reference(sam2, images, boxes)["masks"]).max() > 0.1


@pytest.mark.parametrize("size", [96, 64, 32])
def test_a_smaller_image_is_seen_as_transformers_sees_it(
    sam2: Sam2, before: dict[str, Array], size: int
) -> None:
    """Windows that need padding, one of which holds the whole image; fewer cells, the same weights."""
    config = tiny.tiny_config()
    config.prompt_encoder_config.image_size = size
    config.vision_config.backbone_feature_sizes = [[size // stride] * 2 for stride in (4, 8, 16)]
    configured = Sam2Model(config).eval()
    configured.load_state_dict(sam2.model.state_dict())
    feeds = {"images": tiny.images(2, size), "boxes": tiny.boxes(2, 3, size)}
    expected = reference(Sam2(configured, size, MEAN, STD, ()), **feeds)

    smaller = sam2.at_size(size)
    for name, values in reference(smaller, **feeds).items():
        np.testing.assert_array_equal(values, expected[name])
    with torch.inference_mode():
        embeddings = ImageEncoder(smaller)(torch.from_numpy(feeds["images"]))
        decoded = MaskDecoder(smaller)(*embeddings, torch.from_numpy(feeds["boxes"]))
    found = zip(expected, (*embeddings, *decoded), strict=True)
    assert_same({name: tensor.numpy() for name, tensor in found}, expected)
    for name, weights in smaller.model.state_dict().items():
        assert weights.data_ptr() == sam2.model.state_dict()[name].data_ptr()
    for name, values in reference(sam2, tiny.images(2), tiny.boxes(2, 5)).items():
        np.testing.assert_array_equal(values, before[name])


def test_its_own_size_changes_nothing_and_others_are_refused(sam2: Sam2) -> None:
    assert sam2.at_size(None) is sam2 is sam2.at_size(tiny.SIDE)
    for size in (0, -32, 48, 160):
        with pytest.raises(SettingsError, match=rf"takes images of 128 pixels, or fewer .*, not {size}"):
            sam2.at_size(size)


def test_loads_a_video_checkpoint_without_its_memory(sam2: Sam2, tmp_path: Path) -> None:
    """What the hub holds under the published names."""
    config = tiny.tiny_config()
    video = Sam2VideoModel(
        Sam2VideoConfig(
            vision_config=config.vision_config,
            prompt_encoder_config=part(config.prompt_encoder_config),
            mask_decoder_config=part(config.mask_decoder_config),
            image_size=tiny.SIDE,
            memory_attention_hidden_size=tiny.WIDTH,
            memory_attention_num_layers=1,
            memory_attention_feed_forward_hidden_size=16,
            memory_attention_rope_feat_sizes=[tiny.SIDE // 16] * 2,
            memory_encoder_hidden_size=tiny.WIDTH,
            memory_encoder_output_channels=8,
            mask_downsampler_embed_dim=tiny.WIDTH,
            memory_fuser_embed_dim=tiny.WIDTH,
            memory_fuser_intermediate_dim=16,
        )
    )
    assert not video.load_state_dict(sam2.model.state_dict(), strict=False).unexpected_keys
    video.save_pretrained(tmp_path)
    loaded = load_sam2(str(tmp_path))
    assert loaded.unused == ()
    feeds = {"images": tiny.images(1), "boxes": tiny.boxes(1, 3)}
    assert_same(reference(loaded, **feeds), reference(sam2, **feeds))

    video.config.enable_occlusion_spatial_embedding = False
    video.save_pretrained(tmp_path)
    with pytest.raises(BundleError, match=r"SAM 2.0"):
        load_sam2(str(tmp_path))


def part(config: Any) -> dict[str, Any]:
    """A part of a configuration, for the video network's type of that part."""
    return {name: value for name, value in config.to_dict().items() if name != "model_type"}
