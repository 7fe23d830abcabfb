"""The low-precision number formats, and a graph as precision sees it.

Which tensors are float32, who makes and who reads them, what may change.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fgdd_export.graphs.graph import check_model
from fgdd_export.graphs.late_onnx import onnx
from fgdd_fast.errors import BundleError

LowPrecision = Literal["fp16", "bf16"]
_BFLOAT16_BITS = 16  # what bfloat16 keeps of a float32: sign, exponent and the first 7 bits of the fraction


@dataclass(frozen=True)
class LowFormat:
    """A number format of 16 bits.

    Attributes:
        precision: its short name.
        type_name: ONNX's name of the tensor type.
    """

    precision: LowPrecision
    type_name: Literal["FLOAT16", "BFLOAT16"]

    @property
    def element_type(self) -> int:
        """ONNX's number of the tensor type."""
        return int(onnx.TensorProto.DataType.Value(self.type_name))

    def round(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The nearest values that the format holds, ties to even; infinite where out of its range."""
        return self._values(self._bits(values))

    def encode(self, values: NDArray[np.float32], name: str) -> onnx.TensorProto:
        """A constant in this format, of `values` rounded to it."""
        data = self._bits(values).astype("<u2").tobytes()
        return onnx.helper.make_tensor(name, self.element_type, values.shape, data, raw=True)

    def decode(self, constant: onnx.TensorProto) -> NDArray[np.float32]:
        """The values of a constant that `encode` made."""
        return self._values(np.frombuffer(constant.raw_data, "<u2").reshape(tuple(constant.dims)))

    def _values(self, bits: NDArray[np.uint16]) -> NDArray[np.float32]:
        if self.precision == "bf16":
            return (bits.astype(np.uint32) << _BFLOAT16_BITS).view(np.float32)
        return bits.view(np.float16).astype(np.float32)

    def _bits(self, values: NDArray[np.float32]) -> NDArray[np.uint16]:
        if self.precision == "fp16":
            with np.errstate(over="ignore"):
                return values.astype(np.float16).view(np.uint16)
        wide = np.asarray(values, order="C").view(np.uint32)
        to_even = (wide >> _BFLOAT16_BITS) & 1
        bits = ((wide.astype(np.uint64) + 0x7FFF + to_even) >> _BFLOAT16_BITS).astype(np.uint16)
        return np.where(np.isnan(values), np.uint16(0x7FC0), bits)


FORMATS: dict[LowPrecision, LowFormat] = {
    "fp16": LowFormat("fp16", "FLOAT16"),
    "bf16": LowFormat("bf16", "BFLOAT16"),
}


BFLOAT16_OPSET = 22  # the first whose convolutions and poolings take bfloat16
_SMALL = 1024  # elements of a constant that shapes may depend on


class FloatGraph:
    """The float32 tensors of a model, and its nodes.

    Args:
        model: checked, without control flow; it is copied. Constant nodes become initializers, and nodes
            without a name of their own get that of their first output.

    Attributes:
        model: the copy.
        nodes: its nodes, sorted topologically.
        names: of the nodes.
        float_tensors: names of all tensors of type float32.
        truth_tensors: names of all tensors of truth values.
        constants: the float32 constants, by name.
        producers: index of the node that makes a tensor.
        readers: indices of the nodes that read a tensor.
        outputs: names of the graph's outputs, in its order.

    Raises:
        BundleError: the model breaks a rule of ONNX, or has control flow.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        check_structure(model)
        self.model = _without_constant_nodes(model)
        self.nodes = list(self.model.graph.node)
        self.names: list[str] = []
        taken: set[str] = set()
        for node in self.nodes:
            if not node.name or node.name in taken:
                node.name = node.output[0]
            taken.add(node.name)
            self.names.append(node.name)
        # In order, not as a set: reasons are given in the order in which nodes are reached from here.
        self.outputs = tuple(value.name for value in self.model.graph.output)
        types = tensor_types(self.model)
        self.float_tensors = {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT}
        self.truth_tensors = {name for name, kind in types.items() if kind == onnx.TensorProto.BOOL}
        self.constants: dict[str, NDArray[np.float32]] = {
            constant.name: onnx.numpy_helper.to_array(constant)
            for constant in self.model.graph.initializer
            if constant.data_type == onnx.TensorProto.FLOAT
        }
        self.producers = {name: place for place, node in enumerate(self.nodes) for name in node.output}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for place, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                self.readers[name].append(place)
        opsets = self.model.opset_import
        self._opset = next(int(entry.version) for entry in opsets if entry.domain in ("", "ai.onnx"))

    def sources(self, place: int) -> list[str]:
        """The float32 tensors that a node reads, without constants."""
        inputs = self.nodes[place].input
        return [name for name in inputs if name in self.float_tensors and name not in self.constants]

    def results(self, place: int) -> list[str]:
        """The float32 tensors that a node makes."""
        return [name for name in self.nodes[place].output if name in self.float_tensors]

    def takes(self, place: int, low: LowFormat) -> bool:
        """Whether a node's operator, at the model's opset, is defined for a low precision."""
        node = self.nodes[place]
        if node.op_type == "Cast":
            return True
        schema = _schema(node, self._opset)
        if schema is None:
            return False
        variables = _type_variables(schema)
        inputs = {variable for _, variable in self._variable_inputs(node, schema)}
        made = [
            _formal(schema.outputs, position).type_str
            for position, name in enumerate(node.output)
            if name in self.float_tensors
        ]
        return (
            bool(inputs)
            and inputs.issuperset(made)
            and all(f"tensor({low.type_name.lower()})" in variables[variable] for variable in inputs)
        )

    def variable_inputs(self, place: int) -> set[int]:
        """Positions of the float32 inputs whose type ONNX leaves open; not so the scales of a Resize."""
        node = self.nodes[place]
        schema = _schema(node, self._opset)
        if schema is None:
            return set()
        return {position for position, _ in self._variable_inputs(node, schema)}

    def _variable_inputs(self, node: onnx.NodeProto, schema: Any) -> Iterator[tuple[int, str]]:
        """Position and type variable of each such input."""
        variables = _type_variables(schema)
        for position, name in enumerate(node.input):
            variable = _formal(schema.inputs, position).type_str
            if name in self.float_tensors and variable in variables:
                yield position, variable


def check_structure(model: onnx.ModelProto) -> None:
    """Check a model's structure, types and shapes as `check_model`, without copying its weights."""
    check_model(_without_weights(model))


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of each tensor, as ONNX numbers them."""
    graph = onnx.shape_inference.infer_shapes(_without_weights(model), strict_mode=True).graph
    constants = {constant.name: constant.data_type for constant in graph.initializer}
    values = (*graph.input, *graph.value_info, *graph.output)
    return constants | {value.name: value.type.tensor_type.elem_type for value in values}


def raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model to the opset whose operators take bfloat16; BundleError where ONNX cannot do it."""
    try:
        converted = onnx.version_converter.convert_version(model, BFLOAT16_OPSET)
    except RuntimeError as error:
        raise BundleError(
            f"The ONNX graph '{model.graph.name}' cannot be brought to opset {BFLOAT16_OPSET}: {error}"
        ) from error
    least = onnx.helper.find_min_ir_version_for(list(converted.opset_import))
    converted.ir_version = max(model.ir_version, least)
    return converted


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model whose large constants are inputs: types and shapes are the same, at no cost."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for constant in model.graph.initializer:
        if math.prod(constant.dims) <= _SMALL:
            light.graph.initializer.add().CopyFrom(constant)
        else:
            value = onnx.helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims)
            light.graph.input.append(value)
    return light


def _without_constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model whose constants are all initializers."""
    copy = deepcopy(model)
    del copy.graph.node[:]
    del copy.graph.value_info[:]
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise BundleError(
                f"The ONNX graph '{model.graph.name}' has control flow ({node.op_type}), whose precision "
                "cannot be changed"
            )
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constant = copy.graph.initializer.add()
            constant.CopyFrom(node.attribute[0].t)
            constant.name = node.output[0]
        else:
            copy.graph.node.add().CopyFrom(node)
    return copy


def _schema(node: onnx.NodeProto, opset: int) -> Any | None:
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None  # an operator of another domain


def _type_variables(schema: Any) -> dict[str, set[str]]:
    return {one.type_param_str: set(one.allowed_type_strs) for one in schema.type_constraints}


def _formal(parameters: Any, position: int) -> Any:
    """The declared parameter at a position; the last one may stand for any number."""
    return parameters[min(position, len(parameters) - 1)]
