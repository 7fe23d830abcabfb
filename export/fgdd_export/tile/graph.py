"""A teacher's graph for tiles: it pads them itself, and computes the first layers only where a tile shows.

With the score view `pad`, three quarters of what a teacher sees at factor 2 is blank, and in the first layers
most of the blank stays what it always is. So these layers are computed on the receptive-field window: that of
each feature map which the tile reaches. The window is laid into the background activation, the map that the
blank image gives, which is a constant. The result is that of the padded view, but for the order in which
float32 sums are rounded.

Outside of the window, a map has one value for each channel. Every tensor is kept less an offset for each
channel, so that this value becomes 0 before a convolution, which then pads with zeros as always; its bias
makes up for the offset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fgdd_export.graphs.graph import Array, GraphBuilder, tensor_specs
from fgdd_export.graphs.late_onnx import onnx
from fgdd_export.tile.receptive_fields import (
    BackgroundActivations,
    Doubles,
    Span,
    Step,
    response,
    slide,
    sliding_along,
)

WORTH = 0.9  # a window that fills more of its map than this saves nothing
_ELEMENTWISE = ("Cast", "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
_WITH_CONSTANT = ("Add", "Div", "Mul", "Sub")


@dataclass(frozen=True)
class CroppedGraph:
    """A graph that takes tiles.

    Attributes:
        model: `images` uint8 [batch, tile, tile, 3]; otherwise as the teacher's.
        windowed: names of the convolutions that are computed on windows, in order.
    """

    model: onnx.ModelProto
    windowed: tuple[str, ...]


@dataclass(frozen=True)
class _Window:
    """A tensor on a window: `name` + `offset` is its true value there, and outside `surround` + `offset`."""

    name: str  # in the new graph
    spans: tuple[Span, Span]  # rows and columns of the true map
    # offset, surround: for each channel, [channels]
    offset: Doubles
    surround: Doubles
    channels_last: bool = False  # whether it is [batch, height, width, channels]

    @property
    def blank(self) -> Doubles:
        """The true value outside."""
        return self.offset + self.surround


class _UnsuitableError(Exception):
    """A node cannot be computed on a window: from here on, whole maps."""


def build_cropped_graph(
    model: onnx.ModelProto, side: int, tile: int, pad: Sequence[int]
) -> CroppedGraph | None:
    """Make a teacher's graph take tiles, or None where no first layers can be computed on windows.

    Args:
        model: takes `images` uint8 [batch, side, side, 3] (or open lengths) and `labels`.
        side: of the padded view in pixels.
        tile: side of a tile in pixels, less than `side`.
        pad: RGB value around the tile.
    """
    background = BackgroundActivations(model, side, pad)
    before = (side - tile) // 2
    walk = _Walk(model, background, Span(before, before + tile), pad)
    last = walk.run()
    return None if last is None or not walk.windowed else walk.finish(last, tile)


class _Walk:
    """Follows the window from node to node, and writes the new graph's nodes; `windowed` are convolutions."""

    def __init__(
        self, model: onnx.ModelProto, background: BackgroundActivations, start: Span, pad: Sequence[int]
    ) -> None:
        self._model = model
        self._background = background
        self._constants: Mapping[str, Array] = {
            item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer
        }
        self._builder = GraphBuilder("tile_")
        self._windows: dict[str, _Window] = {}
        blank = np.array(pad, np.float64)
        self._windows["images"] = _Window("images", (start, start), np.zeros(3), blank, channels_last=True)
        self.windowed: list[str] = []
        # What is written up to the last tensor that is worth while: nodes of the model, as so many nodes,
        # constants and convolutions.
        self._done = (0, 0, 0, 0)

    def run(self) -> str | None:
        """Write windowed nodes as far as it is worth while, or a little further.

        Returns the last tensor through which everything passes while its window is worth while.
        """
        last: str | None = None
        nodes = list(self._model.graph.node)
        for done, node in enumerate(nodes, start=1):
            try:
                window = self._step(node)
            except _UnsuitableError:
                break
            name = node.output[0]
            self._windows[name] = window
            later = {read for other in nodes[done:] for read in other.input}
            if not window.channels_last and later.intersection(self._windows) == {name}:
                sides = zip(window.spans, self._background.sides(name), strict=True)
                if math.prod((span.end - span.start) / side for span, side in sides) > WORTH:
                    break
                last = name
                builder = self._builder
                self._done = done, len(builder.nodes), len(builder.constants), len(self.windowed)
        return last

    def finish(self, last: str, tile: int) -> CroppedGraph:
        """Lay the last window into its background activation, and let the rest of the model follow."""
        done, nodes, constants, windowed = self._done
        del self._builder.nodes[nodes:], self._builder.constants[constants:], self.windowed[windowed:]
        window = self._zeroed(self._windows[last])
        constant = self._background[last].astype(np.float64)
        rows, columns = window.spans
        constant[:, rows.start : rows.end, columns.start : columns.end] = window.offset[:, None, None]
        height, width = self._background.sides(last)
        padded = self._padded(window, (Span(0, height), Span(0, width)))
        self._builder.node("Add", padded, self._builder.constant(constant[None]), output=last)
        self._builder.nodes += list(self._model.graph.node)[done:]
        used = {name for node in self._builder.nodes for name in node.input}
        self._builder.constants += [item for item in self._model.graph.initializer if item.name in used]
        inputs = [
            replace(spec, shape=(spec.shape[0], tile, tile, 3)) if spec.name == "images" else spec
            for spec in tensor_specs(self._model.graph.input)
        ]
        outputs = tensor_specs(self._model.graph.output)
        model = self._builder.model(f"{self._model.graph.name}_tile{tile}", inputs, outputs)
        return CroppedGraph(model, tuple(self.windowed))

    def _step(self, node: onnx.NodeProto) -> _Window:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        given = [name for name in node.input if name in self._windows]
        constants = all(name in self._constants for name in node.input if name and name not in given)
        if not given or not constants or len(node.output) != 1:
            raise _UnsuitableError
        first = self._windows.get(node.input[0])
        if node.op_type == "Conv" and first is not None and not first.channels_last:
            return self._convolution(node, first, attributes)
        if node.op_type == "MaxPool" and first is not None and not first.channels_last:
            return self._max_pool(node, first, attributes)
        if node.op_type == "Add" and len(given) == 2:
            return self._sum(*(self._windows[name] for name in node.input))
        if node.op_type == "Transpose" and first is not None and list(attributes["perm"]) == [0, 3, 1, 2]:
            return self._same(node, first, attributes, channels_last=False)
        if node.op_type in _ELEMENTWISE or (node.op_type in _WITH_CONSTANT and len(given) == 1):
            return self._same(node, self._windows[given[0]], attributes)
        raise _UnsuitableError

    def _same(
        self,
        node: onnx.NodeProto,
        window: _Window,
        attributes: Mapping[str, Any],
        channels_last: bool | None = None,
    ) -> _Window:
        """A node that treats every place of a map alike."""
        true = self._true(window)
        given = next(name for name in node.input if name in self._windows)
        for name in node.input:
            if name in self._constants and self._constants[name].size > 1:
                self._check_constant(self._constants[name], window)
        inputs = [true.name if name == given else self._kept(name) for name in node.input]
        name = self._builder.node(node.op_type, *inputs, **attributes)
        last = window.channels_last if channels_last is None else channels_last
        blank = self._background.middle(node.output[0], last)
        self._check_even(node.output[0], window.spans, blank, last)
        return _Window(name, window.spans, np.zeros_like(blank), blank, last)

    def _check_constant(self, constant: Array, window: _Window) -> None:
        """A constant may differ from channel to channel, not from place to place."""
        shape = (1,) * (4 - constant.ndim) + constant.shape
        places = shape[1:3] if window.channels_last else shape[2:]
        if constant.ndim > 4 or shape[0] != 1 or places != (1, 1):
            raise _UnsuitableError

    def _convolution(self, node: onnx.NodeProto, window: _Window, attributes: Mapping[str, Any]) -> _Window:
        weight = self._constants[node.input[1]]
        bias = self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
        steps = self._slide(node, window, weight.shape[2:], attributes)
        if any(step.pads != (0, 0) for step in steps):
            window = self._zeroed(window)
        groups = attributes.get("group", 1)
        inside = bias.astype(np.float64) + response(weight, window.offset, groups)
        blank = inside + response(weight, window.surround, groups)
        spans = (steps[0].span, steps[1].span)
        self._check_even(node.output[0], spans, blank)
        # Where only sums and convolutions follow, the blank value is taken off at once, in the bias.
        readers = [reader.op_type for reader in self._model.graph.node if node.output[0] in reader.input]
        taken = blank if {"Conv", "Add"}.issuperset(readers) else np.zeros_like(blank)
        name = self._builder.node(
            "Conv",
            window.name,
            self._builder.constant(weight),
            self._builder.constant(inside - taken),
            kernel_shape=list(weight.shape[2:]),
            strides=list(attributes.get("strides", [1, 1])),
            dilations=list(attributes.get("dilations", [1, 1])),
            pads=[steps[0].pads[0], steps[1].pads[0], steps[0].pads[1], steps[1].pads[1]],
            group=groups,
        )
        self.windowed.append(name)
        return _Window(name, spans, taken, blank - taken)

    def _max_pool(self, node: onnx.NodeProto, window: _Window, attributes: Mapping[str, Any]) -> _Window:
        if attributes.get("storage_order", 0) or len(node.output) > 1:
            raise _UnsuitableError
        window = self._zeroed(window)
        kernel = attributes["kernel_shape"]
        steps = self._slide(node, window, kernel, attributes)
        spans = (steps[0].span, steps[1].span)
        self._check_even(node.output[0], spans, window.blank)
        name = self._builder.node(
            "MaxPool",
            self._padded(window, (steps[0].read, steps[1].read)),
            kernel_shape=list(kernel),
            strides=list(attributes.get("strides", [1, 1])),
            dilations=list(attributes.get("dilations", [1, 1])),
        )
        return _Window(name, spans, window.offset, window.surround)

    def _slide(
        self, node: onnx.NodeProto, window: _Window, kernel: Sequence[int], attributes: Mapping[str, Any]
    ) -> list[Step]:
        """Move the window through a layer, if all that is read around it is blank."""
        lengths = self._background[node.output[0]].shape[1:]
        inside = self._background[node.input[0]].shape[1:]
        steps = []
        for axis in range(2):
            sliding = sliding_along(axis, attributes, kernel[axis], inside[axis])
            step = slide(window.spans[axis], sliding, lengths[axis])
            if min(step.pads) < 0 or step.read.start < 0 or step.read.end > inside[axis]:
                raise _UnsuitableError
            steps.append(step)
        self._check_even(node.input[0], (steps[0].read, steps[1].read), window.blank)
        return steps

    def _sum(self, one: _Window, other: _Window) -> _Window:
        one, other = self._zeroed(one), self._zeroed(other)
        spans = (one.spans[0].union(other.spans[0]), one.spans[1].union(other.spans[1]))
        name = self._builder.node("Add", self._padded(one, spans), self._padded(other, spans))
        return _Window(name, spans, one.offset + other.offset, np.zeros_like(one.surround))

    def _zeroed(self, window: _Window) -> _Window:
        """The same tensor with a surround of 0."""
        if window.channels_last:
            raise _UnsuitableError
        if not window.surround.any():
            return window
        name = self._builder.node("Sub", window.name, self._per_channel(window.surround))
        return _Window(name, window.spans, window.blank, np.zeros_like(window.surround))

    def _true(self, window: _Window) -> _Window:
        """The same tensor without an offset."""
        if not window.offset.any():
            return window
        name = self._builder.node("Add", window.name, self._per_channel(window.offset))
        return _Window(name, window.spans, np.zeros_like(window.offset), window.blank, window.channels_last)

    def _per_channel(self, values: Doubles) -> str:
        return self._builder.constant(values[None, :, None, None])

    def _padded(self, window: _Window, spans: tuple[Span, Span]) -> str:
        """A tensor with a surround of 0 on a larger window."""
        if window.spans == spans:
            return window.name
        (rows, columns), (all_rows, all_columns) = window.spans, spans
        begin = [0, 0, rows.start - all_rows.start, columns.start - all_columns.start]
        end = [0, 0, all_rows.end - rows.end, all_columns.end - columns.end]
        return self._builder.node("Pad", window.name, self._builder.constant(begin + end, np.int64))

    def _kept(self, name: str) -> str:
        """An input of the old graph that the new one has as well: a constant, or one left out."""
        return self._builder.constant(self._constants[name], self._constants[name].dtype.type) if name else ""

    def _check_even(
        self, name: str, spans: tuple[Span, Span], blank: Doubles, channels_last: bool = False
    ) -> None:
        """Make sure that the background activation has one value for each channel on a window."""
        rows, columns = (slice(span.start, span.end) for span in spans)
        if not self._background.is_even(name, rows, columns, blank, channels_last):
            raise _UnsuitableError
