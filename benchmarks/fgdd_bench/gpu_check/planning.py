"""Which checks are asked about what, the most telling first: the budget may end before the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fgdd_bench.gpu_check.kit import GROUNDED, SALIENCY, TEACHER, Kit
from fgdd_bench.gpu_check.registry import Case
from fgdd_engines.backends import find_backend, split_device
from fgdd_engines.base import Device, Precision
from fgdd_engines.probing.nvidia import has_nvidia_device
from fgdd_engines.tensorrt_backend.api import PACKAGES
from fgdd_fast.errors import FgddError, SettingsError
from fgdd_fast.models.factory import asked_by_class
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.engine_building import choose_tensorrt


def plan_cases(kit: Kit, opened: Mapping[Device, bool]) -> list[Case]:
    """Return the cases that are worth asking here, in their order, those of one place together.

    Args:
        kit: whose bundles are asked about.
        opened: the devices that are known, and whether each runs here.
    """
    cases: list[Case] = []
    running = sorted(filter(opened.__getitem__, opened), key=lambda device: find_backend(device).on_processor)
    for first, device in enumerate(running):
        piped = first == 0 and {SALIENCY, TEACHER} <= {*kit.reference}  # on a GPU, if there is one
        cases += [case for name in kit.reference for case in _usual(kit, device, name)]
        cases += _pipelines(device) if piped else ()
        for name in kit.reference:
            for precision in _precisions(kit, device, name)[1:]:
                cases += _decided(device, name, precision)
        cases += _beside(kit, device) if piped else ()
    for device in opened:
        if device not in running and _builds_without_gpu(device):
            pairs = [(name, each) for name in kit.reference for each in _precisions(kit, device, name)]
            cases += [Case("builds", device, name, precision) for name, precision in pairs]
    return cases


def _builds_without_gpu(device: Device) -> bool:
    """Whether engines can be built for a device although there is no GPU at all."""
    if split_device(device)[0] != "tensorrt-rtx" or has_nvidia_device():
        return False
    try:
        return choose_tensorrt(device) is not None
    except FgddError:
        return False


def _precisions(kit: Kit, device: Device, name: str) -> Sequence[Precision]:
    """In which a device runs a bundle; first the one that is taken if nothing is said."""
    bundle = kit.bundle(name)
    found = [runtime_for(bundle, device, "auto").precision]
    for precision in find_backend(device).variants:
        try:
            runtime_for(bundle, device, precision)
        except SettingsError:
            continue  # there is no such variant
        found += [precision] * (precision not in found)
    return found


def _decided(device: Device, name: str, precision: Precision) -> Iterator[Case]:
    if split_device(device)[0] in PACKAGES:
        yield Case("builds", device, name, precision)
    yield Case("decides", device, name, precision)


def _usual(kit: Kit, device: Device, name: str) -> Iterator[Case]:
    """What is asked about a bundle in its usual precision."""
    precision, on_processor = _precisions(kit, device, name)[0], find_backend(device).on_processor
    yield from _decided(device, name, precision)
    slow = on_processor and asked_by_class(kit.bundle(name))
    for check in (
        () if slow else ("streams", "batches") if on_processor else ("graphs", "streams", "memory", "batches")
    ):
        yield Case(check, device, name, precision)


def _pipelines(device: Device) -> Iterator[Case]:
    """What is asked about the whole way."""
    for path in ("all", TEACHER, SALIENCY):
        yield Case("stages", device, path)
    yield Case("host", "null", "all")


def _beside(kit: Kit, device: Device) -> Iterator[Case]:
    """What is asked about other ways beside it."""
    for reference in ("fair", "compiled"):
        for path in (TEACHER, SALIENCY):
            yield Case(reference, device, path)
    for name in (SALIENCY, TEACHER):
        yield Case("auto", "auto", name)
    if GROUNDED in kit.reference and not find_backend(device).on_processor:
        yield from (Case(check, device, GROUNDED) for check in ("stages", "fair"))
