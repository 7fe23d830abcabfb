"""Graphs that compute in fp32 what another graph computes in half precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fgdd_engines.optional_imports import import_optional
from fgdd_export.graphs.graph import EXTRA
from fgdd_export.precision.formats import LowFormat
from fgdd_export.precision.graph import check_structure, tensor_types
from fgdd_export.precision.rules import EXACT

if TYPE_CHECKING:
    import onnx

# Rounding before them is rounding after them, and runtimes fuse them with the product that they follow.
_COMMUTE = frozenset({"Clip", "Relu"})


def rehearsal_of(model: onnx.ModelProto, low: LowFormat) -> onnx.ModelProto:
    """Replace low precision by fp32 that is rounded.

    Args:
        model: as `lower_precision` makes it.
        low: its low precision.

    Returns:
        A checked model with the same inputs and outputs. Every tensor that `model` holds in low precision
        is in fp32 here, and converted to low precision and back where it is made.
    """
    rehearsal = _Rehearsal(model, low).model()
    check_structure(rehearsal)
    return rehearsal


class _Rehearsal:
    def __init__(self, model: onnx.ModelProto, low: LowFormat) -> None:
        self._onnx: Any = import_optional("onnx", EXTRA)
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
        model = self._onnx.ModelProto()
        model.CopyFrom(self._source)
        del model.graph.node[:]
        model.graph.node.extend(self._nodes)
        for constant in model.graph.initializer:
            if constant.data_type == self._low.element_type:
                values = self._low.decode(constant)
                constant.CopyFrom(self._onnx.numpy_helper.from_array(values, constant.name))
        return model  # type: ignore[no-any-return]

    def _add(self, node: onnx.NodeProto) -> None:
        copy = self._onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._names.get(name, name) for name in node.input]
        self._nodes.append(copy)
        lowered = [name for name in node.output if name in self._low_tensors]
        if node.op_type == "Cast" and lowered:
            copy.attribute[0].i = self._onnx.TensorProto.FLOAT
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
        make, to_fp32 = self._onnx.helper.make_node, self._onnx.TensorProto.FLOAT
        self._nodes += [
            make("Cast", [tensor], [rounded], rounded, to=self._low.element_type),
            make("Cast", [rounded], [output], f"{rounded}_back", to=to_fp32),
        ]
