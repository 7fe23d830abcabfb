"""In which precision a TensorRT engine computes: read in the engine, or in the network that it was built of.

The engine's layers are read in the JSON of its inspector. Its fields differ between TensorRT 10 and 11, where
`Format/Datatype` became two:
https://docs.nvidia.com/deeplearning/tensorrt/11.3.0/api/migration/tensorrt-10x-to-11x-IEngineInspector.html.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError
from fgdd_engines.tensorrt_backend.api import MessageLog, TensorRt
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device

# Layers that multiply matrices take nearly all of the time, and are what a precision is chosen for:
# CONVOLUTION and MATRIX_MULTIPLY of a network, CaskConvolution and gemm of an engine, kernels such as
# sm80_xmma_fprop_implicit_gemm.
_PRODUCT = re.compile(
    r"conv|gemm|matmul|matrix_?multiply|einsum|correlation|fprop|mha|attention", re.IGNORECASE
)
# Layers of a network that hand values on as they are.
_MOVES = {"SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE"}
_SAME = ("fp8", "int8", "fp16", "bf16", "fp32", "int32", "int64", "uint8", "bool")
_PRECISIONS = {**{name: name for name in _SAME}, "half": "fp16", "bfloat16": "bf16", "float": "fp32"}
_TYPE_WORD = re.compile(rf"(?<![a-z])(?:{'|'.join(sorted(_PRECISIONS, key=len, reverse=True))})(?![a-z0-9])")
_LOWEST_FIRST = ("fp8", "int8", "fp16", "bf16", "fp32")


@dataclass(frozen=True)
class BuiltLayer:
    """A layer of a built engine or, where the engine cannot be asked, of the network.

    Attributes:
        name: TensorRT's name of it.
        kind: what it computes, such as `CONVOLUTION` in a network or `CaskConvolution` in an engine; followed
            by its kernel where only that says so.
        precision: the type in which it computes: `fp32`, `fp16`, `bf16`, `int8`, `int32`, ...; `unknown`
            where the engine does not say.
    """

    name: str
    kind: str
    precision: str

    @property
    def is_product(self) -> bool:
        """Whether it multiplies matrices, as convolutions do."""
        return _PRODUCT.search(self.kind) is not None


def network_layers(network: Any) -> tuple[BuiltLayer, ...]:
    """Return the convolutions and matrix products of a parsed network with their precisions.

    In a strongly typed network this is what the engine will compute in. A layer whose operands are all
    dequantised computes in the type that they had before: that is how explicit quantisation says so.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    return tuple(
        BuiltLayer(layer.name, layer.type.name, _operand_precision(layer, producers))
        for layer in layers
        if _PRODUCT.search(layer.type.name) and _precision(layer.get_input(0).dtype) in _LOWEST_FIRST
    )


def _precision(data_type: Any) -> str:
    name = str(data_type.name).lower()
    return _PRECISIONS.get(name, name)


def _operand_precision(layer: Any, producers: dict[str, Any]) -> str:
    operands = [layer.get_input(i) for i in range(2) if i < layer.num_inputs]
    # Weights inside the layer are not quantised. They are not among its inputs; or their place among these is
    # empty, where the bias behind them is one.
    origins = [_before_dequantising(tensor, producers) for tensor in operands if tensor is not None]
    if len(origins) == 2 and all(origin is not None for origin in origins):
        return str(origins[0])
    return _precision(operands[0].dtype)


def _before_dequantising(tensor: Any, producers: dict[str, Any]) -> str | None:
    """The type from which a tensor was dequantised; None for one that was not."""
    layer = producers.get(tensor.name)
    while layer is not None and layer.type.name in _MOVES:
        layer = producers.get(layer.get_input(0).name)
    if layer is None or layer.type.name != "DEQUANTIZE":
        return None
    return _precision(layer.get_input(0).dtype)


def read_back(tensorrt: TensorRt, plan: bytes, log: MessageLog) -> tuple[BuiltLayer, ...]:
    """The built engine's layers; none without a GPU to load it, or where it does not tell them.

    Raises EngineError where there is a GPU, and the engine cannot be loaded on it.
    """
    if find_cuda_device() is None:
        return ()
    trt = tensorrt.module
    engine = trt.Runtime(log.logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{tensorrt} cannot load the engine that it has built: {log.reasons()}")
    inspector = engine.create_engine_inspector()
    layers = _inspect(trt, engine, inspector)
    if not layers:  # with a batch that is open, some types are known only once it is chosen
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            if is_input and -1 in engine.get_tensor_shape(name):
                context.set_input_shape(name, engine.get_tensor_profile_shape(name, 0)[1])
        inspector.execution_context = context
        layers = _inspect(trt, engine, inspector)
    return layers


def _inspect(trt: ModuleType, engine: Any, inspector: Any) -> tuple[BuiltLayer, ...]:
    """An engine's layers; none where the precision of no matrix product is told."""
    layers = engine_layers(
        inspector.get_layer_information(index, trt.LayerInformationFormat.JSON)
        for index in range(engine.num_layers)
    )
    told = any(layer.is_product and layer.precision != "unknown" for layer in layers)
    return layers if told else ()


def engine_layers(descriptions: Iterable[str]) -> tuple[BuiltLayer, ...]:
    """Return the layers of an engine from what its inspector says of each, in JSON.

    A layer whose JSON is damaged, as that of names with quotation marks is, is left out, and so is one of
    which only the name is known.
    """
    layers = []
    for description in descriptions:
        try:
            fields = json.loads(description)
        except ValueError:
            continue
        if isinstance(fields, dict):
            layers.append(BuiltLayer(str(fields.get("Name", "")), _kind(fields), _lowest(fields)))
    return tuple(layers)


def _kind(fields: dict[str, Any]) -> str:
    kind, kernel = str(fields.get("LayerType", "")), str(fields.get("TacticName", ""))
    said_by_kernel_only = _PRODUCT.search(kernel) and not _PRODUCT.search(kind)
    return f"{kind} {kernel}" if said_by_kernel_only else kind


def _lowest(fields: dict[str, Any]) -> str:
    """The lowest precision among a layer's inputs and weights; that of its outputs where those have none."""
    inputs = [_type_of(tensor) for tensor in fields.get("Inputs", [])]
    inputs += [_type_of(fields[role]) for role in ("Weights", "Kernel") if role in fields]
    outputs = [_type_of(tensor) for tensor in fields.get("Outputs", [])]
    for types in (inputs, outputs):
        if floating := [precision for precision in _LOWEST_FIRST if precision in types]:
            return floating[0]
    return next((precision for precision in (*outputs, *inputs) if precision), "unknown")


def _type_of(tensor: Any) -> str:
    """The type that a tensor's fields name, as in `Channel major FP16 format`; '' where they name none."""
    if not isinstance(tensor, dict):
        return ""
    for field in ("DataType", "Datatype", "Format/Datatype", "Format/DataType", "Type", "Format"):
        if found := _TYPE_WORD.search(str(tensor.get(field, "")).lower()):
            return _PRECISIONS[found.group()]
    return ""


def why_other_precision(bundle: Bundle, layers: Sequence[BuiltLayer], where: str) -> str:
    """Return why convolutions and matrix products do not compute in what the bundle's variant asks for.

    A variant keeps some of them in a higher precision on purpose, so one of the precision asked for is
    enough; a graph in fp32 may have none of a lower one. Empty where they do; `where` names what was read.
    """
    asked = bundle.precision
    counts = Counter(layer.precision for layer in layers if layer.is_product)
    found = ", ".join(f"{count} in {precision}" for precision, count in counts.most_common())
    lower = [precision for precision in _LOWEST_FIRST[:-1] if counts[precision]]
    if (asked == "fp32" and lower) or (asked != "fp32" and not counts[asked]):
        return (
            f"'{bundle.name}' is to compute in {asked}, but of the {counts.total()} convolutions and matrix "
            f"products in the {where} {counts[asked]} do ({found or 'there are none'})"
        )
    return ""
