"""Where in a feature map a tile can be seen: windows, and how convolutions move and widen them.

A tile in the middle of a blank image reaches, layer by layer, a growing window of each feature map; outside
of it the map is what the blank image alone gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sliding:
    """How a convolution or a pooling slides along one axis.

    Attributes:
        kernel, stride, dilation: as in ONNX.
        before: how far the first position reaches beyond the map's beginning (the padding there).
    """

    kernel: int
    stride: int
    dilation: int
    before: int

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

    @property
    def length(self) -> int:
        """Places."""
        return self.end - self.start

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
    """Move a window through a layer.

    Args:
        window: before the layer, at least one place.
        sliding: the layer.
        length: of the whole map behind the layer.

    Returns:
        A window that holds every position which reads a place of `window`, within the map.
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


def share(spans: Sequence[Span], lengths: Sequence[int]) -> float:
    """The share of a map that a window fills."""
    filled = 1.0
    for span, length in zip(spans, lengths, strict=True):
        filled *= span.length / length
    return filled
