# ruff: noqa: E402 - what needs PyTorch is imported once it is known to be there
from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
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
from torch import Tensor
from transformers import Sam2Model, Sam2VideoConfig, Sam2VideoModel, SamConfig

from fgdd_fast.engines.base import Array
from fgdd_fast.errors import BundleError
from fgdd_fast.export.graph import OPSET, load_model, serialise
from fgdd_fast.export.sam2 import (
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
from fgdd_fast.export.sam2_checkpoint import MEMORY_SINCE_2_1, SIZES, HieraSize, find_size, rename
from fgdd_fast.export.torch_export import Exported, export_network

EMBEDDINGS = ("image_embedding", "high_resolution_0", "high_resolution_1")
META_CONFIGS = {"tiny": "t", "small": "s", "base-plus": "b+", "large": "l"}
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


@pytest.mark.parametrize(("images", "boxes"), [(1, 3), (2, 5), (1, 1), (3, 1)])
def test_graphs_are_the_published_network(sam2: Sam2, run: Run, images: int, boxes: int) -> None:
    feeds = {"images": tiny.images(images), "boxes": tiny.boxes(images, boxes)}
    expected = reference(sam2, **feeds)
    assert_same(run(feeds), expected)
    shares = (expected["masks"] > 0).mean(axis=(2, 3))
    assert ((shares > 0.01) & (shares < 0.99)).all()  # masks worth comparing


@settings(max_examples=25, derandomize=True)
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


def test_axes_are_named(exported: dict[str, Exported]) -> None:
    def axes(values: Any) -> dict[str, list[str | int]]:
        return {
            value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in values
        }

    side, width = tiny.SIDE, tiny.WIDTH
    embeddings = {
        "image_embedding": ["batch", width, side // 16, side // 16],
        "high_resolution_0": ["batch", width // 8, side // 4, side // 4],
        "high_resolution_1": ["batch", width // 4, side // 8, side // 8],
    }
    encoder, decoder = exported["encoder"].model.graph, exported["decoder"].model.graph
    assert axes(encoder.input) == {"images": ["batch", side, side, 3]}
    assert axes(encoder.output) == embeddings
    assert axes(decoder.input) == {**embeddings, "boxes": ["batch", "boxes", 4]}
    assert axes(decoder.output) == {
        "masks": ["batch", "boxes", side // 4, side // 4],
        "iou": ["batch", "boxes"],
    }


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

    for damaged in (
        b'{"image_mean": [0.1, 0.2',
        b'{"image_mean": [0.1]}',
        b'{"image_std": "one"}',
        b"[]",
        b"\xff",
    ):
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


def assert_same_weights(found: Sam2Model, expected: Sam2Model) -> None:
    tensors, others = found.state_dict(), expected.state_dict()
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


MINIATURE = HieraSize(8, 1, (1, 1, 1, 1), (2,))


class MetaFile:
    """Tensors with Meta's names, to be changed and written."""

    def __init__(self, path: Path, tensors: dict[str, Tensor]) -> None:
        self.path = path
        self.tensors = tensors

    def write(self) -> str:
        torch.save({"model": self.tensors}, self.path)
        return str(self.path)


@pytest.fixture(scope="module")
def meta_model() -> Sam2Model:
    """A network of a size that `meta_file` makes known."""
    torch.manual_seed(0)
    model = Sam2Model(MINIATURE.config())
    model.shared_image_embedding = model.prompt_encoder.shared_embedding  # one tensor in Meta's file
    return model


@pytest.fixture
def meta_file(meta_model: Sam2Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MetaFile:
    monkeypatch.setitem(SIZES, "miniature", MINIATURE)  # type: ignore[arg-type]
    tensors = tiny.meta_tensors(meta_model.state_dict())
    memory = ("memory_encoder.out_proj.weight", *MEMORY_SINCE_2_1)
    tensors.update({name: torch.zeros(1) for name in memory})
    return MetaFile(tmp_path / "sam2.1_hiera_miniature.pt", tensors)


def test_loads_a_file_of_meta(meta_model: Sam2Model, meta_file: MetaFile) -> None:
    loaded = load_sam2(meta_file.write())
    assert_same_weights(loaded.model, meta_model)
    assert (loaded.image_size, loaded.image_mean, loaded.image_std, loaded.unused) == (1024, MEAN, STD, ())
    assert not any(module.training for module in loaded.model.modules())
    assert not any(tensor.is_meta for tensor in (*loaded.model.parameters(), *loaded.model.buffers()))

    meta_file.tensors["head.weight"] = torch.zeros(2)
    meta_file.tensors = {name: tensor.double() for name, tensor in meta_file.tensors.items()}
    loaded = load_sam2(meta_file.write())
    assert loaded.unused == ("head.weight",)
    assert_same_weights(loaded.model, meta_model)


def test_a_file_of_meta_may_be_safetensors(
    meta_model: Sam2Model, meta_file: MetaFile, tmp_path: Path
) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "sam2.1_hiera_miniature.safetensors"
    save_file({name: tensor.clone() for name, tensor in meta_file.tensors.items()}, path)
    assert_same_weights(load_sam2(str(path)).model, meta_model)


@pytest.mark.parametrize("size", SIZES)
def test_size_is_told_from_shapes(size: str) -> None:
    with torch.device("meta"):
        model = Sam2Model(SIZES[size].config())
    tensors = tiny.meta_tensors(model.state_dict())
    assert find_size(Path("file.pt"), tensors) == size
    renamed = rename(tensors)
    assert {name: tensor.shape for name, tensor in renamed.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


def build_meta(size: str, device: str, image_size: int = 1024) -> Any:
    """The network of Meta's own package."""
    build_sam = pytest.importorskip("sam2.build_sam", reason="Meta's package sam2 is not installed")
    return build_sam.build_sam2(
        f"configs/sam2.1/sam2.1_hiera_{META_CONFIGS[size]}.yaml",
        device=device,
        hydra_overrides_extra=[f"++model.image_size={image_size}"],
    )


@pytest.mark.parametrize("size", SIZES)
def test_names_are_those_of_metas_package(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # It asks a linspace for its values, which tensors without memory do not have.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        tensors = build_meta(size, "meta").state_dict()
        model = Sam2Model(SIZES[find_size(Path("file.pt"), tensors)].config())
    assert {name: tensor.shape for name, tensor in rename(tensors).items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


def test_masks_are_those_of_metas_package(tmp_path: Path) -> None:
    side = 256  # the published weights are for 1024, which takes 16 times as long
    torch.manual_seed(0)
    meta = tiny.liven(build_meta("tiny", "cpu", side))
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": meta.state_dict()}, path)
    loaded = load_sam2(str(path))
    assert loaded.unused == ()

    sam2 = Sam2(tiny.with_image_size(loaded.model, side), side, MEAN, STD, ())
    images, boxes = torch.from_numpy(tiny.images(1, side)), torch.from_numpy(tiny.boxes(1, 3, side))
    with torch.inference_mode():
        masks, overlaps = MaskDecoder(sam2)(*ImageEncoder(sam2)(images), boxes)
        expected_masks, expected_overlaps = meta_masks(meta, images, boxes[0])
    assert (masks[0] - expected_masks).abs().max() < 1e-4 * expected_masks.std()
    assert (overlaps[0] - expected_overlaps).abs().max() < 1e-6


def meta_masks(meta: Any, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """What `SAM2ImagePredictor` does with the boxes of one image."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    features = meta.forward_image((images.permute(0, 3, 1, 2) / 255 - mean) / std)["backbone_fpn"]
    labels = torch.tensor([[2, 3]]).repeat(len(boxes), 1)
    sparse, dense = meta.sam_prompt_encoder(points=(boxes.reshape(-1, 2, 2), labels), boxes=None, masks=None)
    masks, overlaps, _, _ = meta.sam_mask_decoder(
        image_embeddings=features[2] + meta.no_mem_embed.view(1, -1, 1, 1),
        image_pe=meta.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
        repeat_image=True,
        high_res_features=features[:2],
    )
    return masks[:, 0], overlaps[:, 0]


PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
LAST = "sam_prompt_encoder.point_embeddings.3.weight"


@pytest.mark.parametrize(
    ("without", "with_", "problem"),
    [
        pytest.param((LAST,), {}, r"lacks 1 of .*point_embed", id="missing"),
        pytest.param(("no_mem_embed",), {}, r"lacks 1 of .*no_memory_embedding", id="missing parameter"),
        pytest.param((), {LAST: (1, 8)}, r"lacks 1 of .*point_embed", id="rows of other lengths"),
        pytest.param((), {"no_mem_embed": (1, 1, 7)}, r"wrong shape for 1 .*no_memory", id="other shape"),
        pytest.param((), {PATCHES: ()}, r"4 blocks, the first of width 0", id="no width"),
        pytest.param((), {PATCHES: (9, 3, 7, 7)}, r"4 blocks, the first of width 9", id="unknown width"),
        pytest.param(
            (), {"image_encoder.trunk.blocks.4.norm1.bias": (8,)}, r"has 5 blocks", id="unknown depth"
        ),
        pytest.param((PATCHES,), {}, r"holds no SAM 2.1", id="no SAM"),
        pytest.param((), {"image_encoder.patch_embed.proj.weight": (8, 3, 16, 16)}, r"SAM 1,", id="SAM 1"),
        pytest.param(MEMORY_SINCE_2_1, {}, r"SAM 2.0, .* lacks no_obj_embed_spatial", id="SAM 2.0"),
    ],
)
def test_unfitting_files_are_refused(
    meta_file: MetaFile, without: tuple[str, ...], with_: dict[str, tuple[int, ...]], problem: str
) -> None:
    for name in without:
        del meta_file.tensors[name]
    meta_file.tensors.update({name: torch.zeros(shape) for name, shape in with_.items()})
    with pytest.raises(BundleError, match=problem):
        load_sam2(meta_file.write())


class Executable:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_file_that_would_execute_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": {"no_mem_embed": Executable(tmp_path / "made")}}, path)
    with pytest.raises(BundleError, match="more than tensors"):
        load_sam2(str(path))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": [1, 2]}, {"model": {1: torch.ones(1)}}, {}])
def test_files_without_named_tensors_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "sam2.pt"
    torch.save(content, path)
    with pytest.raises(BundleError, match=r"holds no"):
        load_sam2(str(path))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no checkpoint"):
        load_sam2("sam2.1_hiera_tiny.pt")
    with pytest.raises(BundleError, match="There is no checkpoint"):
        load_sam2(str(tmp_path / "nowhere"))
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(BundleError):
        load_sam2(str(tmp_path / "text.pt"))
    SamConfig().save_pretrained(tmp_path)
    with pytest.raises(BundleError, match="is a sam, not a sam2 or sam2_video"):
        load_sam2(str(tmp_path))
    tiny.tiny_config().save_pretrained(tmp_path)
    with pytest.raises(BundleError):  # a configuration without weights
        load_sam2(str(tmp_path))
