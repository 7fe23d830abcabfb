"""Whether a bundle decides the same with its engines as with its fp32 graphs on the CPU.

Kernels differ between GPUs, and what a lower precision loses shows in decisions: so they are compared on the
very device, and engines below the bar are kept out of use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle, Role, load_bundle
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_engines.tensorrt_backend.plans.choice import trial
from fgdd_engines.tensorrt_backend.plans.sidecar import USABLE, State, check_content
from fgdd_engines.tensorrt_backend.plans.store import Plan, PlanStore
from fgdd_engines.tensorrt_backend.plans.usability import Here, why_outdated
from fgdd_fast.errors import EngineError, FgddError
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.engine_graphs import Graph, graphs_of, image_batches
from fgdd_fast.runtime.parity import REFERENCE, measure_parity
from fgdd_fast.runtime.sample_images import SampleImage
from fgdd_fast.runtime.tolerances import ParityReport

DECIDING_ROLES: tuple[Role, ...] = ("foreground", "teacher", "backbone")
Images = Callable[[Bundle], Sequence[SampleImage]]


@dataclass(frozen=True)
class Checked:
    """What became of a bundle's engines.

    Attributes:
        plans: one for each graph, the bundle's own first.
        parity: how decisions compare; None where nothing was compared.
        unchecked: why nothing was compared; empty where something was, or had been before.
    """

    plans: tuple[Plan, ...]
    parity: ParityReport | None = None
    unchecked: str = ""


@dataclass(frozen=True)
class Finding:
    """What was found out about a stored engine.

    Attributes:
        name: of its file.
        words: what is wrong with it, or that it is in order.
        wrong: whether something is wrong.
    """

    name: str
    words: str
    wrong: bool


def why_unchecked(bundle: Bundle) -> str:
    """Why the engines of a bundle cannot be compared here; empty where they can."""
    if bundle.role not in DECIDING_ROLES:
        return f"no decision depends on a {bundle.role} alone"
    return "" if find_cuda_device() is not None else "there is no GPU to run them"


def check_engines(
    bundle: Bundle,
    precision: Precision,
    graphs: Sequence[Graph],
    plans: Sequence[Plan],
    images: Images,
    *,
    store: PlanStore,
    accept: bool = False,
) -> Checked:
    """Compare what a bundle decides with its engines and with fp32 on the CPU, and record the outcome.

    Args:
        bundle: the fp32 bundle.
        precision: of the engines.
        graphs: the bundle's, as `graphs_of` gives them.
        plans: those of the graphs, in the same order.
        images: gives the images on which decisions are compared.
        store: where the plans are.
        accept: whether engines below the bar are used nevertheless.

    Raises:
        FgddError: the engines or the reference cannot run, or the store cannot be written.
    """
    if unchecked := why_unchecked(bundle):
        return Checked(tuple(plans), unchecked=unchecked)
    candidate = runtime_for(bundle, plans[0].key.flavour, precision)
    batch, single = image_batches(graphs[0])
    with trial(plans):
        parity = measure_parity(bundle, REFERENCE, candidate, images(bundle), batch=batch, single=single)
    figures = {**parity.as_json(), "batch": batch, "shortfalls": list(parity.shortfalls)}
    state: State = "passed" if parity.accepted else "accepted" if accept else "below bar"
    recorded = tuple(
        plan if _keeps_state(graph, plan, state) else store.record_parity(plan, figures, state)
        for graph, plan in zip(graphs, plans, strict=True)
    )
    return Checked(recorded, parity)


def verify_engines(
    plans: Sequence[Plan], here: Here, images: Images, *, store: PlanStore
) -> Iterator[Finding]:
    """Check stored plans against their hashes and this machine, and compare decisions again where they run.

    Args:
        plans: those to check.
        here: what runs on this machine.
        images: gives the images on which decisions are compared.
        store: where the plans are.
    """
    for plan in plans:
        try:
            words = _verify(plan, here, images, store)
        except FgddError as error:
            yield Finding(plan.path.name, error.problem, wrong=True)
        else:
            yield Finding(plan.path.name, words, wrong=False)


def _verify(plan: Plan, here: Here, images: Images, store: PlanStore) -> str:
    """What is to be said of a plan that is in order.

    Raises:
        FgddError: it is not.
    """
    check_content(plan)
    platform = here.get(plan.key.flavour)
    if platform is None:
        raise EngineError(f"{plan.key.flavour}, which runs it, is not installed")
    if differences := plan.key.platform.differences(platform):
        raise EngineError(f"it {' and '.join(differences)}")
    if outdated := why_outdated(plan):
        raise EngineError(outdated)
    bundle = load_bundle(plan.bundle)
    graphs = graphs_of(bundle, plan.key.flavour, plan.key.precision, plan.key.profile)
    if graphs[0].bundle.fingerprint != plan.key.model_sha256:
        return f"whole; a part of {bundle.name}"
    plans = tuple(_member(graph, plan, store) for graph in graphs)
    checked = check_engines(
        bundle,
        plan.key.precision,
        graphs,
        plans,
        images,
        store=store,
        accept=plan.state == "accepted",
    )
    if checked.parity is None:
        return f"whole; not compared with fp32, for {checked.unchecked}"
    state = checked.plans[0].state
    if state == "below bar":
        raise EngineError(f"its decisions differ too much: {'; '.join(checked.parity.shortfalls)}")
    return f"whole; {state}"


def _member(graph: Graph, plan: Plan, store: PlanStore) -> Plan:
    """The plan of a graph that belongs to the same bundle as another plan."""
    member = store.find_exact(graph.key(plan.key.platform))
    if member is None:
        raise EngineError(f"the engine of {graph.bundle.name}, which it runs with, is missing")
    return member


def _keeps_state(graph: Graph, plan: Plan, state: State) -> bool:
    """Whether a graph that other engines share is to keep what was found with those."""
    return graph.shared and state != "passed" and plan.state in USABLE
