"""Every kind of engine, opened on the tiny classifier: what needs a GPU runs on stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import onnx
import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import FakeTensorRt, fake_plan
from onnx import TensorProto, helper
from tiny_models import tiny_feeds, tiny_graph, tiny_reference

from fgdd_engines.base import Array, Engine, Precision
from fgdd_engines.bundle.bundle import Bundle, Variant, write_bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.onnxruntime_backend.binding import BoundEngine
from fgdd_engines.optional_imports import import_onnxruntime
from fgdd_engines.tensorrt_backend.api import Flavour, TensorRt
from fgdd_engines.tensorrt_backend.engine import TensorRtEngine
from fgdd_fast.errors import EngineError

BATCH = 4
ELEMENT_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


LABELS = {
    "cpu": "ONNX Runtime ",
    "buffers": "ONNX Runtime ",
    "openvino": "OpenVINO ",
    "tensorrt": "TensorRT 10.3.0",
    "tensorrt-rtx": "TensorRT for RTX 10.3.0",
}


class Kind(NamedTuple):
    """A kind of engine.

    Attributes:
        device, precision, variant: what is opened; a device of stand-ins is opened by `open_kind` itself.
        tolerance: how far its logits may be from exact ones, whose spread is about 1.
        arithmetics: what its arithmetic may end with.
    """

    device: str
    precision: Precision
    tolerance: float
    variant: Variant | None = None
    arithmetics: tuple[str, ...] = (", CPU, fp32",)


_INT8 = ", CPU, int8 and fp32", ", CPU, int8 and bf16"
KINDS = {
    "cpu": Kind("cpu", "fp32", 1e-5),
    "cpu-fp16": Kind("cpu", "auto", 5e-3, "fp16", ("CPU, fp16, or fp32 where it has no kernel",)),
    "cpu-int8": Kind("cpu", "auto", 0.1, "int8", (", CPU, int8",)),
    "cpu-int8-u8": Kind("cpu", "auto", 0.1, "int8-u8", (", CPU, int8",)),
    "openvino": Kind("openvino", "fp32", 1e-5),
    "openvino-auto": Kind("openvino", "auto", 0.05, None, (", CPU, fp32", ", CPU, bf16")),
    "openvino-int8": Kind("openvino", "int8", 0.05, "int8", _INT8),
    "openvino-int8-u8": Kind("openvino", "auto", 0.05, "int8-u8", _INT8),
    "buffers": Kind("buffers", "fp32", 1e-5),
    "tensorrt": Kind("tensorrt", "fp32", 1e-5, None, (", Orin, fp32",)),
    "tensorrt-rtx": Kind("tensorrt-rtx", "fp32", 1e-5, None, (", Orin, fp32",)),
}


def open_kind(
    kind: Kind, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, *, batch: int = BATCH, threads: int = 2
) -> Engine:
    """Open an engine of the tiny classifier, whose variants are beside it."""
    pytest.importorskip("openvino" if kind.device == "openvino" else "onnxruntime")
    if kind.device == "buffers":
        return open_bound(bundle, batch=batch, streams=threads)
    if kind.device.startswith("tensorrt"):
        machine = fake_machine(bundle, monkeypatch, kind.device)  # type: ignore[arg-type]
        return machine.open(batch=batch, streams=threads)
    chosen = bundle if kind.variant is None else write_variant(bundle, kind.variant)
    axes = {"batch": batch}
    return open_engine(chosen, device=kind.device, precision=kind.precision, axes=axes, threads=threads)


# --- variants ---------------------------------------------------------------------------------------------


def in_low_precision(precision: str, operations: tuple[str, ...]) -> onnx.ModelProto:
    """The tiny classifier with these operations between casts to another type and back."""
    changed = onnx.load_model_from_string(tiny_graph())
    nodes = []
    for node in changed.graph.node:
        if node.op_type not in operations:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            node.input[index] = f"{name}_{precision}"
            cast = helper.make_node("Cast", [name], [node.input[index]], to=ELEMENT_TYPES[precision])
            nodes.append(cast)
        output, node.output[0] = node.output[0], f"{node.output[0]}_{precision}"
        nodes += [node, helper.make_node("Cast", node.output, [output], to=TensorProto.FLOAT)]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def write_variant(bundle: Bundle, variant: Variant) -> Bundle:
    """Write a variant of the tiny classifier beside it."""
    if variant in ELEMENT_TYPES:
        graph = in_low_precision(variant, ("Conv",))
    else:
        from fgdd_export.precision.quantisation import FORMS, calibrate, quantise_calibrated

        model = onnx.load_model_from_string(tiny_graph())
        for place, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{place}"
        form = next(each for each in FORMS if each == variant)
        graph = quantise_calibrated(model, calibrate(model, [tiny_feeds(16, seed=1)], (form,)), form).model
    onnx_file = bundle.beside(f"{variant}.onnx")
    described = replace(bundle, onnx=onnx_file, variant=variant, variant_of=bundle.sha256)
    return write_bundle(described, graph.SerializeToString())


# --- ONNX Runtime with buffers ----------------------------------------------------------------------------


class Sessions:
    """Opens ONNX Runtime's sessions on the CPU, and remembers whether each was to record a graph."""

    def __init__(self, bundle: Bundle, *, batch: int = BATCH, records: bool = True) -> None:
        self.bundle, self.batch, self.records = bundle, batch, records
        self.asked: list[bool] = []

    def __call__(self, record: bool) -> Any:
        from fgdd_engines.onnxruntime_backend.session import session_options

        self.asked.append(record)
        if record and not self.records:
            raise EngineError("This session cannot use the graph capture feature")
        runtime = import_onnxruntime()
        options = session_options(runtime, {"batch": self.batch})
        return runtime.InferenceSession(str(self.bundle.onnx), options, providers=["CPUExecutionProvider"])


def open_bound(
    bundle: Bundle, opens: Callable[[bool], Any] | None = None, *, batch: int = BATCH, streams: int = 2
) -> BoundEngine:
    """Open an engine with buffers of its own, which are the CPU's."""
    runtime = import_onnxruntime()
    return BoundEngine(
        runtime,
        bundle,
        {"batch": batch},
        opens or Sessions(bundle, batch=batch),
        device=("cpu", 0),
        streams=streams,
        arithmetic=f"ONNX Runtime {runtime.__version__}, CPU, fp32",
    )


# --- TensorRT ---------------------------------------------------------------------------------------------


def compute(feeds: dict[str, Array]) -> dict[str, Array]:
    """The tiny classifier in NumPy."""
    logits, losses = tiny_reference(feeds)
    return {"logits": logits, "loss": losses, "mask": feeds["images"][..., 0] > 127}


@dataclass
class FakeMachine:
    """A machine with a GPU, as far as an engine of TensorRT can see."""

    cuda: FakeCuda
    module: FakeTensorRt
    tensorrt: TensorRt
    bundle: Bundle

    def open(self, *, batch: int = BATCH, plan: bytes | None = None, **options: Any) -> TensorRtEngine:
        plan = plan or fake_plan(self.bundle.inputs, self.bundle.outputs, (1, 4, 8))
        return TensorRtEngine(self.tensorrt, self.bundle, plan, {"batch": batch}, **options)


def fake_machine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, flavour: Flavour) -> FakeMachine:
    """Put a GPU into this machine."""
    cuda = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    module = FakeTensorRt(cuda, compute)
    return FakeMachine(cuda, module, TensorRt(module, flavour, "10.3.0"), bundle)
