"""The layers of Grounding DINO's transformer, over transformers' weights: exportable, and without dropout.

Liu et al., "Grounding DINO", ECCV 2024, arXiv 2303.05499. Masks are added to attention scores: 0 where
something may be seen and `MASKED` where not, of which a softmax makes an exact 0, and which half precision
can hold. Only the batch may change from run to run; the other lengths are constants of the graph.
Multi-scale deformable attention (Zhu et al., "Deformable DETR", ICLR 2021, arXiv 2010.04159) is written in
operators that every runtime has: GridSample, Mul, ReduceSum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fgdd_export.grounding_dino.positions import ValidArea


class DeformableAttention(nn.Module):
    """Each query looks at a few points of each level, around a place of its own.

    `source` is transformers' module, whose weights are shared; `sizes` the rows and columns of each level of
    the feature pyramid.
    """

    cells: Tensor

    def __init__(self, source: Any, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.source = source
        self.sizes = tuple(sizes)
        # The width of a cell, where a level goes from -1 to 1, for each output of the layer of offsets.
        cells = torch.tensor([[2 / columns, 2 / rows] for rows, columns in sizes])
        cells = cells[:, None].expand(source.n_heads, -1, source.n_points, -1).reshape(-1)
        self.register_buffer("cells", cells, persistent=False)

    def forward(self, queries: Tensor, vision: Tensor, inside: Tensor, references: Tensor) -> Tensor:
        """Sample the features around each query's reference: float32 [batch, queries, channels].

        Args:
            queries: float32 [batch, queries, channels], with their position embeddings added.
            vision: float32 [batch, places, channels], all levels one after the other, row by row.
            inside: float32 [batch, places, 1], 1 where the image is; other places count as zero.
            references: float32 [batch, queries, levels, 2] (points: x, y) or [..., 4] (boxes: centre x,
                centre y, width, height), shares of each level.
        """
        source, count = self.source, int(queries.shape[1])
        heads, points = source.n_heads, source.n_points
        levels, places = len(self.sizes), [rows * columns for rows, columns in self.sizes]
        weights = source.attention_weights(queries).reshape(-1, count, heads, levels * points).softmax(-1)
        weights = weights.reshape(-1, count, heads, levels, points).permute(0, 2, 3, 4, 1)
        grid = self._grid(queries, references)
        values = (source.value_proj(vision) * inside).transpose(1, 2)
        attended = []
        for (rows, columns), value, locations, weight in zip(
            self.sizes,
            values.split_with_sizes(places, dim=2),
            grid.split_with_sizes([1] * levels, dim=2),
            weights.split_with_sizes([1] * levels, dim=2),
            strict=True,
        ):
            sampled = nn.functional.grid_sample(
                value.reshape(-1, source.d_model // heads, rows, columns),
                locations.reshape(-1, points, count, 2),
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )
            attended.append((sampled * weight.reshape(-1, 1, points, count)).sum(2))
        merged = functools.reduce(torch.add, attended).reshape(-1, source.d_model, count)
        projected: Tensor = source.output_proj(merged.transpose(1, 2))
        return projected

    def _grid(self, queries: Tensor, references: Tensor) -> Tensor:
        """Where to sample, each level from -1 to 1: float32 [batch, heads, levels, points, queries, 2].

        Points come before queries, here and in what is sampled: on processors, operators that spread one of
        their operands over an axis are several times slower where only 2 or 4 values follow it.
        """
        source, count, levels = self.source, int(queries.shape[1]), len(self.sizes)
        anchors = references.transpose(1, 2)[:, None, :, None]
        of_boxes = references.shape[-1] == 4
        # The scale goes to the weights, which are constants: nothing is left of it in the graph.
        scale = 1 / source.n_points if of_boxes else self.cells
        layer = source.sampling_offsets
        offsets = queries @ (layer.weight.t() * scale) + layer.bias * scale
        offsets = offsets.reshape(-1, count, source.n_heads, levels, source.n_points, 2)
        offsets = offsets.permute(0, 2, 3, 4, 1, 5)
        if of_boxes:
            offsets = offsets * anchors[..., 2:]
        grid: Tensor = (2 * anchors[..., :2] - 1) + offsets
        return grid


MASKED = -1e4


class Prompt(NamedTuple):
    """What stays the same of a prompt through all layers.

    Attributes:
        positions: float32 [batch, tokens, channels], position embeddings.
        bias: float32 [batch, 1, 1, tokens], `MASKED` for tokens that fill up.
        self_bias: float32 [batch, 1, tokens, tokens], `MASKED` where a token does not see another.
    """

    positions: Tensor
    bias: Tensor
    self_bias: Tensor


def split_heads(features: Tensor, heads: int) -> Tensor:
    """[batch, length, channels] to [batch, heads, length, channels / heads]."""
    length, channels = int(features.shape[1]), int(features.shape[2])
    return features.reshape(-1, length, heads, channels // heads).transpose(1, 2)


def join_heads(features: Tensor) -> Tensor:
    """[batch, heads, length, channels] to [batch, length, heads * channels]."""
    heads, length, channels = (int(number) for number in features.shape[1:])
    return features.transpose(1, 2).reshape(-1, length, heads * channels)


class Attention(nn.Module):
    """Multi-head attention (`GroundingDinoMultiheadAttention`)."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend; `bias` is added to the scores [batch, heads, queries, keys]."""
        source = self.source
        heads = source.num_attention_heads
        scaled = source.query(queries) / math.sqrt(source.attention_head_size)
        scores = split_heads(scaled, heads) @ split_heads(source.key(keys), heads).transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        attended = scores.softmax(-1) @ split_heads(source.value(values), heads)
        projected: Tensor = source.out_proj(join_heads(attended))
        return projected


class Fusion(nn.Module):
    """Attention between image and prompt, both ways over the same scores (`GroundingDinoFusionLayer`).

    transformers projects every place of the image three times: to queries, to values, and back. A canvas has
    thousands of places and a prompt a few tokens, so here the same products are taken in another order: the
    weights of these projections go to the tokens, and places only meet tokens. For a canvas of 800 x 800
    pixels that leaves out 10 G multiplications a layer.

    transformers first takes the highest score of the whole batch from all: a softmax is the same without, and
    images do not depend on their neighbours.
    """

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source

    def forward(self, vision: Tensor, text: Tensor, area: ValidArea, prompt: Prompt) -> tuple[Tensor, Tensor]:
        attention = self.source.attn
        vision, text = self.source.layer_norm_vision(vision), self.source.layer_norm_text(text)
        scores = self._scores(vision, text)
        return (
            vision + self.source.vision_param * self._from_text(scores, text, prompt),
            text + self.source.text_param * attention.out_text_proj(self._from_vision(scores, vision, area)),
        )

    def _scores(self, vision: Tensor, text: Tensor) -> Tensor:
        """How much each place and each token of each head have in common, [batch, heads * tokens, places]."""
        attention = self.source.attn
        keys = split_heads(attention.text_proj(text) * attention.scale, attention.num_heads)
        weight = self._by_head(attention.vision_proj.weight)
        bias = self._by_head(attention.vision_proj.bias[:, None])
        return _merge_heads(keys @ weight) @ vision.transpose(-1, -2) + _merge_heads(keys @ bias)

    def _from_text(self, scores: Tensor, text: Tensor, prompt: Prompt) -> Tensor:
        """What each place learns of the tokens, [batch, places, channels]."""
        attention = self.source.attn
        heads, tokens, places = attention.num_heads, int(text.shape[1]), int(scores.shape[2])
        weight = self._by_head(attention.out_vision_proj.weight.transpose(0, 1))
        values = _merge_heads(split_heads(attention.values_text_proj(text), heads) @ weight)
        shares = (scores.transpose(1, 2).reshape(-1, places, heads, tokens) + prompt.bias).softmax(-1)
        learned: Tensor = shares.reshape(-1, places, heads * tokens) @ values + attention.out_vision_proj.bias
        return learned

    def _from_vision(self, scores: Tensor, vision: Tensor, area: ValidArea) -> Tensor:
        """What each token learns of the places, before the last projection, [batch, tokens, embedding]."""
        attention = self.source.attn
        heads, channels = attention.num_heads, int(vision.shape[2])
        padding = ((1 - area.inside) * MASKED).transpose(-1, -2)
        seen = (scores + padding).softmax(-1) @ vision
        weight = self._by_head(attention.values_vision_proj.weight).transpose(1, 2)
        bias = self._by_head(attention.values_vision_proj.bias[:, None]).transpose(1, 2)
        return join_heads(seen.reshape(-1, heads, int(seen.shape[1]) // heads, channels) @ weight + bias)

    def _by_head(self, weight: Tensor) -> Tensor:
        """[heads * size, columns] to [heads, size, columns]."""
        return weight.reshape(self.source.attn.num_heads, -1, int(weight.shape[1]))


def _merge_heads(features: Tensor) -> Tensor:
    """[batch, heads, tokens, channels] to [batch, heads * tokens, channels]."""
    heads, tokens, channels = (int(number) for number in features.shape[1:])
    return features.reshape(-1, heads * tokens, channels)


class TextEnhancer(nn.Module):
    """Attention within the prompt's phrases (`GroundingDinoTextEnhancerLayer`)."""

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source
        self.attention = Attention(source.self_attn)

    def forward(self, text: Tensor, prompt: Prompt) -> Tensor:
        source = self.source
        placed = text + prompt.positions
        text = source.layer_norm_before(text + self.attention(placed, placed, text, prompt.self_bias))
        enhanced: Tensor = source.layer_norm_after(text + source.fc2(source.activation(source.fc1(text))))
        return enhanced


class EncoderLayer(nn.Module):
    """Fusion, then attention within the prompt and within the image (`GroundingDinoEncoderLayer`)."""

    def __init__(self, source: Any, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.fusion = Fusion(source.fusion_layer)
        self.text_enhancer = TextEnhancer(source.text_enhancer_layer)
        self.source = source.deformable_layer
        self.attention = DeformableAttention(self.source.self_attn, sizes)

    def forward(self, vision: Tensor, text: Tensor, area: ValidArea, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Both features in, both features out: float32 [batch, places or tokens, channels]."""
        source = self.source
        vision, text = self.fusion(vision, text, area, prompt)
        text = self.text_enhancer(text, prompt)
        attended = self.attention(vision + area.embeddings, vision, area.inside, area.references)
        vision = source.self_attn_layer_norm(vision + attended)
        vision = source.final_layer_norm(vision + source.fc2(source.activation_fn(source.fc1(vision))))
        return vision, text


class DecoderLayer(nn.Module):
    """Queries look at each other, at the prompt and at the image (`GroundingDinoDecoderLayer`)."""

    def __init__(self, source: Any, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.source = source
        self.self_attention = Attention(source.self_attn)
        self.text_attention = Attention(source.encoder_attn_text)
        self.image_attention = DeformableAttention(source.encoder_attn, sizes)

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        references: Tensor,
        vision: Tensor,
        text: Tensor,
        area: ValidArea,
        prompt: Prompt,
    ) -> Tensor:
        """Refine queries, float32 [batch, queries, channels].

        `vision` and `text` are as the encoder left them; `references` are float32 [batch, queries, levels,
        4], each query's box as shares of each level.
        """
        source = self.source
        placed = queries + positions
        queries = source.self_attn_layer_norm(queries + self.self_attention(placed, placed, queries))
        attended = self.text_attention(queries + positions, text, text, prompt.bias)
        queries = source.encoder_attn_text_layer_norm(queries + attended)
        attended = self.image_attention(queries + positions, vision, area.inside, references)
        queries = source.encoder_attn_layer_norm(queries + attended)
        forwarded = source.fc2(source.activation_fn(source.fc1(queries)))
        refined: Tensor = source.final_layer_norm(queries + forwarded)
        return refined
