"""Whether built plans are of use on this machine: now, or ever."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from fgdd_engines.bundle.bundle import load_bundle
from fgdd_engines.errors import BundleError, EngineError, MissingExtraError
from fgdd_engines.tensorrt_backend.api import Flavour, import_tensorrt
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_engines.tensorrt_backend.plans.key import NONE, Platform
from fgdd_engines.tensorrt_backend.plans.sidecar import USABLE, Plan
from fgdd_engines.tensorrt_backend.plans.store import PlanStore

Here = Mapping[Flavour, Platform]


def platforms_here() -> Here:
    """Return what plans run on here, for each TensorRT that is installed and can be loaded."""
    device = find_cuda_device()
    platforms: dict[Flavour, Platform] = {}
    for flavour in get_args(Flavour):
        try:
            platforms[flavour] = Platform.of(import_tensorrt(flavour), device)
        except (MissingExtraError, EngineError):
            continue
    return platforms


def why_unusable(plan: Plan, here: Here) -> str:
    """Return why a plan cannot be used on this machine now; empty where it can. Its content is not read."""
    platform = here.get(plan.key.flavour)
    if platform is None:
        return f"{plan.key.flavour} is not installed"
    if differences := plan.key.platform.differences(platform):
        return " and ".join(differences)
    if platform.device == NONE:
        return "there is no GPU"
    if changed := why_outdated(plan):
        return changed
    return "" if plan.state in USABLE else plan.state


def why_stale(plan: Plan, here: Here) -> str:
    """Return why a plan can never be used on this machine again; empty where it can, or may.

    What is not there now, a TensorRT or a GPU, may come back; what is there and another than the plan's says
    that the machine has changed.
    """
    platform = here.get(plan.key.flavour)
    if platform is not None and platform.device != NONE:
        if differences := plan.key.platform.differences(platform):
            return " and ".join(differences)
    elif platform is not None and platform.version != plan.key.version:
        return f"was built by {plan.key.flavour} {plan.key.version}, not {platform.version}"
    return why_outdated(plan)


def stale_timing_caches(store: PlanStore, here: Here) -> tuple[Path, ...]:
    """Return the timing caches of other GPUs and versions than those that are here."""
    with_gpu = {flavour: platform for flavour, platform in here.items() if platform.device != NONE}
    current = {store.timing_cache(platform) for platform in with_gpu.values()}
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
