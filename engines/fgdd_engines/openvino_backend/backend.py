"""OpenVINO on the CPU: graphs in fp32, in bf16 or fp16 where the CPU is built for it, and graphs in int8."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from fgdd_engines.backends import Backend
from fgdd_engines.base import Array, Engine, Precision, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Variant
from fgdd_engines.errors import EngineError, SettingsError, wrapped_as_engine_error
from fgdd_engines.optional_imports import import_openvino, openvino_core
from fgdd_engines.pool import Pool
from fgdd_engines.probing.probe_graph import GRAPH, INPUT, check_output
from fgdd_engines.shapes import check_graph, fix_axes

_ELEMENT_TYPES: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_INT8: tuple[Variant, ...] = ("int8", "int8-u8")
_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")  # how the names of such layers begin


class OpenVinoEngine(Engine):
    """A bundle's graph compiled by OpenVINO's CPU plugin: a stream of one thread for each call in flight.

    Or one stream of all threads; what it gives is the same.

    In bf16 the plugin rounds what goes into each convolution and matrix product, sums in float32, and keeps
    everything after the last of them in float32: logits and losses are not rounded.

    What an int8 graph leaves in fp32 is computed in fp32: in bf16 a U2-Net was a sixteenth faster, and erred
    four times as much. Of the two int8 forms `int8-u8` is the one for processors: faster by about a tenth,
    and OpenVINO 2026.4 computes a U2-Net in `int8` wrongly.
    """

    def __init__(
        self,
        bundle: Bundle,
        axes: Mapping[str, int],
        threads: int,
        precision: Precision,
        one_stream: bool = False,
    ) -> None:
        self.inputs, self.outputs = fix_axes(bundle, axes)
        openvino = import_openvino()
        core = openvino_core()
        quantised = bundle.variant in _INT8
        chosen = _choose_precision(core, bundle, precision)
        settings = {
            "INFERENCE_PRECISION_HINT": _ELEMENT_TYPES[chosen],
            "NUM_STREAMS": 1 if one_stream else threads,
            "INFERENCE_NUM_THREADS": threads,
            # Other engines and decoding share the cores, and how many threads there are is the caller's word.
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,
        }
        with wrapped_as_engine_error(f"OpenVINO cannot load '{bundle.name}'"):
            model = _read_onnx(openvino, str(bundle.onnx))
            model.reshape({spec.name: list(spec.shape) for spec in self.inputs})
            check_graph(bundle, self.inputs, _specs(model.inputs, self.inputs))
            check_graph(bundle, self.outputs, _specs(model.outputs, self.outputs))
            compiled = core.compile_model(model, "CPU", settings)
            self.streams = compiled.get_property("NUM_STREAMS")
            self._requests = Pool([compiled.create_infer_request() for _ in range(self.streams)])
        realised = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if realised != _ELEMENT_TYPES[chosen]:
            raise EngineError(f"OpenVINO compiled '{bundle.name}' in {realised}, though asked for {chosen}")
        if quantised and not _computes_in_int8(compiled):
            raise EngineError(f"OpenVINO compiled '{bundle.name}' without a layer in int8")
        self._problem = f"OpenVINO cannot run '{bundle.name}'"
        version = openvino.__version__.partition("-")[0]
        self.arithmetic = f"OpenVINO {version}, CPU, {'int8 and ' if quantised else ''}{chosen}"

    def _run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        contiguous = {name: np.ascontiguousarray(feed) for name, feed in feeds.items()}
        with self._requests.borrow() as request, wrapped_as_engine_error(self._problem):
            request.infer(contiguous, share_inputs=True)
            return {name: request.get_tensor(name).data.copy() for name in outputs}

    def close(self) -> None:
        """Wait for the calls in flight, then free the compiled model."""
        self._requests.close()


def _choose_precision(core: Any, bundle: Bundle, precision: Precision) -> Precision:
    """What everything computes in that the graph does not have in int8; SettingsError if that cannot be."""
    quantised = bundle.variant in _INT8
    if precision == "int8" and not quantised:
        raise SettingsError(
            f"The graph of '{bundle.name}' is not in int8",
            f"Run: fgdd-fast convert {bundle.onnx} --precision int8 --calibrate DATA",
        )
    if quantised and precision not in ("int8", "auto"):
        raise SettingsError(
            f"The graph of '{bundle.name}' is in int8, not in {precision}",
            "Use the precision int8 or auto, or the bundle that it was converted from.",
        )
    native = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if quantised:
        return "fp32"
    if precision == "auto":
        return "bf16" if "BF16" in native else "fp32"
    if precision.upper() not in native:
        name = core.get_property("CPU", "FULL_DEVICE_NAME")
        raise SettingsError(
            f"This CPU ({name}) does not compute in {precision} natively", "Use the precision fp32 or auto."
        )
    return precision


def _computes_in_int8(compiled: Any) -> bool:
    """Whether a convolution or a product does: where the plugin cannot use int8 it goes on without."""
    layers = (layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops())
    return any(
        layer["layerType"].astype(str).startswith(_PRODUCTS)
        and layer["runtimePrecision"].astype(str) in ("u8", "i8")
        for layer in layers
    )


def _read_onnx(openvino: ModuleType, source: Any) -> Any:
    # Core.read_model would show a damaged file to the front ends of all other formats; they write to stderr.
    frontend = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    return frontend.convert(frontend.load(source))


def _specs(ports: Sequence[Any], expected: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Describe ports; one that has several names goes by the expected one."""
    known = {spec.name for spec in expected}
    return [
        TensorSpec(
            min(port.get_names(), key=lambda name: (name not in known, name)),
            port.element_type.to_dtype().name,
            tuple(axis.get_length() if axis.is_static else str(axis) for axis in port.partial_shape),
        )
        for port in ports
    ]


def run_probe() -> str:
    """Run the probe's graph in OpenVINO's CPU plugin, and return what ran it: name and version.

    Raises EngineError where it cannot run it or gave wrong numbers; MissingExtraError without OpenVINO.
    """
    with wrapped_as_engine_error("OpenVINO cannot be imported"):
        openvino = import_openvino()
    name = f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"
    with wrapped_as_engine_error(f"{name} cannot run"):
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        model = _read_onnx(openvino, io.BytesIO(GRAPH))
        compiled = openvino_core().compile_model(model, "CPU", settings)
        check_output(name, compiled({"x": INPUT})[0])
    return name


OPENVINO = Backend(
    open=OpenVinoEngine,
    open_one_stream=partial(OpenVinoEngine, one_stream=True),
    probe=run_probe,
    on_processor=True,
    variants={"fp32": None, "fp16": None, "bf16": None, "int8": "int8-u8"},
    packages=("openvino",),
    distributions=("openvino",),
    extra="cpu",
)
