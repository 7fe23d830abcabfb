"""Graphs as ONNX Runtime's CPU provider optimised them, kept so that a large model opens fast the next time.

Of a model of 430 MB, optimising takes most of the time that opening takes. The optimised graph is made for
one CPU, for one version of ONNX Runtime and for fixed shapes, and is kept under the hash of all of these. Its
weights lie in a file of their own: while it is written they are not held once more in memory, and while it
runs they are mapped, not copied.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.files import is_whole, write_checksums
from fgdd_engines.errors import EngineError, wrapped_as_engine_error
from fgdd_engines.file_lock import exclusive_lock
from fgdd_engines.onnxruntime_backend.session import CPU_PROVIDER, GRAPH_FILE, save_optimised, session_options
from fgdd_engines.paths import cache_folder

WORTH_KEEPING = 64 << 20  # bytes; smaller models open in less than half a second


def optimised_graph(runtime: ModuleType, bundle: Bundle, axes: Mapping[str, int]) -> Path | None:
    """Find or make an ONNX file of a bundle's graph that needs no further optimisation.

    None for a model that is not worth it, or where the graph cannot be kept, as on a full disk.
    """
    if bundle.onnx.stat().st_size < WORTH_KEEPING:
        return None
    shelf, key = cache_folder() / "onnxruntime", _key(runtime, bundle, axes)
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(shelf, key, on_wait=lambda: None) as staging:
            if not is_whole(shelf / key):
                shutil.rmtree(shelf / key, ignore_errors=True)
                _write(runtime, bundle, axes, staging)
                staging.rename(shelf / key)
    except (OSError, EngineError):
        return None  # the model opens without it, or says itself why not
    return shelf / key / GRAPH_FILE


def _key(runtime: ModuleType, bundle: Bundle, axes: Mapping[str, int]) -> str:
    told = json.dumps([bundle.fingerprint, runtime.__version__, dict(axes), _cpu()], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _cpu() -> list[str]:
    """Model and instruction sets of the CPU, by which the layout of the weights is chosen."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    names = ("model name", "flags", "CPU part", "Features")  # of x86-64, then of aarch64
    return sorted({line for line in lines if line.startswith(names)})


def _write(runtime: ModuleType, bundle: Bundle, axes: Mapping[str, int], folder: Path) -> None:
    """Optimise a graph into an empty folder."""
    options = session_options(runtime, axes)
    save_optimised(options, folder)
    with wrapped_as_engine_error(f"ONNX Runtime cannot optimise '{bundle.name}'"):
        runtime.InferenceSession(str(bundle.onnx), sess_options=options, providers=[CPU_PROVIDER])
    write_checksums(folder)
