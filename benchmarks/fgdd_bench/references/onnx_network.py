"""A bundle's graph as a PyTorch network with the same weights, for the references to run.

It is what an engineer would write by hand, as a `torch.fx` graph of PyTorch's functions, so that autocast,
channels-last layouts and `torch.compile` treat it as any other network. Batch normalisations are part of the
convolutions in a bundle, which favours PyTorch.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn
from torch.nn import functional

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import SettingsError

_DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def pytorch_network(
    bundle: Bundle, inputs: Sequence[str], outputs: Sequence[str], *, height: int, width: int
) -> fx.GraphModule:
    """Rebuild a part of a bundle's graph in PyTorch.

    Args:
        bundle: in fp32.
        inputs: tensors that the network takes, by position: inputs of the graph, or tensors within it, such
            as `first_convolution_input` names.
        outputs: tensors that it returns: one as such, several as a tuple.
        height, width: pixels of the graph's images, on which the padding of convolutions may depend.

    Returns:
        The network, in evaluation mode.

    Raises:
        SettingsError: the graph has an operator that has no counterpart here.
    """
    model = onnx.load_from_string(bundle.graph())
    lengths = {"height": height, "width": width}
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in lengths:
                axis.dim_value = lengths[axis.dim_param]
    builder = _Builder(onnx.shape_inference.infer_shapes(model, data_prop=True).graph, bundle.name)
    for name in inputs:
        builder.made[name] = builder.graph.placeholder(f"given_{name}")
    results = tuple(builder.value(name) for name in outputs)
    builder.graph.output(results[0] if len(results) == 1 else results)
    return fx.GraphModule(builder.root, builder.graph).eval()


def first_convolution_input(bundle: Bundle) -> str:
    """Return the tensor that enters a graph's first convolution: normalised images, float32 [batch, 3, …].

    Raises:
        SettingsError: it has none.
    """
    for node in onnx.load_from_string(bundle.graph()).graph.node:
        if node.op_type == "Conv":
            return str(node.input[0])
    raise SettingsError(f"The graph of '{bundle.name}' has no convolution", "Leave its stage out: --stages.")


class _Builder:
    """Adds the nodes of an ONNX graph to a PyTorch graph."""

    def __init__(self, graph: onnx.GraphProto, name: str) -> None:
        self.root, self.graph = nn.Module(), fx.Graph()
        self.made: dict[str, Any] = {}
        self._name, self._numbers = name, itertools.count()
        self.constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self._nodes = {tensor: node for node in graph.node for tensor in node.output if tensor}
        values = (*graph.input, *graph.value_info, *graph.output)
        self._shapes = {
            value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
        }

    def value(self, name: str) -> Any:
        """Return the node that gives a tensor, or a number; nodes before it are added as they are needed."""
        waiting = [name]
        while waiting:
            tensor = waiting[-1]
            node = self._nodes.get(tensor)
            before = node.input if node is not None and tensor not in self.made else ()
            missing = [each for each in before if each in self._nodes and each not in self.made]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            if tensor not in self.made:
                self.made[tensor] = self._constant(tensor) if node is None else self._add(node)
        return self.made[name]

    def _add(self, node: onnx.NodeProto) -> Any:
        rank = _RANKS.get(node.op_type)
        weight = None if rank is None else self.constants.get(node.input[1])
        fits = rank is None or (weight is not None and weight.ndim == rank)
        if node.op_type not in _OPERATORS or not fits:
            raise SettingsError(
                f"The PyTorch reference lacks the operator {node.op_type} of '{self._name}'",
                "Leave its stage out: --stages.",
            )
        return _OPERATORS[node.op_type](_Node(self, node))

    def _constant(self, name: str) -> Any:
        if name not in self.constants:
            raise SettingsError(f"The graph of '{self._name}' takes '{name}', which is not given")
        array = self.constants[name]
        return array.item() if array.ndim == 0 else self.tensor(array)

    def tensor(self, array: np.ndarray[Any, Any]) -> fx.Node:
        """Add a constant, as a parameter where it may be one: autocast converts these once."""
        target, tensor = f"constant_{next(self._numbers)}", torch.from_numpy(array.copy())
        if tensor.is_floating_point():
            self.root.register_parameter(target, nn.Parameter(tensor))
        else:
            self.root.register_buffer(target, tensor)
        return self.graph.get_attr(target)

    def sides(self, tensor: str) -> list[int]:
        """Return height and width of a tensor [batch, channels, height, width]."""
        return self._shapes[tensor][2:]


class _Node:
    """An ONNX node, for the functions that make PyTorch's of it."""

    def __init__(self, builder: _Builder, node: onnx.NodeProto) -> None:
        self.builder, self.node = builder, node
        self._attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self._attributes.get(name, default)

    def operand(self, place: int) -> Any:
        """Return an input; None where it is left out."""
        name = self.node.input[place] if place < len(self.node.input) else ""
        return self.builder.value(name) if name else None

    def numbers(self, place: int) -> list[int]:
        """Return the whole numbers of an input that is a constant."""
        return [int(number) for number in self.builder.constants[self.node.input[place]].flatten()]

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Apply a function."""
        return self.builder.graph.call_function(function, args, kwargs)


def _convolution(node: _Node) -> fx.Node:
    tensor, weight, bias = (node.operand(place) for place in range(3))
    stride, dilation = list(node.get("strides", [1, 1])), list(node.get("dilations", [1, 1]))
    pads = list(node.get("pads", [0, 0, 0, 0]))
    if node.get("auto_pad", b"NOTSET") == b"SAME_UPPER":
        kernel = node.builder.constants[node.node.input[1]].shape[2:]
        pads = _same_upper(node.builder.sides(node.node.input[0]), kernel, stride, dilation)
    if pads[:2] != pads[2:]:
        tensor = node.call(functional.pad, tensor, [pads[1], pads[3], pads[0], pads[2]])
        pads = [0, 0]
    return node.call(
        functional.conv2d, tensor, weight, bias, stride, pads[:2], dilation, node.get("group", 1)
    )


def _same_upper(
    sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Return padding as TensorFlow's `SAME`: top, left, bottom, right."""
    totals = [
        max((-(-side // step) - 1) * step + (size - 1) * spread + 1 - side, 0)
        for side, size, step, spread in zip(sides, kernel, stride, dilation, strict=True)
    ]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


def _linear(node: _Node) -> fx.Node:
    weight = node.builder.constants[node.node.input[1]]
    transposed = node.builder.tensor(weight if node.get("transB", 0) else weight.T)
    return node.call(functional.linear, node.operand(0), transposed, node.operand(2))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def add(node: _Node) -> fx.Node:
        axes = node.get("axes") or node.numbers(1)
        return node.call(function, node.operand(0), dim=list(axes), keepdim=bool(node.get("keepdims", 1)))

    return add


def _plain(function: Callable[..., Any]) -> Operator:
    """Apply a function of the node's inputs, in their order."""
    return lambda node: node.call(function, *map(node.builder.value, node.node.input))


def _largest(first: Any, second: Any) -> Tensor:
    """Return the larger of two, one of which may be a number."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.maximum(first, second)
    tensor, number = (first, second) if isinstance(first, Tensor) else (second, first)
    return torch.clamp(tensor, min=number)


Operator = Callable[[_Node], fx.Node]
_RANKS = {"Conv": 4, "Gemm": 2, "MatMul": 2}  # of weights, which are constants
_OPERATORS: Mapping[str, Operator] = {
    "Add": _plain(operator.add),
    "Cast": lambda node: node.call(Tensor.to, node.operand(0), _DTYPES[node.get("to")]),
    "Clip": lambda node: node.call(torch.clamp, node.operand(0), min=node.operand(1), max=node.operand(2)),
    "Concat": lambda node: node.call(
        torch.cat, list(map(node.builder.value, node.node.input)), dim=node.get("axis")
    ),
    "Conv": _convolution,
    "Div": _plain(operator.truediv),
    "Flatten": lambda node: node.call(torch.flatten, node.operand(0), node.get("axis", 1)),
    "GatherElements": lambda node: node.call(
        torch.gather, node.operand(0), node.get("axis", 0), node.call(Tensor.to, node.operand(1), torch.int64)
    ),
    "Gemm": _linear,
    "GlobalAveragePool": lambda node: node.call(functional.adaptive_avg_pool2d, node.operand(0), 1),
    "Greater": _plain(operator.gt),
    "LogSoftmax": lambda node: node.call(functional.log_softmax, node.operand(0), dim=node.get("axis", -1)),
    "MatMul": _linear,
    "Max": _plain(_largest),
    "MaxPool": lambda node: node.call(
        functional.max_pool2d,
        node.operand(0),
        list(node.get("kernel_shape")),
        list(node.get("strides", [1, 1])),
        list(node.get("pads", [0, 0, 0, 0])[:2]),
        ceil_mode=bool(node.get("ceil_mode", 0)),
    ),
    "Mul": _plain(operator.mul),
    "Neg": _plain(operator.neg),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "Relu": _plain(functional.relu),
    "Reshape": lambda node: node.call(torch.reshape, node.operand(0), node.numbers(1)),
    "Resize": lambda node: node.call(
        functional.interpolate,
        node.operand(0),
        size=node.builder.sides(node.node.output[0]),
        mode="bilinear",
        align_corners=False,
    ),
    "Round": _plain(torch.round),
    "Sigmoid": _plain(torch.sigmoid),
    "Squeeze": lambda node: node.call(torch.squeeze, node.operand(0), tuple(node.numbers(1))),
    "Sub": _plain(operator.sub),
    "Transpose": lambda node: node.call(torch.permute, node.operand(0), list(node.get("perm"))),
    "Unsqueeze": lambda node: node.call(torch.unsqueeze, node.operand(0), *node.numbers(1)),
}
