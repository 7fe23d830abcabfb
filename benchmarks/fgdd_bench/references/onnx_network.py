"""A bundle's graph as a PyTorch network with the same weights, for the references to run.

It is what an engineer would write by hand: a module for each convolution and linear layer, plain functions
for the rest, as a `torch.fx` graph, so that autocast, channels-last layouts and `torch.compile` treat it as
any other network. Batch normalisations are part of the convolutions in a bundle, which favours PyTorch.
"""

from __future__ import annotations

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

Attributes = Mapping[str, Any]

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
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in ("height", "width"):
                length = height if axis.dim_param == "height" else width
                axis.dim_value = length
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    builder = _Builder(inferred.graph, bundle.name)
    return builder.build(inputs, outputs)


def first_convolution_input(bundle: Bundle) -> str:
    """Return the tensor that enters a graph's first convolution: normalised images, float32 [batch, 3, …].

    Raises:
        SettingsError: it has none.
    """
    graph = onnx.load_from_string(bundle.graph()).graph
    for node in graph.node:
        if node.op_type == "Conv":
            return str(node.input[0])
    raise SettingsError(f"The graph of '{bundle.name}' has no convolution", "Leave its stage out: --stages.")


class _Builder:
    """Adds the nodes of an ONNX graph to a PyTorch graph."""

    def __init__(self, graph: onnx.GraphProto, name: str) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self._nodes = {tensor: node for node in graph.node for tensor in node.output if tensor}
        values = (*graph.input, *graph.value_info, *graph.output)
        self._shapes = {
            value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
        }
        self._name = name
        self._made: dict[str, Any] = {}

    def build(self, inputs: Sequence[str], outputs: Sequence[str]) -> fx.GraphModule:
        for name in inputs:
            self._made[name] = self.graph.placeholder(f"given_{name}")
        results = tuple(self.value(name) for name in outputs)
        self.graph.output(results[0] if len(results) == 1 else results)
        return fx.GraphModule(self.root, self.graph).eval()

    def value(self, name: str) -> Any:
        """Return the node that gives a tensor; nodes before it are added as they are needed."""
        waiting = [name]
        while waiting:
            tensor = waiting[-1]
            node = self._nodes.get(tensor)
            missing = [
                each
                for each in (node.input if node else ())
                if each in self._nodes and each not in self._made
            ]
            if tensor in self._made or not missing:
                waiting.pop()
                if tensor not in self._made:
                    self._made[tensor] = self._constant(tensor) if node is None else self._add(node)
            else:
                waiting += missing
        return self._made[name]

    def _add(self, node: onnx.NodeProto) -> Any:
        if node.op_type not in _OPERATORS:
            raise self.unknown(node)
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        return _OPERATORS[node.op_type](self, node, attributes)

    def unknown(self, node: onnx.NodeProto) -> SettingsError:
        """Return what is raised at an operator that has no counterpart."""
        return SettingsError(
            f"The PyTorch reference lacks the operator {node.op_type} of '{self._name}'",
            "Leave its stage out: --stages.",
        )

    def _constant(self, name: str) -> Any:
        if name not in self.constants:
            raise SettingsError(f"The graph of '{self._name}' takes '{name}', which is not given")
        array = self.constants[name]
        if array.ndim == 0:
            return array.item()
        target = f"constant_{len(self._made)}"
        self.root.register_buffer(target, torch.from_numpy(array.copy()))
        return self.graph.get_attr(target)

    def module(self, module: nn.Module, tensor: Any) -> fx.Node:
        """Apply a module of its own."""
        target = f"layer_{len(self._made)}"
        self.root.add_module(target, module)
        return self.graph.call_module(target, (tensor,))

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Apply a function."""
        return self.graph.call_function(function, args, kwargs)

    def operand(self, node: onnx.NodeProto, place: int) -> Any:
        """Return an input that was given; None where it is left out."""
        name = node.input[place] if place < len(node.input) else ""
        return self.value(name) if name else None

    def array(self, node: onnx.NodeProto, place: int) -> np.ndarray[Any, Any] | None:
        """Return an input that is a constant; None where it is left out, or no constant."""
        name = node.input[place] if place < len(node.input) else ""
        return self.constants.get(name)

    def sides(self, tensor: str) -> list[int]:
        """Return height and width of a tensor [batch, channels, height, width]."""
        return self._shapes[tensor][2:]


def _convolution(builder: _Builder, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    weight, bias = builder.array(node, 1), builder.array(node, 2)
    if weight is None or weight.ndim != 4:
        raise builder.unknown(node)
    stride = list(attributes.get("strides", [1, 1]))
    kernel, dilation = weight.shape[2:], list(attributes.get("dilations", [1, 1]))
    tensor = builder.operand(node, 0)
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    if attributes.get("auto_pad", b"NOTSET") == b"SAME_UPPER":
        pads = _same_upper(builder.sides(node.input[0]), kernel, stride, dilation)
    if pads[:2] != pads[2:]:
        tensor = builder.call(functional.pad, tensor, [pads[1], pads[3], pads[0], pads[2]])
        pads = [0, 0, 0, 0]
    layer = nn.Conv2d(
        weight.shape[1] * attributes.get("group", 1),
        weight.shape[0],
        (kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        padding=(pads[0], pads[1]),
        dilation=(dilation[0], dilation[1]),
        groups=attributes.get("group", 1),
        bias=bias is not None,
    )
    _fill(layer, weight, bias)
    return builder.module(layer, tensor)


def _same_upper(
    sides: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Return padding as TensorFlow's `SAME`: top, left, bottom, right."""
    before, after = [], []
    for side, size, step, spread in zip(sides, kernel, stride, dilation, strict=True):
        total = max((-(-side // step) - 1) * step + (size - 1) * spread + 1 - side, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


def _linear(builder: _Builder, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    weight, bias = builder.array(node, 1), builder.array(node, 2)
    if weight is None or weight.ndim != 2:
        raise builder.unknown(node)
    weight = weight if attributes.get("transB", 0) else weight.T
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    _fill(layer, weight, bias)
    return builder.module(layer, builder.operand(node, 0))


def _fill(
    layer: nn.Conv2d | nn.Linear, weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None
) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(bias.copy()))


def _clip(builder: _Builder, node: onnx.NodeProto, _: Attributes) -> fx.Node:
    low, high = builder.operand(node, 1), builder.operand(node, 2)
    if (low, high) == (0.0, 6.0):
        return builder.module(nn.ReLU6(), builder.operand(node, 0))
    return builder.call(torch.clamp, builder.operand(node, 0), min=low, max=high)


def _max_pool(builder: _Builder, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
    pads = attributes.get("pads", [0, 0, 0, 0])
    layer = nn.MaxPool2d(
        tuple(attributes["kernel_shape"]),
        tuple(attributes.get("strides", [1, 1])),
        tuple(pads[:2]),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )
    return builder.module(layer, builder.operand(node, 0))


def _resize(builder: _Builder, node: onnx.NodeProto, _: Attributes) -> fx.Node:
    size = builder.sides(node.output[0])
    return builder.call(
        functional.interpolate, builder.operand(node, 0), size=size, mode="bilinear", align_corners=False
    )


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def add(builder: _Builder, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
        tensor, keep = builder.operand(node, 0), bool(attributes.get("keepdims", 1))
        axes = attributes.get("axes")
        if axes is None:
            axes = _numbers(builder.array(node, 1))
        return builder.call(function, tensor, dim=list(axes), keepdim=keep)

    return add


def _numbers(array: np.ndarray[Any, Any] | None) -> list[int]:
    assert array is not None
    return [int(number) for number in array]


def _along_axis(function: Callable[..., Tensor]) -> Operator:
    def add(builder: _Builder, node: onnx.NodeProto, attributes: Attributes) -> fx.Node:
        return builder.call(function, builder.operand(node, 0), dim=attributes.get("axis", -1))

    return add


def _plain(function: Callable[..., Any]) -> Operator:
    """Apply a function of the node's inputs, in their order."""

    def add(builder: _Builder, node: onnx.NodeProto, _: Attributes) -> fx.Node:
        return builder.call(function, *(builder.value(name) for name in node.input))

    return add


def _largest(first: Any, second: Any) -> Tensor:
    """Return the larger of two, one of which may be a number."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.maximum(first, second)
    tensor, number = (first, second) if isinstance(first, Tensor) else (second, first)
    return torch.clamp(tensor, min=number)


Operator = Callable[[_Builder, onnx.NodeProto, Attributes], fx.Node]
_OPERATORS: Mapping[str, Operator] = {
    "Add": _plain(operator.add),
    "Cast": lambda builder, node, attributes: builder.call(
        Tensor.to, builder.operand(node, 0), _DTYPES[attributes["to"]]
    ),
    "Clip": _clip,
    "Concat": lambda builder, node, attributes: builder.call(
        torch.cat, list(map(builder.value, node.input)), dim=attributes["axis"]
    ),
    "Conv": _convolution,
    "Div": _plain(operator.truediv),
    "Flatten": lambda builder, node, attributes: builder.call(
        torch.flatten, builder.operand(node, 0), attributes.get("axis", 1)
    ),
    "GatherElements": lambda builder, node, attributes: builder.call(
        torch.gather,
        builder.operand(node, 0),
        attributes.get("axis", 0),
        builder.call(Tensor.to, builder.operand(node, 1), torch.int64),
    ),
    "Gemm": _linear,
    "GlobalAveragePool": lambda builder, node, _: builder.module(
        nn.AdaptiveAvgPool2d(1), builder.operand(node, 0)
    ),
    "Greater": _plain(operator.gt),
    "LogSoftmax": _along_axis(functional.log_softmax),
    "MatMul": _linear,
    "Max": _plain(_largest),
    "MaxPool": _max_pool,
    "Mul": _plain(operator.mul),
    "Neg": _plain(operator.neg),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "Relu": _plain(functional.relu),
    "Reshape": lambda builder, node, _: builder.call(
        torch.reshape, builder.operand(node, 0), _numbers(builder.array(node, 1))
    ),
    "Resize": _resize,
    "Round": _plain(torch.round),
    "Sigmoid": _plain(torch.sigmoid),
    "Squeeze": lambda builder, node, _: builder.call(
        torch.squeeze, builder.operand(node, 0), tuple(_numbers(builder.array(node, 1)))
    ),
    "Sub": _plain(operator.sub),
    "Transpose": lambda builder, node, attributes: builder.call(
        torch.permute, builder.operand(node, 0), list(attributes["perm"])
    ),
    "Unsqueeze": lambda builder, node, _: builder.call(
        torch.unsqueeze, builder.operand(node, 0), *_numbers(builder.array(node, 1))
    ),
}
