"""Grounding DINO's two exported networks against transformers' model, on canvases with a mask of pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_networks import SPECIAL_TOKENS, prompt_tokens, save_grounding_dino  # noqa: E402
from transformers.models.grounding_dino import modeling_grounding_dino as original  # noqa: E402

from fgdd_engines.base import Array  # noqa: E402
from fgdd_export.graphs.graph import load_model, serialise  # noqa: E402
from fgdd_export.graphs.torch_export import Exported, export_network  # noqa: E402
from fgdd_export.grounding_dino.network import (  # noqa: E402
    GroundingDino,
    detector_network,
    example_tensors,
    load_grounding_dino,
    text_network,
)
from fgdd_fast.errors import SettingsError  # noqa: E402

HEIGHT, WIDTH, TOKENS = 96, 128, 12
# Rows and columns that an image fills, with the words of its prompt.
IMAGES = {
    "full": ((96, 128), 1),
    "landscape": ((60, 128), 5),
    "portrait": ((96, 50), 2),
    "odd": ((33, 47), 8),
    "fewer places than queries": ((16, 16), 3),
    "one pixel": ((1, 1), 4),
}


@dataclass(frozen=True)
class Exports:
    """The miniature in PyTorch and in ONNX Runtime."""

    loaded: GroundingDino
    text: Exported
    detector: Exported
    run_text: Callable[[Mapping[str, Array]], dict[str, Array]]
    run_detector: Callable[[Mapping[str, Array]], dict[str, Array]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_grounding_dino(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def exports(checkpoint: Path) -> Exports:
    loaded = load_grounding_dino(str(checkpoint))
    text, detector = (
        export_network(network, example_tensors(network))
        for network in (text_network(loaded, TOKENS), detector_network(loaded, HEIGHT, WIDTH, TOKENS))
    )
    runs = (load_model(serialise(exported.model)) for exported in (text, detector))
    return Exports(loaded, text, detector, *runs)


def prompt_feeds(prompts: list[list[int]]) -> dict[str, Array]:
    """Tokens filled up to the text length, with the masks that transformers derives from them."""
    ids = torch.tensor([prompt + [0] * (TOKENS - len(prompt)) for prompt in prompts])
    mask, positions = original.generate_masks_with_special_tokens_and_transfer_map(
        ids, torch.tensor(SPECIAL_TOKENS)
    )
    return {
        "input_ids": ids.int().numpy(),
        "self_mask": mask.float().numpy(),
        "position_ids": positions.int().numpy(),
        "text_mask": np.array(
            [[float(place < len(prompt)) for place in range(TOKENS)] for prompt in prompts], np.float32
        ),
    }


@pytest.fixture(scope="module")
def feeds(exports: Exports) -> dict[str, Array]:
    """All images in one batch, each with its own prompt."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (len(IMAGES), HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    prompts = prompt_feeds(prompt_tokens([words for _, words in IMAGES.values()]))
    text_mask = prompts.pop("text_mask")
    return {
        "canvas": coarse.repeat(8, axis=1).repeat(8, axis=2),
        "valid": np.array([valid for valid, _ in IMAGES.values()], np.int32),
        **exports.run_text(prompts),
        "text_mask": text_mask,
        "text_self_mask": prompts["self_mask"],
    }


@pytest.fixture(scope="module")
def found(exports: Exports, feeds: dict[str, Array]) -> dict[str, Array]:
    return exports.run_detector(feeds)


def unpatched(loaded: GroundingDino, canvas: Array, valid: Array, prompt: list[int]) -> tuple[Array, Array]:
    """Logits [queries, tokens] and boxes of transformers' model for one image and a prompt not filled up.

    As transformers' processor hands the image over: normalised, then padded, with a mask of pixels.
    """
    pixels = torch.from_numpy(canvas.astype(np.float32) / 255)
    pixels = (pixels - torch.tensor(loaded.image_mean)) / torch.tensor(loaded.image_std)
    mask = torch.zeros(1, *canvas.shape[:2], dtype=torch.int64)
    mask[:, : valid[0], : valid[1]] = 1
    pixels = pixels.permute(2, 0, 1)[None] * mask[:, None]
    with torch.no_grad():
        result = loaded.model(pixel_values=pixels, pixel_mask=mask, input_ids=torch.tensor([prompt]))
    return result.logits[0, :, : len(prompt)].numpy(), result.pred_boxes[0].numpy()


def check_same_rows(logits: Array, boxes: Array, expected_logits: Array, expected_boxes: Array) -> None:
    """Queries agree whatever their order; a near-tie among the proposals may change a few of them."""
    rows = np.concatenate([boxes, logits], axis=1)
    expected = np.concatenate([expected_boxes, expected_logits], axis=1)
    differences = np.abs(rows[:, None] - expected[None]).max(axis=2)
    for nearest in (differences.min(axis=0), differences.min(axis=1)):
        assert np.median(nearest) < 2e-5  # logits have a standard deviation of about 5
        assert (nearest > 1e-3).mean() <= 0.1


def test_text_encoder_equals_the_model(exports: Exports) -> None:
    prompts = prompt_tokens([1, 4, 8])
    feeds = prompt_feeds(prompts)
    feeds.pop("text_mask")
    found = exports.run_text(feeds)
    network = exports.loaded.model.model
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        mask, positions = original.generate_masks_with_special_tokens_and_transfer_map(
            ids, torch.tensor(SPECIAL_TOKENS)
        )
        with torch.no_grad():
            hidden = network.text_backbone(ids, mask[:, None], torch.zeros_like(ids), positions)
            features = network.text_projection(hidden.last_hidden_state)[0].numpy()
        embedded = original.encode_sinusoidal_position_embedding(
            positions[..., None].float(), num_pos_feats=features.shape[1]
        )
        np.testing.assert_allclose(found["text_features"][row, : len(prompt)], features, atol=1e-5)
        np.testing.assert_allclose(found["text_positions"][row, : len(prompt)], embedded[0], atol=1e-6)


@pytest.mark.parametrize("name", IMAGES)
def test_detector_equals_the_model(
    exports: Exports, feeds: dict[str, Array], found: dict[str, Array], name: str
) -> None:
    row = list(IMAGES).index(name)
    valid, _ = IMAGES[name]
    prompt = prompt_tokens([words for _, words in IMAGES.values()])[row]
    expected = unpatched(exports.loaded, feeds["canvas"][row], np.array(valid), prompt)
    check_same_rows(found["logits"][row, :, : len(prompt)], found["boxes"][row], *expected)
    assert expected[0].std(axis=0).max() > 0.1  # the queries do differ
    assert (found["logits"][row, :, len(prompt) :] < -1e3).all()


@pytest.mark.parametrize("count", [1, 2])
def test_images_do_not_depend_on_their_neighbours(
    exports: Exports, feeds: dict[str, Array], found: dict[str, Array], count: int
) -> None:
    for begin in range(0, len(IMAGES), count):
        part = slice(begin, begin + count)
        alone = exports.run_detector({name: values[part] for name, values in feeds.items()})
        for row, logits in enumerate(alone["logits"]):
            real = feeds["text_mask"][begin + row] > 0
            check_same_rows(
                logits[:, real],
                alone["boxes"][row],
                found["logits"][begin + row][:, real],
                found["boxes"][begin + row],
            )


def test_what_lies_outside_the_image_or_fills_up_the_prompt_does_not_matter(
    exports: Exports, feeds: dict[str, Array], found: dict[str, Array]
) -> None:
    canvas = feeds["canvas"].copy()
    for image, (rows, columns) in zip(canvas, feeds["valid"], strict=True):
        image[rows:], image[:, columns:] = 255, 0
    changed = exports.run_detector(feeds | {"canvas": canvas})
    np.testing.assert_array_equal(changed["logits"], found["logits"])
    np.testing.assert_array_equal(changed["boxes"], found["boxes"])
    noise = np.random.default_rng(0).normal(0, 3, feeds["text_features"].shape).astype(np.float32)
    features = np.where(feeds["text_mask"][..., None] == 0, noise, feeds["text_features"])
    changed = exports.run_detector(feeds | {"text_features": features})
    np.testing.assert_array_equal(changed["boxes"], found["boxes"])


def test_graphs_hold_only_what_runtimes_take(exports: Exports) -> None:
    onnx = pytest.importorskip("onnx")
    unwelcome = {"NonZero", "ScatterND", "ScatterElements", "If", "Loop", "Range", "CumSum", "IsInf", "IsNaN"}
    for exported in (exports.text, exports.detector):
        inferred = onnx.shape_inference.infer_shapes(exported.model)
        assert not unwelcome & {node.op_type for node in exported.model.graph.node}
        tensors = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
        constants = {constant.data_type for constant in exported.model.graph.initializer}
        assert onnx.TensorProto.DOUBLE not in tensors | constants
        for constant in exported.model.graph.initializer:
            assert np.isfinite(onnx.numpy_helper.to_array(constant)).all()
        assert [opset.version for opset in exported.model.opset_import] == [17]
    readers = [node for node in exports.detector.model.graph.node if "canvas" in node.input]
    assert [node.op_type for node in readers] == ["Cast"]


def test_a_small_canvas_leaves_the_network_as_it_was(checkpoint: Path) -> None:
    """Swin narrows its windows for good when it meets a small picture."""
    loaded = load_grounding_dino(str(checkpoint))
    pixels = torch.rand(1, 3, HEIGHT, WIDTH)
    swin = loaded.model.model.backbone.conv_encoder.model
    untouched = load_grounding_dino(str(checkpoint)).model.model.backbone.conv_encoder.model
    detector_network(loaded, 48, 48, TOKENS)
    with torch.no_grad():
        for level, expected in zip(swin(pixels).feature_maps, untouched(pixels).feature_maps, strict=True):
            torch.testing.assert_close(level, expected)


def test_text_length_and_canvas_have_bounds(exports: Exports) -> None:
    assert text_network(exports.loaded, 32).inputs[0].shape == ("batch", 32)
    for length in (0, 33):
        with pytest.raises(SettingsError, match="1 to 32 tokens"):
            text_network(exports.loaded, length)
    with pytest.raises(SettingsError, match="fewer than the 20 queries"):
        detector_network(exports.loaded, 24, 24, TOKENS)
