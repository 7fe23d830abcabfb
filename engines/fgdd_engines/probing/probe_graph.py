"""The smallest graph worth running, run in each runtime: whether a device computes, and computes rightly."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np

from fgdd_engines.errors import EngineError
from fgdd_engines.failures import wrapped_as_engine_error
from fgdd_engines.onnxruntime_backend.gpu import PROVIDERS, GpuProvider, load_libraries, rtx_devices
from fgdd_engines.onnxruntime_backend.session import CPU_PROVIDER, session_options
from fgdd_engines.telemetry import import_onnxruntime, import_openvino, openvino_core
from fgdd_engines.tensorrt_backend.api import Flavour, TensorRt, import_tensorrt, message_log
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device, why_no_cuda

# An ONNX model, serialised: y = Add(x, x) on float32 [1, 4]; opset 17, IR version 8.
GRAPH = (
    b'\x08\x08:B\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x06doubleZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01'
    b"\x12\x08\n\x02\x08\x01\n\x02\x08\x04b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x01\n\x02"
    b"\x08\x04B\x04\n\x00\x10\x11"
)
INPUT = np.array([[1, -2, 0.5, 3]], dtype=np.float32)
_ERROR = 3  # ONNX Runtime's severity of what is logged


def run_in_onnxruntime(device: Literal["cpu"] | GpuProvider) -> str:
    """Run the graph in one of ONNX Runtime's providers, and in no other.

    Why a provider for GPUs cannot start is often told in ONNX Runtime's log alone, on standard error.

    Returns:
        What ran it: name, version and provider.

    Raises:
        EngineError: the provider cannot run it, or gave wrong numbers.
        MissingExtraError: ONNX Runtime, or its plugin for RTX, is not installed.
    """
    with wrapped_as_engine_error("ONNX Runtime cannot be imported"):
        runtime = import_onnxruntime()
    provider = CPU_PROVIDER if device == "cpu" else PROVIDERS[device]
    name = f"ONNX Runtime {runtime.__version__}, {provider}"
    options = session_options(runtime, {})
    missing = ""
    if device != "cpu":
        missing = load_libraries(runtime, device)
        runtime.set_default_logger_severity(_ERROR)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if device == "onnxruntime-rtx":
        options.add_provider_for_devices(rtx_devices(runtime), {})
    chain = None if device == "onnxruntime-rtx" else [provider]
    with wrapped_as_engine_error(f"{name} cannot run{missing and f' ({missing})'}"):
        session = runtime.InferenceSession(
            GRAPH, sess_options=options, providers=chain, enable_fallback=False
        )
        if provider not in session.get_providers():
            raise EngineError(f"{name} gave way to {session.get_providers()[0]}")
        _check(name, session.run(None, {"x": INPUT})[0])
    return name


def run_in_openvino() -> str:
    """Run the graph in OpenVINO's CPU plugin.

    Returns:
        What ran it: name and version.

    Raises:
        EngineError: it cannot run it, or gave wrong numbers.
    """
    with wrapped_as_engine_error("OpenVINO cannot be imported"):
        openvino = import_openvino()
    name = f"OpenVINO {openvino.__version__.partition('-')[0]}, CPU"
    with wrapped_as_engine_error(f"{name} cannot run"):
        frontend = openvino.frontend.FrontEndManager().load_by_framework("onnx")
        model = frontend.convert(frontend.load(io.BytesIO(GRAPH)))
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = openvino_core().compile_model(model, "CPU", settings)
        _check(name, compiled({"x": INPUT})[0])
    return name


def _check(name: str, output: Any) -> None:
    if not np.array_equal(output, 2 * INPUT):
        raise EngineError(
            f"{name} computes wrongly: twice {INPUT.tolist()} gave {np.asarray(output).tolist()}"
        )


def load_in_tensorrt(flavour: Flavour) -> str:
    """Build an engine of the graph, deserialise it, and make its execution context.

    Nothing is computed: deserialising creates a CUDA stream, and there an unusable GPU shows.

    Returns:
        What loaded it: name, version and GPU.

    Raises:
        MissingExtraError: the package is not installed.
        EngineError: a step failed, for the reason that TensorRT gives; or `cuda-bindings`, through which
            plans are run, finds no GPU.
    """
    tensorrt = import_tensorrt(flavour)
    log = message_log(tensorrt.module)
    log.clear()
    try:
        _load_engine(tensorrt, log.logger)
    except Exception as error:  # its own say little; the log holds the reason
        raise EngineError(f"{tensorrt} cannot run: {log.reasons() or error}") from error
    device = find_cuda_device()
    if device is None:
        raise EngineError(why_no_cuda())
    return f"{tensorrt}, {device.name}"


def _load_engine(tensorrt: TensorRt, logger: Any) -> None:
    """Raise where a step fails; most then give None, upon which the next one raises."""
    module = tensorrt.module
    builder = module.Builder(logger)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, logger)
    parser.parse(GRAPH)
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    runtime = module.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine.create_execution_context() is None:
        raise EngineError("it made no execution context")
