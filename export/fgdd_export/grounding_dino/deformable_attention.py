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
