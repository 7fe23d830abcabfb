"""Turn a PyTorch network into a slimmed ONNX graph whose inputs and outputs are the ones declared."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from fgdd_engines.base import TensorSpec
from fgdd_engines.optional_imports import import_optional
from fgdd_export.graphs.graph import OPSET, check_model, slim_model, tensor_specs
from fgdd_export.graphs.late_onnx import onnx
from fgdd_fast.errors import BundleError


@dataclass(frozen=True)
class Network:
    """A network declared for export.

    Attributes:
        name: of the graph.
        module: takes and returns the tensors declared, in this order, all by position; a module with one
            output returns that tensor itself. It has to be in evaluation mode.
        inputs: name, dtype and shape; a named axis (`batch`) may have any length.
        outputs: as the inputs.
    """

    name: str
    module: torch.nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Exported:
    """A network in ONNX, and what making it took.

    Attributes:
        model: the graph, slimmed and checked.
        seconds: wall time of export and slimming.
        nodes_before: nodes as PyTorch's exporter left them.
        nodes: nodes after slimming.
    """

    model: onnx.ModelProto
    seconds: float
    nodes_before: int
    nodes: int

    @property
    def making(self) -> dict[str, Any]:
        """What a sidecar says of it; not how long it took, for another run writes the same sidecar."""
        return {
            "nodes_before_slimming": self.nodes_before,
            "nodes": self.nodes,
            "with": {name: version(name) for name in ("torch", "transformers", "onnx", "onnxslim")},
        }


def export_network(network: Network, example: Sequence[torch.Tensor]) -> Exported:
    """Export a network at opset 17, with its named axes dynamic.

    PyTorch's tracing exporter is used: it is five times as fast as the other for these networks, and its
    graphs at opset 17 keep GridSample's meaning on every TensorRT.

    Args:
        network: what to export.
        example: a tensor for each input; named axes should be 2 or longer, so that no length of 1 is taken
            for a constant.

    Raises:
        BundleError: the graph does not have the inputs and outputs that were declared.
        MissingExtraError: a package of the extra `export` is not installed.
    """
    import_optional("onnx", "export")  # which PyTorch's exporter needs, and everything after it
    begin = time.perf_counter()
    buffer: Any = io.BytesIO()  # which the exporter takes, though its annotation says a path
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer warns of every Python number in a shape
        torch.onnx.export(
            network.module,
            tuple(example),
            buffer,
            input_names=[spec.name for spec in network.inputs],
            output_names=[spec.name for spec in network.outputs],
            dynamic_axes={
                spec.name: {place: axis for place, axis in enumerate(spec.shape) if isinstance(axis, str)}
                for spec in (*network.inputs, *network.outputs)
            },
            opset_version=OPSET,
            dynamo=False,
        )
    network.module.eval()  # the exporter may leave shared submodules in training mode
    traced = onnx.load_model_from_string(buffer.getvalue())
    del buffer
    nodes_before = len(traced.graph.node)
    model = slim_model(traced)
    model.graph.name = network.name
    _declare(model, network)
    check_model(model)
    return Exported(model, time.perf_counter() - begin, nodes_before, len(model.graph.node))


def _declare(model: onnx.ModelProto, network: Network) -> None:
    """Hold the graph to its declaration, and write the declared shapes where the tracer left them open."""
    for values, specs in ((model.graph.input, network.inputs), (model.graph.output, network.outputs)):
        found = {spec.name: spec for spec in tensor_specs(values)}
        for spec in specs:
            graph = found.get(spec.name)
            if graph is None or graph.dtype != spec.dtype or len(graph.shape) != len(spec.shape):
                raise BundleError(
                    f"The graph of {network.name} should have {spec.name}: {spec.dtype} {list(spec.shape)}, "
                    f"but it has {[(one.name, one.dtype, list(one.shape)) for one in found.values()]}"
                )
        by_name = {value.name: value for value in values}
        for spec in specs:
            for axis, length in zip(by_name[spec.name].type.tensor_type.shape.dim, spec.shape, strict=True):
                if isinstance(length, str):
                    axis.dim_param = length
                else:
                    axis.dim_value = length
