"""SAM 2.1 checkpoints as Meta publishes them (repository facebookresearch/sam2), into transformers' network.

Meta's file is `{"model": tensors by name}`, and says nothing of the network's size; both implementations are
the same network with other names for its parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

from fgdd_export.checkpoints.pretrained import Loaded, check_loading, read_tensors
from fgdd_fast.errors import BundleError

SUFFIXES = (".pt", ".pth", ".safetensors")
ADVICE = "Name one of Meta's sam2.1_hiera_*.pt files, or a folder with config.json and model.safetensors."


@dataclass(frozen=True)
class HieraSize:
    """What tells the published image encoders apart."""

    width: int  # channels of the first stage; each stage doubles channels and attention heads
    heads: int  # attention heads of the first stage
    blocks: tuple[int, int, int, int]  # number of blocks of each stage
    global_blocks: tuple[int, ...]  # which blocks attend to the whole image, counted from 0 over all stages
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)  # side of the attention windows of each stage
    background: int = 7  # side of the position embedding before it is enlarged

    def config(self) -> Sam2Config:
        """The network for images of 1024 x 1024, as transformers describes it."""
        widths = [self.width * 2**stage for stage in range(4)]
        backbone = Sam2HieraDetConfig(
            hidden_size=self.width,
            num_attention_heads=self.heads,
            embed_dim_per_stage=widths,
            num_attention_heads_per_stage=[self.heads * 2**stage for stage in range(4)],
            blocks_per_stage=list(self.blocks),
            global_attention_blocks=list(self.global_blocks),
            window_size_per_stage=list(self.windows),
            window_positional_embedding_background_size=[self.background] * 2,
        )
        vision = Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1])
        return Sam2Config(vision_config=vision)


# Source: sam2/configs/sam2.1/*.yaml.
SIZES: Mapping[str, HieraSize] = {
    "tiny": HieraSize(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": HieraSize(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base-plus": HieraSize(112, 2, (2, 3, 16, 3), (12, 16, 20), background=14),
    "large": HieraSize(144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
}

PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
PATCHES_OF_SAM_1 = "image_encoder.patch_embed.proj.weight"
POINTS = [f"sam_prompt_encoder.point_embeddings.{label}.weight" for label in range(4)]
ENCODING = "prompt_encoder.shared_embedding.positional_embedding"

# The memory of earlier frames of a video, which an image does not need.
MEMORY = re.compile(r"memory_|maskmem_|mask_downsample\.|no_mem_pos_enc|no_obj_|obj_ptr_")
MEMORY_SINCE_2_1 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias")

_PERCEPTRON = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d)\.layers"
# Meta's names to transformers', each rule applied in turn to every name.
RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^image_encoder\.trunk\.", r"vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^sam_prompt_encoder\.", r"prompt_encoder."),
        (r"^sam_mask_decoder\.", r"mask_decoder."),
        (r"^no_mem_embed$", r"no_memory_embedding"),
        (r"\.patch_embed\.proj\.", r".patch_embed.projection."),
        (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
        (r"\.out_proj\.", r".o_proj."),
        (r"\.mlp\.layers\.0\.", r".mlp.proj_in."),
        (r"\.mlp\.layers\.1\.", r".mlp.proj_out."),
        (_PERCEPTRON + r"\.0\.", r"\1.proj_in."),
        (_PERCEPTRON + r"\.1\.", r"\1.layers.0."),
        (_PERCEPTRON + r"\.2\.", r"\1.proj_out."),
        (r"\.output_upscaling\.0\.", r".upscale_conv1."),
        (r"\.output_upscaling\.1\.", r".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", r".upscale_conv2."),
        (r"\.mask_downscaling\.0\.", r".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", r".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", r".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", r".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", r".mask_embed.conv3."),
        (r"\.pe_layer\.positional_encoding_gaussian_matrix$", r".shared_embedding.positional_embedding"),
    )
)


def is_meta_checkpoint(checkpoint: str) -> bool:
    """Whether a checkpoint is one file, not a folder or a name of the hub."""
    path = Path(checkpoint)
    return path.is_file() or (path.suffix in SUFFIXES and not path.is_dir())


def load_meta_checkpoint(path: Path) -> Loaded:
    """Load a file of Meta's into a `Sam2Model` in float32 and evaluation mode, of the size that it shows.

    The file is a pickle `{"model": tensors}`, of which nothing is executed, or the same tensors as
    safetensors. Raises BundleError where it is missing, damaged, executable, no SAM 2.1, or of no published
    size.
    """
    content = read_tensors(path)
    held = content.get("model", content)
    items = held.items() if isinstance(held, Mapping) else ()
    tensors = {str(name): tensor for name, tensor in items if isinstance(tensor, Tensor)}
    config = SIZES[find_size(path, tensors)].config()
    with torch.device("meta"):  # no memory and no time for weights that are replaced
        model: Any = Sam2Model(config)
    renamed = rename(tensors)
    places = model.state_dict()
    held_both = places.keys() & renamed.keys()
    mismatched = [name for name in held_both if renamed[name].shape != places[name].shape]
    check_loading(path, missing=places.keys() - renamed.keys(), mismatched=mismatched)
    model.load_state_dict({name: renamed[name].float() for name in places}, assign=True)
    return Loaded(model.eval(), unused=tuple(sorted(renamed.keys() - places.keys())))


def find_size(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Tell which of `SIZES` a checkpoint is, from the width and number of its blocks; else BundleError."""
    if PATCHES_OF_SAM_1 in tensors:
        raise BundleError(f"The checkpoint {path} is of SAM 1, not of SAM 2.1", ADVICE)
    if PATCHES not in tensors:
        raise BundleError(f"The checkpoint {path} holds no SAM 2.1 with Meta's names of tensors", ADVICE)
    lacking = [name for name in MEMORY_SINCE_2_1 if name not in tensors]
    if lacking and any(name.startswith("memory_") for name in tensors):
        raise BundleError(
            f"The checkpoint {path} is of SAM 2.0, not of SAM 2.1: it lacks {', '.join(lacking)}", ADVICE
        )
    width = next(iter(tensors[PATCHES].shape), 0)
    blocks = {name.split(".")[3] for name in tensors if name.startswith("image_encoder.trunk.blocks.")}
    for name, size in SIZES.items():
        if (size.width, sum(size.blocks)) == (width, len(blocks)):
            return name
    raise BundleError(
        f"The checkpoint {path} has {len(blocks)} blocks, the first of width {width}, "
        f"which is no published size of SAM 2.1 ({', '.join(SIZES)})",
        "Save it with transformers' save_pretrained, which writes the size into config.json.",
    )


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give Meta's tensors transformers' names, and leave out the memory of videos."""
    renamed = {}
    for name in (name for name in tensors if name not in POINTS and not MEMORY.match(name)):
        new = name
        for pattern, replacement in RENAMES:
            new = pattern.sub(replacement, new)
        renamed[new] = tensors[name]
    points = [tensors[name] for name in POINTS if name in tensors]
    if len(points) == len(POINTS) and len({point.shape for point in points}) == 1:
        renamed["prompt_encoder.point_embed.weight"] = torch.cat(points)
    if ENCODING in renamed:  # transformers holds it twice
        renamed["shared_image_embedding.positional_embedding"] = renamed[ENCODING]
    return renamed
