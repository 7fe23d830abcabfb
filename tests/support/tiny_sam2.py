"""A miniature SAM 2 with random weights that tell its outputs apart, its inputs, and Meta's format."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)

from fgdd_export.graphs.parity import drawn_images

SIDE = 128
WIDTH = 32

_PERCEPTRON = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d)"
# From transformers' names to Meta's: the other way round than the package does it.
_META_NAMES = (
    (r"^vision_encoder\.backbone", "image_encoder.trunk"),
    (r"^vision_encoder\.neck\.convs\.(\d)", r"image_encoder.neck.convs.\1.conv"),
    (r"^(prompt_encoder|mask_decoder)", r"sam_\1"),
    (r"^no_memory_embedding", "no_mem_embed"),
    (r"layer_norm(\d|_final_attn)", r"norm\1"),
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"o_proj", "out_proj"),
    (r"mlp\.proj_in", "mlp.layers.0"),
    (r"mlp\.proj_out", "mlp.layers.1"),
    (_PERCEPTRON + r"\.layers\.0", r"\1.layers.1"),
    (_PERCEPTRON + r"\.proj_in", r"\1.layers.0"),
    (_PERCEPTRON + r"\.proj_out", r"\1.layers.2"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"mask_embed\.conv1", "mask_downscaling.0"),
    (r"mask_embed\.norm1", "mask_downscaling.1"),
    (r"mask_embed\.conv2", "mask_downscaling.3"),
    (r"mask_embed\.norm2", "mask_downscaling.4"),
    (r"mask_embed\.conv3", "mask_downscaling.6"),
    (r"shared_embedding\.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
)


def tiny_config() -> Sam2Config:
    """Like the published ones: several heads, windows that need padding, one block of global attention.

    The stability threshold lies amid the scores of random masks, so that some boxes get the single mask and
    others the best of three.
    """
    backbone = Sam2HieraDetConfig(
        image_size=[SIDE, SIDE],
        hidden_size=16,
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        blocks_per_stage=[1, 1, 2, 1],
        global_attention_blocks=[3],
    )
    return Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[128, 64, 32, 16],
            backbone_feature_sizes=[[SIDE // stride] * 2 for stride in (4, 8, 16)],
            fpn_hidden_size=WIDTH,
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=WIDTH,
            mlp_dim=64,
            iou_head_hidden_dim=WIDTH,
            num_attention_heads=2,
            dynamic_multimask_stability_thresh=0.77,
        ),
    )


def tiny_model() -> Sam2Model:
    """A miniature with lively weights, the same every time."""
    torch.manual_seed(0)
    model = liven(Sam2Model(tiny_config()).eval())
    encoding = model.prompt_encoder.shared_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.copy_(encoding)  # one tensor in published weights
    return model


def liven(network: nn.Module) -> nn.Module:
    """Replace initial weights, under which images hardly matter, by random ones that keep the scale."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.LayerNorm):
                module.weight.normal_(1, 0.1)
                module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0, 0.5)
        for name, weights in network.named_parameters():
            if name.endswith(("pos_embed", "pos_embed_window", "no_memory_embedding", "no_mem_embed")):
                weights.normal_(0, 0.2)
    return network


def images(count: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Drawn images, uint8 [count, side, side, 3]."""
    return np.resize(drawn_images(side, side), (count, side, side, 3))


def boxes(count: int, boxes_per_image: int, side: int = SIDE) -> NDArray[np.float32]:
    """Random boxes x0 y0 x1 y1 in pixels, float32 [count, boxes_per_image, 4]."""
    corners = np.random.default_rng(0).uniform(0, side, (count, boxes_per_image, 2, 2))
    return np.sort(corners, axis=2).reshape(count, boxes_per_image, 4).astype(np.float32)


def meta_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a `Sam2Model` with Meta's names."""
    found = {}
    for name, tensor in tensors.items():
        if name == "prompt_encoder.point_embed.weight":
            for label, row in enumerate(tensor.split(1)):
                found[f"sam_prompt_encoder.point_embeddings.{label}.weight"] = row.clone()
        elif not name.startswith("shared_image_embedding"):
            renamed = name
            for pattern, replacement in _META_NAMES:
                renamed = re.sub(pattern, replacement, renamed)
            found[renamed] = tensor
    return found


def assert_same_weights(found: Sam2Model, expected: Sam2Model) -> None:
    """The same tensors by the same names, exactly."""
    tensors, others = found.state_dict(), expected.state_dict()
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name
