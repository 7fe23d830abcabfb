"""ONNX Runtime's CUDA provider, on an NVIDIA GPU.

Precision is that of the graph: the provider may not lower it unasked, and the variants of a bundle carry it.
Whether it takes part is known from the session: ONNX Runtime goes on without a provider whose libraries or
GPU are missing, so its absence from the session is an error here, and so is a convolution, a matrix product
or a sampling of a feature map that was left to the CPU, and so are many copies of tensors between both in the
middle of the graph. Nodes that compute shapes, and others that are cheap, belong there.

Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import EngineError, wrapped_as_engine_error
from fgdd_engines.onnxruntime_backend.binding import BoundEngine
from fgdd_engines.onnxruntime_backend.copies import watching_copies
from fgdd_engines.onnxruntime_backend.session import CPU_PROVIDER, FATAL, session_options
from fgdd_engines.optional_imports import import_onnxruntime
from fgdd_engines.tensorrt_backend.cuda_device import (
    STREAMS,
    CudaDevice,
    check_tf32,
    find_cuda_device,
    find_cuda_devices,
    no_such_gpu,
)

ADVICE = "Run: fgdd-fast doctor"
REINSTALL = "Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'fgdd-fast[gpu]'"
CUDA_PROVIDER = "CUDAExecutionProvider"
UNKNOWN = "unknown GPU"
DEVICE = "cuda"  # where ONNX Runtime holds the buffers
# Convolutions and matrix products, which are what a GPU is for; and GridSample, which reads whole maps, and
# which ONNX Runtime up to 1.17 leaves to the CPU.
_HEAVY = frozenset(
    {"Conv", "ConvInteger", "ConvTranspose", "Einsum", "Gemm", "GridSample", "MatMul", "MatMulInteger"}
)


class CudaEngine(BoundEngine):
    """A bundle's graph in ONNX Runtime's CUDA provider, on one GPU.

    `tf32` lets it compute products of fp32 numbers in TF32; `gpu` is the GPU's number; `graphs` False leaves
    CUDA graphs alone. `placement` says how many nodes of the graph each of ONNX Runtime's providers took, by
    operator; it is empty where ONNX Runtime does not tell.

    uint8 goes to the device as it is, into buffers that stay in place, and only the outputs asked for come
    back. Each stream has a session, with a CUDA graph of it recorded, so that a call launches the model as
    one; weights are then on the device once a stream. Where the model cannot be recorded (control flow, nodes
    on the CPU), or memory does not suffice for that, the streams share one session without a graph. Copies of
    one stream overlap with the computations of another; more than two hardly gain.

    Open all engines before any of them runs: while one records a graph, CUDA refuses other threads' work. The
    same batch gives the same bits again. Unlike on a CPU, a sample's result may depend in its last bits on
    its place in the batch and on the samples beside it.

    Raises EngineError where the provider cannot start here or run the model, or there is no such GPU;
    SettingsError where it has no TF32; MissingExtraError without ONNX Runtime.
    """

    def __init__(
        self,
        bundle: Bundle,
        axes: Mapping[str, int],
        *,
        streams: int = STREAMS,
        tf32: bool = False,
        gpu: int = 0,
        graphs: bool = True,
    ) -> None:
        self.placement: Mapping[str, Counter[str]] = {}
        runtime = import_onnxruntime("gpu")
        missing = load_libraries(runtime)
        found = find_gpu(gpu)
        if tf32 and found.cuda is not None:
            check_tf32(found.cuda)
        how = f"with TF32, {found.name}, tf32"
        if not tf32:
            how = f"without TF32, {found.name}, {bundle.variant or 'fp32'}"

        def opens(record: bool) -> Any:
            session = _open_session(runtime, bundle, axes, tf32, gpu, record)
            self.placement = check_placement(session, bundle.name, missing)
            return session

        super().__init__(
            runtime,
            bundle,
            axes,
            opens,
            device=(DEVICE, gpu),
            streams=streams,
            graphs=graphs,
            arithmetic=f"ONNX Runtime {runtime.__version__}, CUDA {how}",
        )


def _open_session(
    runtime: ModuleType,
    bundle: Bundle,
    axes: Mapping[str, int],
    tf32: bool,
    gpu: int,
    record: bool,
) -> Any:
    """Open a session, which records a CUDA graph or does not."""
    options = session_options(runtime, axes)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # ONNX Runtime itself refuses to record a graph with copies in it.
        watching = nullcontext() if record else watching_copies(options, bundle, CUDA_PROVIDER)
        problem = f"ONNX Runtime cannot load '{bundle.name}' for {CUDA_PROVIDER}"
        with watching, wrapped_as_engine_error(problem):
            return runtime.InferenceSession(
                str(bundle.onnx),
                sess_options=options,
                providers=provider_chain(record, tf32=tf32, gpu=gpu),
                enable_fallback=False,
            )
    except EngineError as error:
        raise EngineError(error.problem, error.advice or ADVICE) from error


def load_libraries(runtime: ModuleType) -> str:
    """Load what the provider needs of CUDA, where it is installed as Python packages.

    Returns what could not be loaded, which the system may still find by itself; empty if nothing was missing.
    Raises EngineError where ONNX Runtime was built without this provider.
    """
    runtime.set_default_logger_severity(FATAL)  # a provider that does not start is told as an error instead
    if CUDA_PROVIDER not in runtime.get_available_providers():
        raise EngineError(f"This ONNX Runtime was built without {CUDA_PROVIDER}", REINSTALL)
    told = io.StringIO()
    if hasattr(runtime, "preload_dlls"):  # since 1.21; it prints what it misses
        with contextlib.redirect_stdout(told), wrapped_as_engine_error("CUDA's libraries cannot be loaded"):
            runtime.preload_dlls()
    return next((line.strip() for line in told.getvalue().splitlines() if line.startswith("Failed")), "")


def check_placement(
    session: Any, name: str, missing: str, provider: str = CUDA_PROVIDER
) -> Mapping[str, Counter[str]]:
    """Return how many nodes each provider took, by operator, where the session tells.

    Check that the provider takes part in a session, and that nothing heavy runs on the CPU.

    The session is asked where its nodes are if it can tell, as recent ones can. `missing` is what
    `load_libraries` could not load. Raises EngineError where the model would run on the CPU, as a whole or
    where it matters.
    """
    if provider not in session.get_providers():
        reason = f": {missing}" if missing else ""
        raise EngineError(f"ONNX Runtime cannot start {provider} for '{name}'{reason}", ADVICE)
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    places: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in session.get_provider_graph_assignment_info():
        places[part.ep_name].update(node.op_type for node in part.get_nodes())
    if provider not in places:
        raise EngineError(f"{provider} takes no part of '{name}'", "Use another device.")
    if left := sorted(_HEAVY.intersection(places.get(CPU_PROVIDER, ()))):
        raise EngineError(
            f"{provider} leaves {left} of '{name}' to the CPU", "Use another device or precision."
        )
    return places


def provider_chain(record: bool, *, tf32: bool = False, gpu: int = 0) -> list[tuple[str, dict[str, str]]]:
    """Return ONNX Runtime's providers with their options; each takes the nodes that those before it left.

    float32 is computed in full unless `tf32` is asked for, and by the same algorithms in every process;
    `record` asks for a CUDA graph; `gpu` is the GPU's number.
    """
    cuda = {
        "device_id": str(gpu),
        "use_tf32": str(int(tf32)),
        # By default algorithms are timed, and another may win in the next process.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Shapes are fixed: what the first run takes is what every run takes.
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(record)),
    }
    return [(CUDA_PROVIDER, cuda), (CPU_PROVIDER, {})]


@dataclass(frozen=True)
class Gpu:
    """What is known of a GPU.

    Attributes:
        name: by `cuda-bindings`, or else by NVIDIA's driver; else `unknown GPU`.
        cuda: what `cuda-bindings` say of it; None where they cannot be used.
    """

    name: str
    cuda: CudaDevice | None = None

    def __str__(self) -> str:
        return self.name if self.cuda is None else str(self.cuda)


def find_gpu(index: int = 0, root: Path = Path("/")) -> Gpu:
    """Return what is known of the GPU of a number.

    The driver counts GPUs by their slots; CUDA, which knows better, may count otherwise.

    Raises:
        EngineError: there are fewer GPUs.
    """
    device = find_cuda_device(index)
    if device is not None:
        return Gpu(device.name, device)
    names = _names(root)
    count = len(find_cuda_devices()) or len(names)
    if 0 < count <= index:
        raise EngineError(no_such_gpu(index, count), ADVICE)
    return Gpu(names[index] if index < len(names) else UNKNOWN)


def _names(root: Path) -> list[str]:
    """The models of all GPUs, as NVIDIA's driver tells them."""
    told = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in told]
    found = (re.search(r"^Model:(.*)$", text, re.MULTILINE) for text in texts)
    return [UNKNOWN if match is None else match[1].strip() for match in found]
