"""Builds the engines of a whole bundle for this device, and finds out whether they may be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.progress import SILENT, Progress
from fgdd_engines.tensorrt_backend.api import Flavour, TensorRt, import_tensorrt
from fgdd_engines.tensorrt_backend.build import Built, Profile, build_plan
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_engines.tensorrt_backend.plans.key import Platform
from fgdd_engines.tensorrt_backend.plans.sidecar import USABLE
from fgdd_engines.tensorrt_backend.plans.store import Origin, PlanStore
from fgdd_fast.errors import FgddError
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
        device: which TensorRT; `auto` is the first that is installed and can build here.
        precision: of the graphs; all but fp32 take the bundle's variants, and `auto` is what running the
            bundle on the device would ask for.
        batch: images an inference; None for what suits the bundle.
        workspace_mib: memory in MiB that kernels may use beside weights and activations; None for no limit.
        rebuild: whether to build what is there already.
        force: whether to use engines whose decisions differ too much.
    """

    device: Flavour | Literal["auto"] = "auto"
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
        SettingsError: the bundle has no variant of this precision, or is one itself.
        MissingExtraError: TensorRT is not installed.
        EngineError: an engine cannot be built, kept or run.
    """
    tensorrt = choose_tensorrt(settings.device)
    platform = Platform.of(tensorrt, find_cuda_device())
    profile = profile_of(bundle, settings.batch)
    precision = runtime_for(bundle, tensorrt.flavour, settings.precision).precision
    graphs = graphs_of(bundle, tensorrt.flavour, precision, profile)
    plans = tuple(
        store.build_once(
            graph.key(platform),
            _builder(tensorrt, graph, settings, progress),
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
        accept=settings.force,
    )


def choose_tensorrt(device: Flavour | Literal["auto"]) -> TensorRt:
    """Import the TensorRT that is asked for; for `auto` the first that is installed and can build here.

    Without a GPU only TensorRT for RTX can build.

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it cannot be loaded.
    """
    if device != "auto":
        return import_tensorrt(device)
    flavours: Sequence[Flavour] = get_args(Flavour)
    if find_cuda_device() is None:
        flavours = flavours[::-1]
    problems: list[FgddError] = []
    for flavour in flavours:
        try:
            return import_tensorrt(flavour)
        except FgddError as error:
            problems.append(error)
    raise problems[0]


def _builder(
    tensorrt: TensorRt, graph: Graph, settings: BuildSettings, progress: Progress
) -> Callable[[bytes], Built]:
    def build(timing_cache: bytes) -> Built:
        _log.info("%s: building for %s samples in %s", graph.bundle.name, graph.profile, tensorrt.flavour)
        return build_plan(
            tensorrt,
            graph.bundle,
            graph.profile,
            axes=graph.axes,
            workspace_mib=settings.workspace_mib,
            timing_cache=timing_cache,
            progress=progress,
        )

    return build
