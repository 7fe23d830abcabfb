"""Builds the engines of a whole bundle for this device, and finds out whether they may be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from fgdd_engines.backends import split_device
from fgdd_engines.base import Device, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.progress import SILENT, Progress
from fgdd_engines.tensorrt_backend.api import Flavour, TensorRt, check_kernels, import_tensorrt
from fgdd_engines.tensorrt_backend.build import Built, Profile, build_plan
from fgdd_engines.tensorrt_backend.cuda_device import check_tf32, find_cuda_device, why_no_cuda
from fgdd_engines.tensorrt_backend.plans.key import Platform
from fgdd_engines.tensorrt_backend.plans.sidecar import USABLE
from fgdd_engines.tensorrt_backend.plans.store import Origin, PlanStore
from fgdd_fast.errors import EngineError, FgddError, SettingsError
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.engine_checking import (
    Checked,
    Graph,
    Images,
    check_engines,
    graphs_of,
    profile_of,
    why_unchecked,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildSettings:
    """How engines are built.

    Attributes:
        device: which TensorRT, with the number of a GPU or without, such as `tensorrt:1`; `auto` is the first
            that is installed and can build here.
        precision: of the graphs; all but fp32 and tf32 take the bundle's variants, and `auto` is what
            running the bundle on the device would ask for.
        batch: images an inference; None for what suits the bundle.
        workspace_mib: memory in MiB that kernels may use beside weights and activations; None for no limit.
        rebuild: whether to build what is there already.
        force: whether to use engines whose decisions differ too much.
    """

    device: Device = "auto"
    precision: Precision = "auto"
    batch: Profile | None = None
    workspace_mib: int | None = None
    rebuild: bool = False
    force: bool = False


def build_engines(
    bundle: Bundle,
    settings: BuildSettings,
    images: Images,
    *,
    store: PlanStore,
    progress: Progress = SILENT,
) -> Checked:
    """Build the engine of each graph of a bundle, unless it is there, and compare what they decide.

    Args:
        bundle: the fp32 bundle.
        settings: how.
        images: gives the images on which decisions are compared.
        store: where engines are kept.
        progress: told of the steps of each build.

    Raises:
        SettingsError: the bundle has no variant of this precision, or is one itself; or the GPU does not
            compute in it.
        MissingExtraError: TensorRT is not installed.
        EngineError: an engine cannot be built, kept or run.
    """
    tensorrt = choose_tensorrt(settings.device)
    gpu = split_device(settings.device)[1]
    device = find_cuda_device(gpu)
    platform = Platform.of(tensorrt, device)
    profile = profile_of(bundle, settings.batch)
    precision = runtime_for(bundle, tensorrt.flavour, settings.precision).precision
    if precision == "tf32" and device is not None:
        check_tf32(device)
    graphs = graphs_of(bundle, tensorrt.flavour, precision, profile)
    plans = tuple(
        store.build_once(
            graph.key(platform),
            _builder(tensorrt, graph, settings, gpu, progress),
            Origin(graph.bundle.onnx, bundle.onnx),
            workspace_mib=settings.workspace_mib,
            rebuild=settings.rebuild,
        )
        for graph in graphs
    )
    if all(plan.state in USABLE for plan in plans):
        return Checked(plans)
    if not why_unchecked(bundle):
        _log.info("%s: comparing its decisions with those of fp32 on the CPU", bundle.name)
    return check_engines(
        bundle,
        precision,
        graphs,
        plans,
        images,
        store=store,
        gpu=gpu,
        accept=settings.force,
    )


def choose_tensorrt(device: Device) -> TensorRt:
    """Import the TensorRT that is asked for; for `auto` the first that is installed and can build here.

    Without a GPU only TensorRT for RTX can build. With one it can only for those of which it has kernels.

    Raises:
        SettingsError: the device is none of TensorRT.
        MissingExtraError: it is not installed.
        EngineError: it cannot be loaded, has no kernels for the GPU, or there is no GPU of this number.
    """
    name, gpu = split_device(device)
    found = find_cuda_device(gpu)
    if gpu and found is None:
        raise EngineError(f"No engine can be built on {device}: {why_no_cuda(gpu)}", "Run: fgdd-fast doctor")
    flavours: Sequence[Flavour] = get_args(Flavour)
    if name != "auto":
        flavours = [flavour for flavour in flavours if flavour == name]
        if not flavours:
            raise SettingsError(f"The device {device} runs no engines", "Use tensorrt or tensorrt-rtx.")
    elif found is None:
        flavours = flavours[::-1]
    problems: list[FgddError] = []
    for flavour in flavours:
        try:
            tensorrt = import_tensorrt(flavour)
            if found is not None:
                check_kernels(tensorrt, found)
        except FgddError as error:
            problems.append(error)
        else:
            return tensorrt
    raise problems[0]


def _builder(
    tensorrt: TensorRt, graph: Graph, settings: BuildSettings, gpu: int, progress: Progress
) -> Callable[[bytes], Built]:
    def build(timing_cache: bytes) -> Built:
        _log.info("%s: building for %s samples in %s", graph.bundle.name, graph.profile, tensorrt.flavour)
        return build_plan(
            tensorrt,
            graph.bundle,
            graph.profile,
            axes=graph.axes,
            tf32=graph.tf32,
            gpu=gpu,
            workspace_mib=settings.workspace_mib,
            timing_cache=timing_cache,
            progress=progress,
        )

    return build
