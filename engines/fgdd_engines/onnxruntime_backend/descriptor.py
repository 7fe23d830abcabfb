"""The devices that ONNX Runtime serves: `cpu`, the reference, and `cuda`."""

from __future__ import annotations

from collections.abc import Mapping

from fgdd_engines.backends import Backend
from fgdd_engines.base import Engine, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError, wrapped_as_engine_error
from fgdd_engines.onnxruntime_backend.cpu import OnnxRuntimeEngine
from fgdd_engines.onnxruntime_backend.cuda import (
    CUDA_PROVIDER,
    UNKNOWN,
    CudaEngine,
    find_gpu,
    load_libraries,
)
from fgdd_engines.onnxruntime_backend.session import CPU_PROVIDER, session_options
from fgdd_engines.optional_imports import import_onnxruntime
from fgdd_engines.probing.probe_graph import GRAPH, INPUT, check_output
from fgdd_engines.tensorrt_backend.cuda_device import STREAMS

_ERROR = 3  # ONNX Runtime's severity of what is logged


def run_probe(provider: str, gpu: int | None = None) -> str:
    """Run the probe's graph in one of ONNX Runtime's providers, and in no other; returns what ran it.

    `gpu` is the number of the GPU, for a provider that has one; a verdict depends on its name, too.
    Why a provider for GPUs cannot start is often told in ONNX Runtime's log alone, on standard error. Raises
    EngineError where it cannot run the graph or gave wrong numbers; MissingExtraError without ONNX Runtime.
    """
    with wrapped_as_engine_error("ONNX Runtime cannot be imported"):
        runtime = import_onnxruntime()
    name = f"ONNX Runtime {runtime.__version__}, {provider}"
    options = session_options(runtime, {})
    missing, where = "", ""
    providers: list[object] = [provider]
    if gpu is not None:
        found = find_gpu(gpu)
        where = "" if found.name == UNKNOWN else f", {found}"
        providers = [(provider, {"device_id": str(gpu)})]
        missing = load_libraries(runtime)
        runtime.set_default_logger_severity(_ERROR)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    with wrapped_as_engine_error(f"{name} cannot run{missing and f' ({missing})'}"):
        session = runtime.InferenceSession(
            GRAPH, sess_options=options, providers=providers, enable_fallback=False
        )
        if provider not in session.get_providers():
            raise EngineError(f"{name} gave way to {session.get_providers()[0]}")
        check_output(name, session.run(None, {"x": INPUT})[0])
    return f"{name}{where}"


def _cuda(gpu: int = 0) -> Backend:
    def opens(bundle: Bundle, axes: Mapping[str, int], threads: int, precision: Precision) -> Engine:
        streams = min(threads, STREAMS)
        return CudaEngine(bundle, axes, streams=streams, tf32=precision == "tf32", gpu=gpu)

    return Backend(
        open=opens,
        probe=lambda: run_probe(CUDA_PROVIDER, gpu),
        on_processor=False,
        on_nvidia=True,
        variants={"fp32": None, "tf32": None, "fp16": "fp16", "bf16": "bf16", "int8": "int8"},
        packages=("onnxruntime",),
        distributions=("onnxruntime-gpu",),
        extra="gpu",
        on_gpu=_cuda,
    )


CPU = Backend(
    open=lambda bundle, axes, threads, _: OnnxRuntimeEngine(bundle, axes, threads),
    open_one_stream=lambda bundle, axes, threads, _: OnnxRuntimeEngine(
        bundle, axes, threads, one_stream=True
    ),
    probe=lambda: run_probe(CPU_PROVIDER),
    on_processor=True,
    variants={"fp32": None, "int8": "int8-u8"},
    packages=("onnxruntime",),
    distributions=("onnxruntime",),
    extra="cpu",
)
CUDA = _cuda()
