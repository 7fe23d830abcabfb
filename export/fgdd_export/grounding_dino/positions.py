"""Where the image lies within a fixed canvas, at every level of Grounding DINO's feature pyramid.

An image fills the canvas from the top left. transformers keeps a mask of its pixels and derives the rest from
that; here it is a number of rows and a number of columns, and the rest follows by comparing them with
constants, for rows and columns apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

TEMPERATURE = 10_000.0  # of the embeddings of tokens and boxes; that of places is a setting
PROPOSAL_MARGIN = 0.01  # of the image: nothing is proposed with a centre closer to its edge
SMALLEST_PROPOSAL = 0.05  # share of the canvas, at the first level; doubled from level to level


def wavelengths(count: int, temperature: float) -> Tensor:
    """The wavelengths of a sinusoidal embedding with `count` components: float32 [count / 2]."""
    base = torch.tensor(temperature, dtype=torch.float32)
    return torch.pow(base, torch.arange(0, count, 2, dtype=torch.float32) / count)


def sinusoids(values: Tensor, lengths: Tensor) -> Tensor:
    """Embed numbers, 1 for a full turn, by the sine and the cosine, in turns, at each wavelength.

    Values float32 [batch, ...] and lengths float32 [components / 2] give float32 [batch, ..., components].
    """
    angles = values[..., None] * (2 * math.pi) / lengths
    pairs = torch.stack((angles.sin(), angles.cos()), dim=-1)
    return pairs.reshape(-1, *(int(length) for length in values.shape[1:]), 2 * len(lengths))


def logit(shares: Tensor, margin: float) -> Tensor:
    """The inverse of the sigmoid, for shares held `margin` away from 0 and 1."""
    shares = shares.clamp(margin, 1 - margin)
    return torch.log(shares / (1 - shares))


class ValidArea(NamedTuple):
    """What the transformer has to know of the image's place within the canvas.

    `places` are the cells of all levels, one level after the other, row by row.

    Attributes:
        inside: float32 [batch, places, 1], 1 where the image is.
        embeddings: float32 [batch, places, channels], of position and level; arbitrary outside the image,
            where no other place takes note of them.
        shares: float32 [batch, levels, 2], what share of the columns and of the rows the image fills.
        references: float32 [batch, places, levels, 2], x and y of each place as shares of each level.
        possible: float32 [batch, places, 1], 1 where a place may propose a box.
        proposals: float32 [batch, places, 4], logits of the box (centre x, centre y, width, height) that a
            place starts from, as shares of the image; arbitrary where none is possible.
    """

    inside: Tensor
    embeddings: Tensor
    shares: Tensor
    references: Tensor
    possible: Tensor
    proposals: Tensor


class Pyramid(nn.Module):
    """All levels of a canvas, whose sizes are rows and columns, in cells and in pixels.

    `level_embeddings` are float32 [levels, channels], and `temperature` is that of the position embedding.
    """

    row_of_place: Tensor
    column_of_place: Tensor
    proposal_sizes: Tensor

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        canvas: tuple[int, int],
        level_embeddings: Tensor,
        temperature: float,
    ) -> None:
        super().__init__()
        rows, columns = zip(*sizes, strict=True)
        of_rows, of_columns = level_embeddings.detach().chunk(2, dim=1)  # as the channels themselves are
        self.rows = _Axis(rows, canvas[0], of_rows, temperature)
        self.columns = _Axis(columns, canvas[1], of_columns, temperature)
        places = [
            torch.cartesian_prod(
                torch.arange(height) + sum(rows[:level]), torch.arange(width) + sum(columns[:level])
            )
            for level, (height, width) in enumerate(sizes)
        ]
        row_of_place, column_of_place = torch.cat(places).int().unbind(1)
        self.register_buffer("row_of_place", row_of_place, persistent=False)
        self.register_buffer("column_of_place", column_of_place, persistent=False)
        doubled = torch.logit(SMALLEST_PROPOSAL * 2.0 ** torch.arange(len(sizes), dtype=torch.float32))
        areas = torch.tensor([height * width for height, width in sizes])
        self.register_buffer("proposal_sizes", doubled.repeat_interleave(areas)[:, None], persistent=False)

    def forward(self, valid: Tensor) -> ValidArea:
        """`valid`: int32 [batch, 2], rows and columns of the canvas that the image fills, at least 1 each."""
        pixels = valid.float()
        rows, columns = self.rows(pixels[:, :1]), self.columns(pixels[:, 1:])
        shares = torch.stack((columns.shares, rows.shares), -1)
        centres = torch.cat(self._on_places(rows.centres, columns.centres)[::-1], -1)
        row_inside, column_inside = self._on_places(rows.inside, columns.inside)
        row_possible, column_possible = self._on_places(rows.possible, columns.possible)
        possible = row_possible * column_possible
        sizes = possible * self.proposal_sizes
        return ValidArea(
            inside=row_inside * column_inside,
            embeddings=torch.cat(self._on_places(rows.embeddings, columns.embeddings), -1),
            shares=shares,
            references=centres[:, :, None] * shares[:, None],
            possible=possible,
            proposals=torch.cat((logit(centres, PROPOSAL_MARGIN), sizes, sizes), -1),
        )

    def _on_places(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Give each place its row's and its column's values: [batch, cells, n] to [batch, places, n]."""
        return rows.index_select(1, self.row_of_place), columns.index_select(1, self.column_of_place)


class _AxisArea(NamedTuple):
    """The rows or the columns of all levels; `cells` are those of one level after those of another."""

    inside: Tensor  # float32 [batch, cells, 1], 1 where the image is
    shares: Tensor  # float32 [batch, levels], of each level's cells that are inside
    centres: Tensor  # float32 [batch, cells, 1], shares of the image
    possible: Tensor  # float32 [batch, cells, 1], 1 where a proposal may have its centre
    embeddings: Tensor  # float32 [batch, cells, channels / 2]


class _Axis(nn.Module):
    """The rows or the columns of all levels: `lengths` of them at each level, of a canvas of so many pixels.

    `level_embeddings`, float32 [levels, channels / 2], are added to the position embedding.
    """

    table: Tensor
    lengths: Tensor
    pixels: Tensor
    level_of_cell: Tensor
    indices: Tensor
    level_embeddings: Tensor
    wavelengths: Tensor

    def __init__(
        self, lengths: Sequence[int], pixels: int, level_embeddings: Tensor, temperature: float
    ) -> None:
        super().__init__()
        # A cell belongs to the image if the pixel does that nearest interpolation of the mask takes for it.
        canvas = torch.arange(pixels, dtype=torch.float32)[None, None]
        taken = [nn.functional.interpolate(canvas, size=length, mode="nearest")[0, 0] for length in lengths]
        level_of_cell = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        constants = {
            "table": nn.utils.rnn.pad_sequence(taken, batch_first=True, padding_value=float(pixels)),
            "lengths": torch.tensor(lengths, dtype=torch.float32),
            "pixels": torch.cat(taken),
            "level_of_cell": level_of_cell.int(),
            "indices": torch.cat([torch.arange(length, dtype=torch.float32) for length in lengths]),
            "level_embeddings": level_embeddings[level_of_cell],
            "wavelengths": wavelengths(level_embeddings.shape[1], temperature),
        }
        for name, values in constants.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, valid: Tensor) -> _AxisArea:
        """`valid`: float32 [batch, 1], how many pixels of the canvas the image fills, at least 1."""
        counts = (self.table < valid[..., None]).float().sum(-1)
        count = counts.index_select(1, self.level_of_cell)
        inside = (self.pixels < valid).float()
        centres = (self.indices + 0.5) / count
        possible = inside * (centres > PROPOSAL_MARGIN).float() * (centres < 1 - PROPOSAL_MARGIN).float()
        positions = torch.minimum(self.indices + 1, count) / (count + 1e-6)
        return _AxisArea(
            inside=inside[..., None],
            shares=counts / self.lengths,
            centres=centres[..., None],
            possible=possible[..., None],
            embeddings=sinusoids(positions, self.wavelengths) + self.level_embeddings,
        )
