"""Where in a feature map a tile can be seen, and what the map is elsewhere.

A tile in the middle of a blank image reaches, layer by layer, a growing window of each feature map, its
receptive-field window. Outside of it the map is what the blank image alone gives, the background activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_export.graphs.graph import Array, run_model, serialise
from fgdd_export.graphs.late_onnx import onnx


@dataclass(frozen=True)
class Sliding:
    """How a convolution or a pooling slides along one axis."""

    # kernel, stride, dilation: as in ONNX
    kernel: int
    stride: int
    dilation: int
    before: int  # how far the first position reaches beyond the map's beginning (the padding there)

    @property
    def reach(self) -> int:
        """From the first to the last place that one position reads."""
        return (self.kernel - 1) * self.dilation

    def first_read(self, position: int) -> int:
        """The first place of the map that is read at a position; negative in the padding."""
        return position * self.stride - self.before


@dataclass(frozen=True)
class Span:
    """A window along one axis: the places from `start` up to, not including, `end`."""

    start: int
    end: int

    def union(self, other: Span) -> Span:
        """The smallest span that holds both."""
        return Span(min(self.start, other.start), max(self.end, other.end))


@dataclass(frozen=True)
class Step:
    """One axis of a layer on a window.

    Attributes:
        span: the window behind the layer.
        read: the places that this window reads, of which some may lie outside the window before the layer.
        pads: how many of these lie before it and behind it; neither is negative.
    """

    span: Span
    read: Span
    pads: tuple[int, int]


def slide(window: Span, sliding: Sliding, length: int) -> Step:
    """Move a window through a layer, to one that holds every position which reads a place of it.

    Args:
        window: before the layer, at least one place.
        sliding: the layer.
        length: of the whole map behind the layer.
    """
    first = max(-((sliding.reach - window.start - sliding.before) // sliding.stride), 0)
    # Where strides skip places, the window begins a position earlier, rather than inside what it reads.
    while first > 0 and sliding.first_read(first) > window.start:
        first -= 1
    last = min((window.end - 1 + sliding.before) // sliding.stride, length - 1)
    while last < length - 1 and sliding.first_read(last) + sliding.reach < window.end - 1:
        last += 1
    read = Span(sliding.first_read(first), sliding.first_read(last) + sliding.reach + 1)
    return Step(Span(first, last + 1), read, (window.start - read.start, read.end - window.end))


Doubles = NDArray[np.float64]
TOLERANCE = 1e-4  # of the largest value of a map: how even it has to be


class BackgroundActivations:
    """What a blank image gives in every tensor of a graph: [height, width, channels] or [channels, …]."""

    def __init__(self, model: onnx.ModelProto, side: int, pad: Sequence[int]) -> None:
        every = deepcopy(model)
        known = {value.name for value in every.graph.output}
        for node in every.graph.node:
            every.graph.output.extend(
                onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name not in known
            )
        blank = np.broadcast_to(np.array(pad, np.uint8), (1, side, side, 3)).copy()
        feeds: dict[str, Array] = {"images": blank, "labels": np.zeros(1, np.int32)}
        self._background = {**feeds, **run_model(serialise(every), feeds)}

    def __getitem__(self, name: str) -> Array:
        return self._background[name][0]  # type: ignore[no-any-return]

    def middle(self, name: str, channels_last: bool) -> Doubles:
        """The value of each channel in the middle of a map."""
        height, width = self.sides(name, channels_last)
        blank = self._first(name, channels_last)
        return np.asarray(blank[:, height // 2, width // 2], np.float64)

    def sides(self, name: str, channels_last: bool = False) -> tuple[int, int]:
        """Height and width of a map."""
        _, height, width = self._first(name, channels_last).shape
        return height, width

    def is_even(
        self, name: str, rows: slice, columns: slice, blank: Doubles, channels_last: bool = False
    ) -> bool:
        """Whether a part of a map has the value `blank` [channels] everywhere, but for rounding."""
        part = self._first(name, channels_last)[:, rows, columns]
        largest = max(float(np.abs(blank).max()), 1.0)
        return bool(np.abs(part - blank[:, None, None]).max() <= TOLERANCE * largest)

    def _first(self, name: str, channels_last: bool) -> Array:
        """The map [channels, height, width]."""
        return np.moveaxis(self[name], -1, 0) if channels_last else self[name]


def response(weight: Array, value: Doubles, groups: int) -> Doubles:
    """What a convolution without bias gives where every place has the same value for each channel."""
    summed = weight.astype(np.float64).sum(axis=(2, 3)).reshape(groups, -1, weight.shape[1])
    return np.asarray(np.einsum("goi,gi->go", summed, value.reshape(groups, -1)).ravel())


def sliding_along(axis: int, attributes: Mapping[str, Any], kernel: int, length: int) -> Sliding:
    """How a layer with these attributes slides along an axis of so many places."""
    stride, dilation = (int(attributes.get(name, [1, 1])[axis]) for name in ("strides", "dilations"))
    mode = attributes.get("auto_pad", b"NOTSET")
    total = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    before = {
        b"NOTSET": int(attributes.get("pads", [0, 0, 0, 0])[axis]),
        b"VALID": 0,
        b"SAME_UPPER": total // 2,
        b"SAME_LOWER": total - total // 2,
    }
    return Sliding(kernel, stride, dilation, before[mode])
