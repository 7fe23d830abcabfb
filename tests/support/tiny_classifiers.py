"""Miniature image classifiers in PyTorch, with random weights, and checkpoints of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import nn

CLASSES = ("dress", "hat", "pants", "shirt", "shoes")
SIDE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

CONFIGS: dict[str, Callable[[], Any]] = {
    "resnet": lambda: transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"
    ),
    "convnext": lambda: transformers.ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1]),
    "vit": lambda: transformers.ViTConfig(image_size=SIDE, patch_size=8, **_LAYERS),
    "swin": lambda: transformers.SwinConfig(
        image_size=SIDE, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
    ),
}
_LAYERS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights and statistics that keep the scale of activations and tell layers apart.

    The same whatever the network's first values: vectors begin at 0, at 1, or at random near 0.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point() and tensor.ndim >= 2:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=random)
            elif tensor.is_floating_point():
                tensor.round_().add_(torch.rand(tensor.shape, generator=random) - 0.5, alpha=0.4)
    return module.eval()


def save_pretrained(folder: Path, architecture: str, **changes: Any) -> Path:
    """Write a checkpoint of transformers, with its image processor's settings."""
    config = CONFIGS[architecture]()
    config.id2label = dict(enumerate(CLASSES))
    config.label2id = {name: index for index, name in enumerate(CLASSES)}
    for name, value in changes.items():
        setattr(config, name, value)
    model = transformers.AutoModelForImageClassification.from_config(config)
    randomise(model)
    model.save_pretrained(folder)
    settings = {"size": {"shortest_edge": SIDE}, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def convolutional(channels: int = 3, classes: int = len(CLASSES), seed: int = 0) -> nn.Module:
    """Two convolutions with batch normalisation, average pooling and a linear head."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2),
            nn.BatchNorm2d(12),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, classes),
        )
    return randomise(network, seed)


def module_of(**functions: Callable[[], Any]) -> ModuleType:
    """A Python module with these functions."""
    module = ModuleType("own_networks")
    for name, function in functions.items():
        setattr(module, name, function)
    return module
