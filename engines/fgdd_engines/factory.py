"""A bundle opened on a device."""

from __future__ import annotations

from collections.abc import Mapping

from fgdd_engines.backends import find_backend
from fgdd_engines.base import Device, Engine, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.errors import SettingsError, wrapped_as_engine_error


def open_engine(
    bundle: Bundle,
    *,
    device: Device,
    precision: Precision = "auto",
    axes: Mapping[str, int],
    threads: int,
    one_stream: bool = False,
) -> Engine:
    """Load a bundle's graph into a runtime, for fixed shapes.

    Args:
        bundle: the model, or a variant of it, whose file has been checked against its hash.
        device: a backend's name, which may end with the number of a GPU: `cuda:1`.
        precision: how OpenVINO computes a graph in fp32; `auto` is bf16 where the processor computes in it
            natively. Everything else computes in what the graph is in, and takes `auto` or that; GPUs of
            NVIDIA also `tf32` for a graph in fp32.
        axes: a length for each named axis of the inputs, such as `batch`.
        threads: processor threads to compute with; each serves one call of `run` at a time. On a GPU so many
            calls may be in flight, but two at most, and each takes memory of its own.
        one_stream: whether all threads serve one call of `run` at a time, which takes the memory of one.

    Raises:
        SettingsError: there is no such device, it does not compute so, or there are no threads.
        PluginError, MissingExtraError: the plug-in cannot be loaded, or the runtime is not installed.
        EngineError: `axes` do not fit, the runtime cannot load the graph or run here, or no plan was built.
    """
    if threads < 1:
        raise SettingsError(f"An engine needs at least one thread, not {threads}")
    backend = find_backend(device)
    if not backend.computes(bundle, precision):
        raise SettingsError(
            f"The device {device} computes a graph in what it is in, and the graph of {bundle.name} is in "
            f"{bundle.precision}, not {precision}",
            "For bf16 on a CPU use the device openvino; else convert the bundle: fgdd-fast convert",
        )
    opener = backend.open
    if one_stream:
        opener, threads = (backend.open_one_stream, threads) if backend.open_one_stream else (opener, 1)
    if not backend.origin:
        return opener(bundle, axes, threads, precision)
    with wrapped_as_engine_error(f"The plug-in of {backend.origin} cannot load '{bundle.name}'"):
        engine = opener(bundle, axes, threads, precision)
        engine.arithmetic = f"{engine.arithmetic}, plug-in {backend.origin}"
    return engine
