"""A small vision transformer.

Source: "An Image is Worth 16x16 Words" (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929), in the size called
tiny of "Training data-efficient image transformers" (Touvron et al., ICML 2021, arXiv 2012.12877): 12 layers
of 192 channels and 3 heads, without the latter's distillation token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(nn.Module):
    """Self-attention, then a multilayer perceptron; each on normalised tokens, and added to them.

    Args:
        width: channels of a token.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, tokens, width] -> the same shape."""
        batch, count, width = tokens.shape
        qkv = self.qkv(self.norm1(tokens)).reshape(batch, count, 3, self.heads, width // self.heads)
        attended = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind())
        tokens = tokens + self.project(attended.transpose(1, 2).reshape(batch, count, width))
        changes: Tensor = self.perceptron(self.norm2(tokens))
        return tokens + changes


class VisionTransformer(nn.Module):
    """A vision transformer that answers by its class token.

    Args:
        size: side of an image in pixels, a multiple of `patch`.
        patch: side of a patch in pixels.
        classes: outputs.
        depth: layers.
        width: channels of a token.
        heads: of each attention.
    """

    def __init__(
        self, size: int, patch: int, classes: int, *, depth: int = 12, width: int = 192, heads: int = 3
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.classifier = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.positions, std=0.02)
        nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of normalised images [batch, 3, size, size]."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self.positions
        logits: Tensor = self.classifier(self.norm(self.layers(tokens))[:, 0])
        return logits
