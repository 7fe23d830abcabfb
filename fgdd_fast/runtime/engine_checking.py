"""The graphs of a bundle of which engines are built, and whether these decide as fp32 on the CPU does.

Kernels differ between GPUs, and what a lower precision loses shows in decisions: so they are compared on the
very device, and engines below the bar are kept out of use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle, Role, load_bundle
from fgdd_engines.tensorrt_backend.api import Flavour
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_engines.tensorrt_backend.plans.choice import trial
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, Platform
from fgdd_engines.tensorrt_backend.plans.sidecar import USABLE, State, check_content
from fgdd_engines.tensorrt_backend.plans.store import Plan, PlanStore
from fgdd_engines.tensorrt_backend.plans.usability import Here, find_gpu_of, why_outdated
from fgdd_fast.errors import EngineError, FgddError, SettingsError
from fgdd_fast.models.network import VIEWS_PER_INFERENCE
from fgdd_fast.runtime.batches import images_at_once, views_at_once
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.parity import Comparison
from fgdd_fast.runtime.sample_images import SampleImage
from fgdd_fast.runtime.tolerances import ParityReport

SINGLE = Profile(1, 1, 1)
# A mask decoder on its own takes any number of boxes, an engine one: as many as Grounded SAM 2 by default.
BOXES = 8
DECIDING_ROLES: tuple[Role, ...] = ("foreground", "teacher", "backbone")
Images = Callable[[Bundle], Sequence[SampleImage]]


@dataclass(frozen=True)
class Graph:
    """A graph of a bundle, as its engine is built.

    Attributes:
        bundle: the graph: of the bundle itself or of a part, or a variant in its place.
        profile: the samples that an inference takes.
        shared: whether it serves the bundle in any precision.
        tf32: whether products of fp32 numbers are computed in TF32.
    """

    bundle: Bundle
    profile: Profile
    shared: bool = False
    tf32: bool = False

    @property
    def axes(self) -> Mapping[str, int]:
        """The lengths of its named axes other than the batch."""
        named = {axis for spec in self.bundle.inputs for axis in spec.shape if isinstance(axis, str)}
        preprocessing = self.bundle.preprocessing
        sizes = {"height": preprocessing.height, "width": preprocessing.width, "boxes": BOXES}
        return {axis: length for axis, length in sizes.items() if axis in named}

    def key(self, platform: Platform) -> PlanKey:
        """Return the key of its plan on a platform."""
        precision: Precision = "tf32" if self.tf32 else self.bundle.precision
        return PlanKey.of(self.bundle, platform, self.profile, self.axes, precision)


def profile_of(bundle: Bundle, batch: Profile | None) -> Profile:
    """Return the samples that an inference of a bundle takes.

    Args:
        bundle: a teacher sees several views of each image.
        batch: images an inference; by default 1 to what is taken at once here, for which it is then tuned.
    """
    views = 0
    if batch is None:
        images = images_at_once(bundle, "tensorrt")
        batch, views = Profile(1, images, images), views_at_once("tensorrt")
    if bundle.role != "teacher":
        return batch
    most = max(batch.maximum * VIEWS_PER_INFERENCE, views)
    return Profile(batch.minimum, batch.optimum * VIEWS_PER_INFERENCE, most)


def image_batches(main: Graph) -> tuple[int, int]:
    """Return the largest and the smallest number of images that an inference of a bundle takes."""
    views = VIEWS_PER_INFERENCE if main.bundle.role == "teacher" else 1
    return main.profile.maximum // views, -(-main.profile.minimum // views)


def graphs_of(bundle: Bundle, flavour: Flavour, precision: Precision, profile: Profile) -> tuple[Graph, ...]:
    """Return the graphs that a bundle runs, its own first.

    A text encoder runs once a class: in fp32, a prompt at a time; in tf32 where all the others are.

    Args:
        bundle: the fp32 bundle.
        flavour: which TensorRT is to run them.
        precision: in which; all but fp32 and tf32 are variants.
        profile: samples an inference of the bundle's own graph.

    Raises:
        SettingsError: the bundle is a variant itself, or has none of this precision.
        BundleError: a part or a variant is damaged or missing.
    """
    if bundle.variant is not None:
        raise SettingsError(
            f"The bundle {bundle.onnx} is the {bundle.variant} variant of another",
            "Name the fp32 bundle, and the precision with --precision.",
        )
    variants = runtime_for(bundle, flavour, precision).variants
    tf32 = precision == "tf32"
    graphs = [Graph(variants.get(bundle.sha256, bundle), profile, tf32=tf32)]
    for part in (bundle.part(name) for name in bundle.parts):
        if part.role == "text-encoder":
            graphs.append(Graph(part, SINGLE, shared=not tf32, tf32=tf32))
        else:
            graphs.append(Graph(variants.get(part.sha256, part), profile, tf32=tf32))
    return tuple(graphs)


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
    """Return why the engines of a bundle cannot be compared here; empty where they can."""
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
    gpu: int = 0,
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
        gpu: the number of the GPU on which they run.
        accept: whether engines below the bar are used nevertheless.

    Raises:
        FgddError: the engines or the reference cannot run, or the store cannot be written.
    """
    if unchecked := why_unchecked(bundle):
        return Checked(tuple(plans), unchecked=unchecked)
    flavour = plans[0].key.flavour
    candidate = runtime_for(bundle, f"{flavour}:{gpu}" if gpu else flavour, precision)
    batch, single = image_batches(graphs[0])
    with trial(plans):
        parity = Comparison(bundle, images(bundle)).compare(candidate, batch=batch, single=single).parity
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
    platforms = here.get(plan.key.flavour)
    if platforms is None:
        raise EngineError(f"{plan.key.flavour}, which runs it, is not installed")
    gpu, differences = find_gpu_of(plan, platforms)
    if differences:
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
        gpu=gpu,
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
