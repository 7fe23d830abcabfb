"""Miniatures of Grounding DINO and SAM 2: transformers' own classes with small configurations.

They are saved as published checkpoints are, so that whatever reads, exports and runs the real ones can be
tried on them in seconds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SwinConfig,
)

from fgdd_bench.references.grounded.random_networks import (
    IMAGE_MEAN,
    IMAGE_STD,
    TEXT_LENGTH,
    VOCABULARY_SIZE,
    new_tokenizer,
)

SHORTEST_EDGE, LONGEST_EDGE = 96, 160  # of the detector's images; 800 and 1333 in the published one
SEGMENTER_SIDE = 128


def new_detector() -> GroundingDinoForObjectDetection:
    """Return a Grounding DINO of a million parameters freshly drawn."""
    levels: dict[str, Any] = {"out_indices": [2, 3, 4]}
    backbone = SwinConfig(
        image_size=SHORTEST_EDGE, embed_dim=24, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), window_size=4,
        mlp_ratio=2.0, drop_path_rate=0.0, **levels,
    )  # fmt: skip
    text = BertConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=TEXT_LENGTH, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, num_queries=30, d_model=64, encoder_layers=2,
        decoder_layers=2, encoder_ffn_dim=128, decoder_ffn_dim=128, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_n_points=2, max_text_len=TEXT_LENGTH, dropout=0.0,
        fusion_droppath=0.0,
    )  # fmt: skip
    detector = GroundingDinoForObjectDetection(config)
    with torch.no_grad():  # a short training cannot afford the gentle beginning of the published one
        for layer in detector.model.encoder.layers:
            layer.fusion_layer.vision_param.fill_(0.3)
            layer.fusion_layer.text_param.fill_(0.3)
        detector.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after.weight.fill_(0.1)
    return detector


def new_segmenter() -> Sam2Model:
    """Return a SAM 2 of about half a million parameters with fresh weights, for images of 128 x 128."""
    backbone = Sam2HieraDetConfig(
        image_size=[SEGMENTER_SIDE, SEGMENTER_SIDE], hidden_size=16, embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8], blocks_per_stage=[1, 1, 2, 1],
        global_attention_blocks=[3],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[SEGMENTER_SIDE // stride] * 2 for stride in (4, 8, 16)],
        fpn_hidden_size=64,
    )
    prompt = Sam2PromptEncoderConfig(hidden_size=64, image_size=SEGMENTER_SIDE, patch_size=16)
    decoder = Sam2MaskDecoderConfig(
        hidden_size=64, mlp_dim=128, num_attention_heads=4, iou_head_hidden_dim=64
    )
    segmenter = Sam2Model(
        Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )
    # One random projection encodes positions for images and for prompts.
    positions = segmenter.prompt_encoder.shared_embedding.positional_embedding
    segmenter.shared_image_embedding.positional_embedding.copy_(positions)
    return segmenter


def save_detector(detector: GroundingDinoForObjectDetection, folder: Path) -> None:
    """Write a folder that `from_pretrained` loads: weights in half precision, tokenizer, image processor."""
    processing = {
        "do_convert_annotations": True,
        "do_pad": True,
        "format": "coco_detection",
        "image_processor_type": "GroundingDinoImageProcessor",
        "processor_class": "GroundingDinoProcessor",
        "size": {"shortest_edge": SHORTEST_EDGE, "longest_edge": LONGEST_EDGE},
    }
    _save(detector, folder, processing, new_tokenizer())


def save_segmenter(segmenter: Sam2Model, folder: Path) -> None:
    """Write a folder that `from_pretrained` loads: weights in half precision, image processor."""
    processing = {
        "image_processor_type": "Sam2ImageProcessor",
        "processor_class": "Sam2Processor",
        "size": {"height": SEGMENTER_SIDE, "width": SEGMENTER_SIDE},
        "mask_size": {"height": SEGMENTER_SIDE // 4, "width": SEGMENTER_SIDE // 4},
    }
    _save(segmenter, folder, processing)


def _save(
    network: Any, folder: Path, processing: dict[str, Any], tokenizer: BertTokenizer | None = None
) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    network.save_pretrained(
        part, state_dict={name: value.half() for name, value in network.state_dict().items()}
    )
    if tokenizer is not None:
        tokenizer.save_pretrained(part)
    common = {
        **dict.fromkeys(("do_normalize", "do_rescale", "do_resize"), True),
        **{"image_mean": IMAGE_MEAN, "image_std": IMAGE_STD, "resample": 2, "rescale_factor": 1 / 255},
    }
    settings = json.dumps(common | processing, indent=2, sort_keys=True)
    (part / "preprocessor_config.json").write_text(settings + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
