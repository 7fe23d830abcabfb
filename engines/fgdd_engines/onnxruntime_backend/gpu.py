"""ONNX Runtime on an NVIDIA GPU: its CUDA, TensorRT and TensorRT for RTX providers.

Precision is that of the graph: no provider is allowed to lower it, and the variants of a bundle carry it.
Whether a provider takes part is known from the session: ONNX Runtime goes on without one whose libraries or
GPU are missing, so its absence from the session is an error here, and so is a convolution or a matrix product
that was left to the CPU. Nodes that compute shapes, and others that are cheap, belong there.

Sources: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html, the same of TensorRT,
and https://nvidia.github.io/TensorRT-RTX-EP-ABI/ for the plugin with TensorRT for RTX.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.hashed_folder import is_whole, write_checksums
from fgdd_engines.errors import EngineError, MissingExtraError
from fgdd_engines.failures import wrapped_as_engine_error
from fgdd_engines.file_lock import exclusive_lock
from fgdd_engines.onnxruntime_backend.binding import BoundEngine
from fgdd_engines.onnxruntime_backend.session import CPU_PROVIDER, FATAL, session_options
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.telemetry import disable_onnxruntime_telemetry
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device

GpuProvider = Literal["cuda", "onnxruntime-tensorrt", "onnxruntime-rtx"]
Options = dict[str, str]
ADVICE = "Run: fgdd-fast doctor"
REINSTALL = "Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'fgdd-fast[gpu]'"
PROVIDERS: Mapping[GpuProvider, str] = {
    "cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-rtx": "NvTensorRTRTXExecutionProvider",
}
DEVICE = "cuda"  # where ONNX Runtime holds the buffers, whichever the provider
_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
# Convolutions and matrix products, which are what a GPU is for.
_HEAVY = frozenset({"Conv", "ConvInteger", "ConvTranspose", "Einsum", "Gemm", "MatMul", "MatMulInteger"})
_RECORD_NODES = "session.record_ep_graph_assignment_info"


class OnnxRuntimeGpuEngine(BoundEngine):
    """A bundle's graph in one of ONNX Runtime's providers for NVIDIA GPUs, on the first of them.

    uint8 goes to the device as it is, into buffers that stay in place, and only the outputs asked for come
    back. Each stream has a session, with a CUDA graph of it recorded, so that a call launches the model as
    one; weights are then on the device once a stream. Where the model cannot be recorded (control flow, nodes
    on the CPU), or memory does not suffice for that, the streams share one session without a graph. Copies
    of one stream overlap with the computations of another; host memory is not pinned.

    Open all engines before any of them runs: while one records a graph, CUDA refuses other threads' work.

    The same batch gives the same bits again. Unlike on a CPU, a sample's result may depend in its last bits
    on its place in the batch and on the samples beside it.

    Args:
        bundle: the model, whose file has been checked against its hash.
        axes: a length for each named axis of the inputs.
        provider: which of the providers.
        cache: folder in which the TensorRT providers keep what they build, each model, shape, version and GPU
            apart. TensorRT's are used again only if their hashes are those noted after the first run.
        streams: calls of `run` that may be in flight; more than two hardly gain.

    Raises:
        EngineError: the provider cannot start here, or cannot run the model.
        MissingExtraError: ONNX Runtime, or its plugin for RTX, is not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        axes: Mapping[str, int],
        provider: GpuProvider,
        *,
        cache: Path,
        streams: int = 2,
    ) -> None:
        disable_onnxruntime_telemetry()
        runtime = import_optional("onnxruntime", "rtx" if provider == "onnxruntime-rtx" else "gpu")
        missing = load_libraries(runtime, provider)
        platform = describe_provider(runtime, provider), gpu_name()
        with provider_cache(cache, cache_key(bundle, axes, platform), provider) as own:
            super().__init__(
                runtime,
                bundle,
                axes,
                _Sessions(runtime, bundle, axes, provider, own, missing).open,
                device=DEVICE,
                streams=streams,
                arithmetic=", ".join((*platform, bundle.variant or "fp32")),
            )


@dataclass(frozen=True)
class _Sessions:
    """Opens the sessions of one engine; the attributes are those of the engine."""

    runtime: ModuleType
    bundle: Bundle
    axes: Mapping[str, int]
    provider: GpuProvider
    cache: Path
    missing: str

    def open(self, record: bool) -> Any:
        """Open a session, which records a CUDA graph or does not."""
        name = PROVIDERS[self.provider]
        options = session_options(self.runtime, self.axes)
        options.add_session_config_entry(_RECORD_NODES, "1")
        try:
            with wrapped_as_engine_error(f"ONNX Runtime cannot load '{self.bundle.name}' for {name}"):
                chain = None
                if self.provider == "onnxruntime-rtx":
                    options.add_provider_for_devices(
                        rtx_devices(self.runtime), rtx_options(self.cache, record)
                    )
                else:
                    chain = provider_chain(self.provider, self.cache, record)
                session = self.runtime.InferenceSession(
                    str(self.bundle.onnx), sess_options=options, providers=chain, enable_fallback=False
                )
        except EngineError as error:
            raise EngineError(error.problem, error.advice or ADVICE) from error
        check_placement(session, name, self.bundle.name, self.missing)
        return session


def load_libraries(runtime: ModuleType, provider: GpuProvider) -> str:
    """Load what a provider needs of CUDA and TensorRT, where it is installed as Python packages.

    Returns:
        What could not be loaded, which the system may still find by itself; empty if nothing was missing.

    Raises:
        EngineError: ONNX Runtime was built without this provider.
    """
    runtime.set_default_logger_severity(FATAL)  # a provider that does not start is told as an error instead
    if provider == "onnxruntime-rtx":
        return ""  # the plugin brings its own
    if PROVIDERS[provider] not in runtime.get_available_providers():
        raise EngineError(f"This ONNX Runtime was built without {PROVIDERS[provider]}", REINSTALL)
    if provider == "onnxruntime-tensorrt":
        with contextlib.suppress(MissingExtraError, ImportError, OSError):
            import_optional("tensorrt", "tensorrt")  # which loads its own libraries
    told = io.StringIO()
    if hasattr(runtime, "preload_dlls"):  # since 1.21; it prints what it misses
        with contextlib.redirect_stdout(told), wrapped_as_engine_error("CUDA's libraries cannot be loaded"):
            runtime.preload_dlls()
    return next((line.strip() for line in told.getvalue().splitlines() if line.startswith("Failed")), "")


def rtx_devices(runtime: ModuleType) -> list[Any]:
    """The first GPU that the plugin with TensorRT for RTX takes, as ONNX Runtime's list of devices.

    Raises:
        MissingExtraError: the plugin is not installed.
        EngineError: it takes none of this machine's GPUs.
    """
    plugin = import_optional(_PLUGIN, "rtx")
    name = plugin.get_ep_name()
    with wrapped_as_engine_error("ONNX Runtime's plugin for RTX cannot start"):
        if not any(device.ep_name == name for device in runtime.get_ep_devices()):
            runtime.register_execution_provider_library(name, plugin.get_library_path())
        devices = [device for device in runtime.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise EngineError("ONNX Runtime's plugin for RTX takes none of this machine's GPUs", ADVICE)
    return devices[:1]


def check_placement(session: Any, provider: str, name: str, missing: str) -> None:
    """Check that a session's provider takes part, and that what is heavy does not run on the CPU.

    Args:
        session: an open session; it is asked where its nodes are if it can tell, as recent ones can.
        provider: the name of the provider that was asked for.
        name: the bundle's name, for the error.
        missing: what `load_libraries` could not load.

    Raises:
        EngineError: the model would run on the CPU, as a whole or where it matters.
    """
    if provider not in session.get_providers():
        reason = f": {missing}" if missing else ""
        raise EngineError(f"ONNX Runtime cannot start {provider} for '{name}'{reason}", ADVICE)
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return
    parts = session.get_provider_graph_assignment_info()
    if not any(part.ep_name == provider for part in parts):
        raise EngineError(f"{provider} takes no part of '{name}'", "Use another device.")
    on_cpu = {node.op_type for part in parts if part.ep_name == CPU_PROVIDER for node in part.get_nodes()}
    if left := sorted(on_cpu & _HEAVY):
        raise EngineError(
            f"{provider} leaves {left} of '{name}' to the CPU", "Use another device or precision."
        )


def provider_chain(
    provider: Literal["cuda", "onnxruntime-tensorrt"], cache: Path, record: bool
) -> list[tuple[str, Options]]:
    """ONNX Runtime's providers with their options; each takes the nodes that those before it left.

    Args:
        provider: the one asked for.
        cache: folder of what TensorRT builds.
        record: whether to record a CUDA graph.
    """
    if provider == "cuda":
        chain = [(PROVIDERS["cuda"], cuda_options(record))]
    else:
        tensorrt = (PROVIDERS[provider], tensorrt_options(cache, record))
        chain = [tensorrt, (PROVIDERS["cuda"], cuda_options(record=False))]
    return [*chain, (CPU_PROVIDER, {})]


def cuda_options(record: bool) -> Options:
    """Options of the CUDA provider: float32 in full, and the same algorithms in every process."""
    return {
        "device_id": "0",
        "use_tf32": "0",
        # By default algorithms are timed, and another may win in the next process.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Shapes are fixed: what the first run takes is what every run takes.
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(record)),
    }


def tensorrt_options(cache: Path, record: bool) -> Options:
    """Options of the TensorRT provider.

    With fp16 and int8 off it builds strongly typed, so that each node has the precision that the graph gives
    it. There are no profiles to set: every axis has its length before the provider sees the graph.
    """
    return {
        "device_id": "0",
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_cuda_graph_enable": str(int(record)),
    }


def rtx_options(cache: Path, record: bool) -> Options:
    """Options of the plugin with TensorRT for RTX, which builds strongly typed always."""
    return {"nv_runtime_cache_path": str(cache), "enable_cuda_graph": str(int(record))}


def cache_key(bundle: Bundle, axes: Mapping[str, int], platform: tuple[str, ...]) -> str:
    """Name of the folder for what is built of a model: another for another model, shape or platform."""
    told = json.dumps([bundle.fingerprint, bundle.variant, dict(axes), platform], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def describe_provider(runtime: ModuleType, provider: GpuProvider) -> str:
    """Versions of ONNX Runtime and of what a provider brings, and whether it rounds float32 to TF32."""
    package = {"cuda": None, "onnxruntime-tensorrt": "tensorrt", "onnxruntime-rtx": _PLUGIN}[provider]
    if package is None:
        return f"ONNX Runtime {runtime.__version__}, CUDA without TF32"
    with contextlib.suppress(MissingExtraError, ImportError, OSError):
        package = f"{package} {import_optional(package, 'rtx').__version__}"
    return f"ONNX Runtime {runtime.__version__}, {package} with TF32"


def gpu_name(root: Path = Path("/")) -> str:
    """The first GPU's name by `cuda-bindings`, or else by NVIDIA's driver; `unknown GPU` if neither tells.

    Args:
        root: the root of the file system.
    """
    device = find_cuda_device()
    if device is not None:
        return device.name
    for told in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        for line in told.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return "unknown GPU"


@contextmanager
def provider_cache(shelf: Path, key: str, provider: GpuProvider) -> Iterator[Path]:
    """Give a folder for what a provider builds; after the block, what TensorRT built gets its checksums.

    One process at a time is in the block, so that two do the work once; and what TensorRT did not finish, or
    what was changed since, is removed before.
    """
    folder = shelf / key
    if provider == "cuda":
        yield folder  # which it does not use
        return
    with wrapped_as_engine_error(f"The cache {folder} cannot be written"):
        shelf.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(shelf, key, on_wait=lambda: None):
            if provider == "onnxruntime-tensorrt" and not is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            yield folder
            if provider == "onnxruntime-tensorrt":
                write_checksums(folder)
