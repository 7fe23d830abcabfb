"""Graphs in half precision, with the parts that need fp32 left in it, and their emulation in fp32.

`rules` says which parts. The result has the same inputs and outputs, weights in the precision that reads
them, and a conversion where a tensor passes from one precision to the other, one for each tensor. A strongly
typed TensorRT takes it as it is. Its emulation computes the same in fp32.

Maintained converters were tried first. onnxconverter-common 1.16 writes invalid graphs of every bundle. ONNX
Runtime's, once sorted, is valid, but knows no bfloat16, and rounds every tensor between two nodes that it is
to keep in fp32, such as those of box refinement. AutoCast needs an older onnx.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass

from fgdd_export.graphs.late_onnx import onnx
from fgdd_export.precision.graph import (
    FORMATS,
    FloatGraph,
    LowFormat,
    LowPrecision,
    check_structure,
    raise_opset,
    tensor_types,
)
from fgdd_export.precision.rules import EXACT, INDIFFERENT, PRODUCTS, Plan, plan_precision

_HIGH = "fp32"


@dataclass(frozen=True)
class Lowered:
    """A graph of which parts are in low precision."""

    # Checked; inputs and outputs have the names and types that they had. In bf16 it is at opset 22 where its
    # convolutions ask for that
    model: onnx.ModelProto
    # Names of the nodes that compute in low precision, in the graph's order; others that only move or select
    # values may hold low precision too
    lowered: tuple[str, ...]
    # Why each other node that handles float32 tensors stays in fp32, by the node's name
    kept: Mapping[str, str]


def lower_precision(model: onnx.ModelProto, precision: LowPrecision, keep: Collection[str] = ()) -> Lowered:
    """Convert a graph to low precision.

    Args:
        model: in fp32. A node without a name of its own has that of its first output.
        precision: of the parts that do not need fp32.
        keep: names of further nodes that stay in fp32; no other node computes otherwise for that.

    Raises:
        BundleError: the model breaks a rule of ONNX, or has control flow.
    """
    low = FORMATS[precision]
    graph = _graph_for(model, low)
    plan = plan_precision(graph, low, frozenset(keep))
    lowered = _Conversion(graph, plan, low).model()
    check_structure(lowered)
    computing = (
        name
        for place, name in enumerate(graph.names)
        if place in plan.low and graph.nodes[place].op_type not in EXACT
    )
    return Lowered(lowered, tuple(computing), plan.kept)


def emulate(model: onnx.ModelProto, precision: LowPrecision, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Return a graph that gives in fp32 what `lower_precision` would, for a machine that has only fp32.

    Weights, and every tensor that the lowered graph holds in low precision, are converted to it and back
    where they are made, so they are rounded, or become infinite where out of its range. What it cannot tell
    is how a device sums within one operator.
    """
    emulation = _Emulation(lower_precision(model, precision, keep).model, FORMATS[precision]).model()
    check_structure(emulation)
    return emulation


def _graph_for(model: onnx.ModelProto, low: LowFormat) -> FloatGraph:
    """The graph to convert, at an opset whose operators take the precision.

    Convolutions take bfloat16 from opset 22 on. A graph with GridSample stays where it is, with its few
    convolutions in fp32: from opset 20 on, some TensorRTs take linear interpolation for nearest.
    """
    graph = FloatGraph(model)
    operators = {node.op_type for node in graph.nodes}
    products = (place for place, node in enumerate(graph.nodes) if node.op_type in PRODUCTS)
    if "GridSample" in operators or all(graph.takes(place, low) for place in products):
        return graph
    return FloatGraph(raise_opset(model))


class _Conversion:
    """Writes a graph anew according to a plan."""

    def __init__(self, graph: FloatGraph, plan: Plan, low: LowFormat) -> None:
        self._graph = graph
        self._plan = plan
        self._low = low
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._taken = set(graph.producers).union(graph.names, graph.readers)
        # What a tensor of the graph is called where it is in fp32, and where it is low.
        self._high_names: dict[str, str] = {}
        self._low_names: dict[str, str] = {}

    def model(self) -> onnx.ModelProto:
        """Convert; unchecked."""
        for place, node in enumerate(self._graph.nodes):
            if node.op_type in INDIFFERENT:
                self._add(node, [self._low_names.get(name, name) for name in node.input], list(node.output))
            elif place in self._plan.low:
                self._add_low(place)
            else:
                self._add(node, [self._high(name) for name in node.input], list(node.output))
        model = deepcopy(self._graph.model)
        del model.graph.node[:]
        model.graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}.union(self._graph.outputs)
        kept = [constant for constant in self._graph.model.graph.initializer if constant.name in read]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, *self._constants.values()])
        return model

    def _add(self, node: onnx.NodeProto, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
        copy = deepcopy(node)
        copy.input[:], copy.output[:] = inputs, outputs
        self._nodes.append(copy)
        return copy

    def _add_low(self, place: int) -> None:
        node, open_inputs = self._graph.nodes[place], self._graph.variable_inputs(place)
        inputs = [
            self._low_name(name) if position in open_inputs else self._high(name)
            for position, name in enumerate(node.input)
        ]
        self._low_names |= {name: name for name in self._graph.results(place)}
        added = self._add(node, inputs, list(node.output))
        if node.op_type == "Cast":
            added.attribute[0].i = self._low.element_type

    def _high(self, name: str) -> str:
        """The name of a tensor in fp32, which it is converted to where it is not."""
        if name not in self._high_names and self._graph.producers.get(name) in self._plan.low:
            self._high_names[name] = self._new(name, _HIGH)
            self._cast(name, self._high_names[name], onnx.TensorProto.FLOAT)
        return self._high_names.get(name, name)

    def _low_name(self, name: str) -> str:
        """The name of a tensor in low precision, which it is converted to where it is not."""
        if name not in self._low_names:
            self._low_names[name] = self._new(name, self._low.precision)
            values = self._graph.constants.get(name)
            if values is None:
                self._cast(name, self._low_names[name], self._low.element_type)
            else:
                self._constants[name] = self._low.encode(values, self._low_names[name])
        return self._low_names[name]

    def _cast(self, tensor: str, output: str, element_type: int) -> None:
        to = self._low.precision if element_type == self._low.element_type else _HIGH
        name = self._new(tensor, f"to_{to}")
        self._nodes.append(onnx.helper.make_node("Cast", [tensor], [output], name, to=element_type))

    def _new(self, name: str, suffix: str) -> str:
        """A name that nothing else has."""
        new = f"{name}_{suffix}"
        while new in self._taken:
            new += "_"
        self._taken.add(new)
        return new


# Rounding before them is rounding after them, and runtimes fuse them with the product that they follow.
_COMMUTE = frozenset({"Clip", "Relu"})


class _Emulation:
    """Replaces low precision in a lowered graph by fp32 that is rounded."""

    def __init__(self, model: onnx.ModelProto, low: LowFormat) -> None:
        self._source = model
        self._low = low
        types = tensor_types(model)
        self._low_tensors = {name for name, kind in types.items() if kind == low.element_type}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._unrounded: set[str] = set()
        self._names: dict[str, str] = {}  # tensors of the source for which another one stands here
        self._nodes: list[onnx.NodeProto] = []

    def model(self) -> onnx.ModelProto:
        """Convert; unchecked."""
        for node in self._source.graph.node:
            from_low = node.op_type == "Cast" and node.input[0] in self._low_tensors
            if from_low and node.output[0] not in self._low_tensors:
                self._names[node.output[0]] = node.input[0]  # which is in fp32 here
            else:
                self._add(node)
        model = deepcopy(self._source)
        del model.graph.node[:]
        model.graph.node.extend(self._nodes)
        for constant in model.graph.initializer:
            if constant.data_type == self._low.element_type:
                values = self._low.decode(constant)
                constant.CopyFrom(onnx.numpy_helper.from_array(values, constant.name))
        return model

    def _add(self, node: onnx.NodeProto) -> None:
        copy = deepcopy(node)
        copy.input[:] = [self._names.get(name, name) for name in node.input]
        self._nodes.append(copy)
        lowered = [name for name in node.output if name in self._low_tensors]
        if node.op_type == "Cast" and lowered:
            copy.attribute[0].i = onnx.TensorProto.FLOAT
        if not self._rounds(node):
            return
        for place, name in enumerate(node.output):
            if name in self._low_tensors:
                if self._is_rounded_later(name):
                    self._unrounded.add(name)
                else:
                    copy.output[place] = f"{name}_unrounded"
                    self._round(f"{name}_unrounded", name)

    def _rounds(self, node: onnx.NodeProto) -> bool:
        """Whether a node's results in low precision are others than in fp32, from the same operands."""
        if node.op_type == "Cast" or node.op_type not in EXACT:
            return True
        return not self._unrounded.isdisjoint(node.input)

    def _is_rounded_later(self, name: str) -> bool:
        readers = self._readers.get(name, [])
        return len(readers) == 1 and readers[0].op_type in _COMMUTE

    def _round(self, tensor: str, output: str) -> None:
        rounded = f"{output}_rounded"
        make, to_fp32 = onnx.helper.make_node, onnx.TensorProto.FLOAT
        self._nodes += [
            make("Cast", [tensor], [rounded], rounded, to=self._low.element_type),
            make("Cast", [rounded], [output], f"{rounded}_back", to=to_fp32),
        ]
