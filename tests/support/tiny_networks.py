"""A miniature of Grounding DINO with random weights, and prompts for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tiny_grounded import tokenizer_json
from transformers import BertConfig, GroundingDinoConfig, SwinConfig

from fgdd_bench.references.grounded.random_networks import random_detector

SPECIAL_TOKENS = (101, 102, 1012, 1029)  # [CLS], [SEP], "." and "?" in BERT's vocabulary


def save_grounding_dino(folder: Path) -> Path:
    """Save a network as a checkpoint of the hub is laid out.

    It has two layers of everything, 32 channels, 20 queries, and 4 levels, two of them from the backbone.
    """
    heads = {"depths": [1, 2, 1], "num_heads": [1, 2, 4], "out_indices": [2, 3]}
    text = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(image_size=64, embed_dim=16, window_size=4, **heads),
        text_config=BertConfig(vocab_size=1100, hidden_size=32, intermediate_size=64, **text),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=20,
        max_text_len=32,
    )
    random_detector(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    settings = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 80, "longest_edge": 133},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def prompt_tokens(lengths: list[int]) -> list[list[int]]:
    """Prompts of random words: one phrase of each length, or two where it is above 3."""
    rng = np.random.default_rng(0)
    prompts = []
    for length in lengths:
        words = [int(word) for word in rng.integers(110, 1000, length)]
        if length > 3:
            words.insert(2, 1012)
        prompts.append([101, *words, 1012, 102])
    return prompts
