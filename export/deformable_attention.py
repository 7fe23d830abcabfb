"""Multi-scale deformable attention in operators that every runtime has: GridSample, Mul, ReduceSum.

Zhu et al., "Deformable DETR", ICLR 2021, arXiv 2010.04159.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class DeformableAttention(nn.Module):
    """Each query looks at a few points of each level, around a place of its own.

    Args:
        source: transformers' module of the same meaning; its weights are shared, not copied.
        sizes: rows and columns of each level of the feature pyramid.
    """

    sizes_in_columns_and_rows: Tensor

    def __init__(self, source: Any, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.source = source
        self.sizes = tuple(sizes)
        columns_and_rows = torch.tensor([[columns, rows] for rows, columns in sizes], dtype=torch.float32)
        self.register_buffer("sizes_in_columns_and_rows", columns_and_rows[:, None], persistent=False)

    def forward(self, queries: Tensor, vision: Tensor, inside: Tensor, references: Tensor) -> Tensor:
        """Sample the features around each query's reference.

        Args:
            queries: float32 [batch, queries, channels], with their position embeddings added.
            vision: float32 [batch, places, channels], all levels one after the other, row by row.
            inside: float32 [batch, places, 1], 1 where the image is; other places count as zero.
            references: float32 [batch, queries, levels, 2] (points: x, y) or [..., 4] (boxes: centre x,
                centre y, width, height), shares of each level.

        Returns:
            float32 [batch, queries, channels].
        """
        source, count = self.source, int(queries.shape[1])
        heads, points = source.n_heads, source.n_points
        levels, places = len(self.sizes), [rows * columns for rows, columns in self.sizes]
        offsets = source.sampling_offsets(queries).reshape(-1, count, heads, levels, points, 2)
        weights = source.attention_weights(queries).reshape(-1, count, heads, levels * points).softmax(-1)
        weights = weights.reshape(-1, count, heads, levels, points).permute(0, 2, 3, 1, 4)
        grid = (2 * self._locations(offsets, references) - 1).permute(0, 2, 3, 1, 4, 5)
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
                locations.reshape(-1, count, points, 2),
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )
            attended.append((sampled * weight.reshape(-1, 1, count, points)).sum(-1))
        merged = functools.reduce(torch.add, attended).reshape(-1, source.d_model, count)
        projected: Tensor = source.output_proj(merged.transpose(1, 2))
        return projected

    def _locations(self, offsets: Tensor, references: Tensor) -> Tensor:
        """Where to sample, as shares of each level: [batch, queries, heads, levels, points, 2]."""
        anchors = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            return anchors + offsets / self.sizes_in_columns_and_rows
        points: int = self.source.n_points
        return anchors[..., :2] + offsets / points * anchors[..., 2:] * 0.5
