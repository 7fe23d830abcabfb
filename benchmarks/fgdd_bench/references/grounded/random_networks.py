"""Networks of the published architectures and sizes with random weights, as checkpoints on disk.

For figures that do not depend on what the weights know: times, sizes, numerical parity. What such networks
find in an image means nothing.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2Model,
    Sam2VisionConfig,
)

from fgdd_fast.synthetic.scenes import COLOURS, SHAPES

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
TEXT_LENGTH = 64
VOCABULARY_SIZE = 1032
# Grounding DINO's code has these ids of BERT's vocabulary written into it.
_FIXED_TOKENS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
EDGES = {"shortest_edge": 800, "longest_edge": 1333}  # of the published detectors' images

# Of IDEA-Research/grounding-dino-tiny and -base: the tiny one has transformers' default configuration.
DETECTORS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "base": {
        "backbone_config": {
            "model_type": "swin",
            "image_size": 384,
            "embed_dim": 128,
            "depths": [2, 2, 18, 2],
            "num_heads": [4, 8, 16, 32],
            "window_size": 12,
            "out_indices": [2, 3, 4],
        }
    },
}
# Of facebook/sam2.1-hiera-tiny and its sisters: the tiny one has transformers' default configuration.
SEGMENTERS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "small": {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    "base-plus": {
        "hidden_size": 112,
        "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "blocks_per_stage": [2, 3, 16, 3],
        "global_attention_blocks": [12, 16, 20],
        "window_positional_embedding_background_size": [14, 14],
    },
    "large": {
        "hidden_size": 144,
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}


def new_tokenizer() -> BertTokenizer:
    """Return BERT's word pieces with the words of drawn scenes, letters and digits."""
    pieces = ["a", "an", *COLOURS, *SHAPES, *"!\"#$%&'()*+,-/:;", *string.digits, *string.ascii_lowercase[1:]]
    pieces += [f"##{character}" for character in string.ascii_lowercase + string.digits]
    free = iter(slot for slot in range(104, VOCABULARY_SIZE) if slot not in _FIXED_TOKENS)
    tokens = _FIXED_TOKENS | dict(zip(free, pieces, strict=False))
    vocabulary = {tokens.get(slot, f"[unused{slot}]"): slot for slot in range(VOCABULARY_SIZE)}
    return BertTokenizer(vocab=vocabulary, model_max_length=TEXT_LENGTH)


def random_detector(config: GroundingDinoConfig, seed: int = 0) -> Any:
    """A Grounding DINO (transformers' `GroundingDinoForObjectDetection`) in which everything has an effect.

    As initialised, attention samples at fixed points, fusion is all but off, and boxes stay where they were
    proposed: a branch left out would not show.
    """
    torch.manual_seed(seed)
    model: Any = GroundingDinoForObjectDetection(config)
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" in name.lower():
                continue
            if name.endswith(("vision_param", "text_param")):
                weights.normal_(0.5, 0.1, generator=generator)
            elif name.endswith("sampling_offsets.weight"):
                weights.normal_(0, 0.05, generator=generator)
            elif name.endswith("relative_position_bias_table"):
                weights.normal_(0, 0.3, generator=generator)
            elif "bbox_embed" in name and name.endswith("weight"):
                weights.normal_(0, 0.5 * weights.shape[1] ** -0.5, generator=generator)
            elif weights.dim() >= 2 and "embed" not in name:
                weights.normal_(0, weights[0].numel() ** -0.5, generator=generator)
            elif name.endswith("bias") and "sampling" not in name:
                weights.normal_(0, 0.05, generator=generator)
    return model


def random_segmenter(config: Sam2Config, seed: int = 0) -> Any:
    """A SAM 2 (transformers' `Sam2Model`) whose random weights keep the variance of activations.

    The usual initial weights are so small that the image hardly changes the masks.
    """
    torch.manual_seed(seed)
    model: Any = Sam2Model(config)
    model.eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim >= 2 and "embed" not in name:
                weights.normal_(0, weights[0].numel() ** -0.5)
            elif weights.ndim == 1:
                weights.add_(torch.randn_like(weights) * 0.1)
        backbone = model.vision_encoder.backbone
        for weights in (backbone.pos_embed, backbone.pos_embed_window, model.no_memory_embedding):
            weights.normal_(0, 0.2)
        encoding = model.prompt_encoder.shared_embedding.positional_embedding
        model.shared_image_embedding.positional_embedding.copy_(encoding)  # one tensor in published weights
    return model


def detector_config(size: str) -> GroundingDinoConfig:
    """Grounding DINO's configuration: `tiny` or `base`."""
    return GroundingDinoConfig(**DETECTORS[size])


def segmenter_config(size: str) -> Sam2Config:
    """SAM 2.1's configuration: `tiny`, `small`, `base-plus` or `large`."""
    backbone: Any = Sam2HieraDetConfig(**SEGMENTERS[size])
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=list(reversed(backbone.embed_dim_per_stage))
    )
    return Sam2Config(vision_config=vision)


def write_checkpoints(folder: Path, detector: str, segmenter: str) -> tuple[Path, Path]:
    """Write a detector and a segmenter as `from_pretrained` loads them.

    Returns:
        Their folders.
    """
    places = folder / f"grounding-dino-{detector}", folder / f"sam2.1-hiera-{segmenter}"
    random_detector(detector_config(detector)).save_pretrained(places[0])
    new_tokenizer().save_pretrained(places[0])
    settings = {"image_mean": IMAGE_MEAN, "image_std": IMAGE_STD, "rescale_factor": 1 / 255, "size": EDGES}
    (places[0] / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    random_segmenter(segmenter_config(segmenter)).save_pretrained(places[1])
    return places
