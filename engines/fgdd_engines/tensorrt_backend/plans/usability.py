"""Whether built plans are of use on this machine: now, or ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from fgdd_engines.bundle.bundle import load_bundle
from fgdd_engines.errors import BundleError, EngineError, MissingExtraError
from fgdd_engines.tensorrt_backend.api import Flavour, import_tensorrt
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_devices
from fgdd_engines.tensorrt_backend.plans.key import NONE, Platform
from fgdd_engines.tensorrt_backend.plans.sidecar import USABLE, Plan
from fgdd_engines.tensorrt_backend.plans.store import PlanStore

# For each TensorRT that is installed, what plans run on: one platform for each GPU, in the order of their
# numbers; without a GPU a single one, which says so.
Here = Mapping[Flavour, tuple[Platform, ...]]


def platforms_here() -> Here:
    """Return what plans run on here, for each TensorRT that is installed and can be loaded."""
    devices = find_cuda_devices() or (None,)
    platforms: dict[Flavour, tuple[Platform, ...]] = {}
    for flavour in get_args(Flavour):
        try:
            tensorrt = import_tensorrt(flavour)
        except (MissingExtraError, EngineError):
            continue
        platforms[flavour] = tuple(Platform.of(tensorrt, device) for device in devices)
    return platforms


def find_gpu_of(plan: Plan, platforms: Sequence[Platform]) -> tuple[int, tuple[str, ...]]:
    """Return the number of the GPU that is most like a plan's, and in what the platform differs from it."""
    differences = [plan.key.platform.differences(platform) for platform in platforms]
    index = min(range(len(platforms)), key=lambda number: len(differences[number]))
    return index, differences[index]


def why_unusable(plan: Plan, here: Here) -> str:
    """Return why a plan cannot be used on this machine now; empty where it can. Its content is not read."""
    platforms = here.get(plan.key.flavour)
    if platforms is None:
        return f"{plan.key.flavour} is not installed"
    if differences := find_gpu_of(plan, platforms)[1]:
        return " and ".join(differences)
    if platforms[0].device == NONE:
        return "there is no GPU"
    if changed := why_outdated(plan):
        return changed
    return "" if plan.state in USABLE else plan.state


def why_stale(plan: Plan, here: Here) -> str:
    """Return why a plan can never be used on this machine again; empty where it can, or may.

    What is not there now, a TensorRT or a GPU, may come back; what is there and another than the plan's says
    that the machine has changed.
    """
    platforms = here.get(plan.key.flavour)
    if platforms is not None and platforms[0].device != NONE:
        if differences := find_gpu_of(plan, platforms)[1]:
            return " and ".join(differences)
    elif platforms is not None and platforms[0].version != plan.key.version:
        return f"was built by {plan.key.flavour} {plan.key.version}, not {platforms[0].version}"
    return why_outdated(plan)


def stale_timing_caches(store: PlanStore, here: Here) -> tuple[Path, ...]:
    """Return the timing caches of other GPUs and versions than those that are here."""
    with_gpu = {flavour: found for flavour, found in here.items() if found[0].device != NONE}
    current = {store.timing_cache(platform) for found in with_gpu.values() for platform in found}
    return tuple(
        path
        for path in store.timing_caches()
        if path not in current and path.stem.rsplit("-", 2)[0] in with_gpu
    )


def why_outdated(plan: Plan) -> str:
    """Return whether the model of a plan is gone or has changed, in words; empty where it is as it was."""
    try:
        graph = load_bundle(plan.graph)
    except BundleError as error:
        return f"its model cannot be used: {error.problem}"
    return "" if graph.fingerprint == plan.key.model_sha256 else f"its model {plan.graph} has changed"
