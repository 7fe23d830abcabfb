"""The backends: on what bundles run. Each is a folder with a descriptor, and a line in `BUILT_IN`.

An installed package adds one by an entry point of the group `fgdd_fast.backends` that names a `Backend`.
Descriptors are imported, and plug-ins looked up, where a device's name is resolved. A name may end with the
number of a GPU, such as `cuda:1`; without one it means the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint

from fgdd_engines.base import Device, Engine, Precision
from fgdd_engines.bundle.bundle import Bundle, Variant
from fgdd_engines.errors import SettingsError
from fgdd_engines.plugins import BACKENDS, find_plugins

# Where the descriptor of each device lies, in the order in which devices are listed.
BUILT_IN: Mapping[Device, str] = {
    "cpu": "fgdd_engines.onnxruntime_backend.descriptor:CPU",
    "openvino": "fgdd_engines.openvino_backend.backend:OPENVINO",
    "cuda": "fgdd_engines.onnxruntime_backend.descriptor:CUDA",
    "tensorrt": "fgdd_engines.tensorrt_backend.descriptor:TENSORRT",
    "tensorrt-rtx": "fgdd_engines.tensorrt_backend.descriptor:TENSORRT_RTX",
}
DEVICES: tuple[Device, ...] = tuple(BUILT_IN)
# What computes nothing: it runs where it is named, and is neither listed nor ever chosen.
_UNLISTED: Mapping[Device, str] = {"null": "fgdd_engines.null_backend.backend:NULL"}
_RETIRED = {"onnxruntime-tensorrt": "tensorrt", "onnxruntime-rtx": "tensorrt-rtx"}

Opener = Callable[[Bundle, Mapping[str, int], int, Precision], Engine]


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How bundles run on a device.

    Attributes:
        open: loads a bundle, given the length of each named axis, the number of threads and the precision;
            raises EngineError, or MissingExtraError where a package is not installed.
        open_one_stream: likewise, but all threads work for one call at a time, which gives the same in less
            memory; None where a call has one thread.
        probe: runs something tiny on the device and returns what ran it, with versions; raises FgddError.
        on_processor: whether it computes on the processor; everything else is probed in a process of its own.
        on_nvidia: whether it needs a GPU of NVIDIA's.
        variants: the precisions that it computes in, each with the variant of a bundle that it takes for it;
            None where it takes the fp32 graph itself. `tf32` is that of NVIDIA's GPUs: products of float32
            numbers of which 10 bits of the mantissa count.
        packages: import names of the packages that it needs.
        distributions: names of those packages, as pip knows them, whose versions matter.
        extra: the extra of fgdd-fast that brings the packages; empty for a plug-in, which brings its own.
        with_jetpack: whether NVIDIA's software for Jetson boards brings the first of the packages; no other
            backend on a GPU runs on such a board.
        built: what was built of a graph for this device in a precision, for a backend that runs nothing else:
            hash and state of each. None where nothing has to be built.
        on_gpu: this backend on the GPU of a number, counted from 0 as CUDA does; None where there is none to
            choose. That there is such a GPU shows when it opens something.
        only_copies: whether it computes nothing, so that only benchmarks have any use for it.
        origin: the package that a plug-in comes from, with its version; empty for what is built in. It is
            filled in by `find_backend`.
    """

    open: Opener
    open_one_stream: Opener | None = None
    probe: Callable[[], str]
    on_processor: bool
    on_nvidia: bool = False
    variants: Mapping[Precision, Variant | None] = field(default_factory=lambda: {"fp32": None})
    packages: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    extra: str = ""
    with_jetpack: bool = False
    built: Callable[[Bundle, Precision], tuple[str, ...]] | None = None
    on_gpu: Callable[[int], Backend] | None = None
    only_copies: bool = False
    origin: str = ""

    @property
    def lowers_fp32(self) -> bool:
        """Whether it chooses in what it computes an fp32 graph; TF32 it has to be asked for."""
        plain = ("fp32", "tf32")
        return any(variant is None for precision, variant in self.variants.items() if precision not in plain)

    def computes(self, graph: Bundle, precision: Precision) -> bool:
        """Return whether it can be asked to compute a graph, which may be a variant, in a precision."""
        if precision == "tf32":
            return precision in self.variants and graph.variant is None
        return self.lowers_fp32 or precision in ("auto", graph.precision)


def split_device(device: Device) -> tuple[Device, int]:
    """Return the name of a device's backend and the number of its GPU: `cuda` and 1 of `cuda:1`, 0 without.

    Raises:
        SettingsError: what follows the colon is no number.
    """
    name, colon, number = device.partition(":")
    if colon and not re.fullmatch(r"[0-9]{1,4}", number):
        raise SettingsError(
            f"The device {device!r} does not end with the number of a GPU",
            f"GPUs are counted from 0: {name}:1 is the second.",
        )
    return name, int(number or 0)


def find_backend(device: Device) -> Backend:
    """Return the backend of a device's name: one that is built in, or else a plug-in's.

    Raises:
        SettingsError: there is no such device, or it has no GPUs of which one could be chosen by its number.
        PluginError: it is a plug-in's, and cannot be loaded.
    """
    name, index = split_device(device)
    backend = _find_named(name)
    if name == device:
        return backend
    if backend.on_gpu is None:
        raise SettingsError(f"The device {name} has no GPUs to choose from", f"Use the device {name}.")
    return replace(backend.on_gpu(index), origin=backend.origin)


def _find_named(device: Device) -> Backend:
    if place := BUILT_IN.get(device) or _UNLISTED.get(device):
        backend: Backend = EntryPoint(device, place, BACKENDS).load()
        return backend
    if device in _RETIRED:
        raise SettingsError(
            f"The device {device} was ONNX Runtime's own way to TensorRT, which is no longer offered",
            f"Use the device {_RETIRED[device]}.",
        )
    plugins = find_plugins(BACKENDS, reserved=(*DEVICES, *_UNLISTED))
    if device not in plugins:
        raise SettingsError(
            f"There is no device {device!r}", f"These are known: {', '.join((*DEVICES, *sorted(plugins)))}."
        )
    plugin = plugins[device]
    return replace(plugin.load(Backend), origin=str(plugin))


def all_devices() -> tuple[Device, ...]:
    """Return the names of all devices: those that are built in, then those of plug-ins."""
    return (*DEVICES, *sorted(find_plugins(BACKENDS, reserved=(*DEVICES, *_UNLISTED))))
