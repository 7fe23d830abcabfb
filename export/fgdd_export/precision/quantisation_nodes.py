"""Which nodes of a graph compute in int8: what has weights, and what int8 can flow through between these."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
CONNECTING = ("Add", "Concat", "MaxPool", "Resize")
_FUSED = ("Relu", "Clip")  # every runtime computes these as part of the node before


@dataclass(frozen=True)
class Choice:
    """What is quantised, and what is not.

    Attributes:
        quantised: names of the nodes that take int8, in the graph's order.
        kept: why each other node with weights stays as it is, by its name.
    """

    quantised: tuple[str, ...]
    kept: Mapping[str, str]


def weighted_nodes(model: onnx.ModelProto) -> tuple[onnx.NodeProto, ...]:
    """The convolutions and products whose second factor is constant, in the graph's order."""
    constants = {constant.name for constant in model.graph.initializer}
    return tuple(node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in constants)


def choose_nodes(model: onnx.ModelProto, keep: Mapping[str, str]) -> Choice:
    """Decide node by node.

    The last nodes with weights are never quantised: nothing after them evens out an error, they cost little,
    and what follows them is exact arithmetic on their results. A node without weights is quantised where all
    that read it are; so nothing is rounded on its way into a node that is to be exact.

    Args:
        model: an fp32 graph whose nodes have names.
        keep: nodes that must not be quantised, and why.
    """
    weighted = {node.name for node in weighted_nodes(model)}
    readers = _readers(model)
    leads_on: set[str] = set()  # nodes after which there is another with weights
    takes_int8: set[str] = set()
    kept: dict[str, str] = {}
    for node in reversed(model.graph.node):
        after = [reader for output in node.output for reader in readers.get(output, ())]
        if any(reader in weighted or reader in leads_on for reader in after):
            leads_on.add(node.name)
        if node.name in weighted:
            if node.name in keep:
                kept[node.name] = keep[node.name]
            elif node.name not in leads_on:
                kept[node.name] = "nothing after it evens out an error"
            else:
                takes_int8.add(node.name)
        elif (
            node.op_type in (*CONNECTING, *_FUSED)
            and node.name not in keep
            and after
            and takes_int8.issuperset(after)
        ):
            takes_int8.add(node.name)
    in_order = [node for node in model.graph.node if node.name in takes_int8 and node.op_type not in _FUSED]
    return Choice(
        quantised=tuple(node.name for node in in_order),
        kept={node.name: kept[node.name] for node in model.graph.node if node.name in kept},
    )


def unknown_nodes(model: onnx.ModelProto, names: Collection[str]) -> list[str]:
    """Those of the names that no node of the graph has, sorted."""
    return sorted(set(names) - {node.name for node in model.graph.node})


def _readers(model: onnx.ModelProto) -> dict[str, list[str]]:
    """The names of the nodes that read each tensor; an output of the graph is read from outside, by ``."""
    readers: dict[str, list[str]] = {output.name: [""] for output in model.graph.output}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node.name)
    return readers
