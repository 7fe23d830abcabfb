"""The graphs of which engines are built for a bundle, and the batches that each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fgdd_engines.base import Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.tensorrt_backend.api import Flavour
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.plans.key import PlanKey, Platform
from fgdd_fast.errors import SettingsError
from fgdd_fast.models.factory import asked_by_class
from fgdd_fast.models.network import VIEWS_PER_INFERENCE
from fgdd_fast.runtime.choose import runtime_for

SINGLE = Profile(1, 1, 1)
DEFAULT_BATCH = Profile(1, 1, 8)
# A mask decoder on its own takes any number of boxes, an engine one: as many as Grounded SAM 2 by default.
BOXES = 8


@dataclass(frozen=True)
class Graph:
    """A graph of a bundle, as its engine is built.

    Attributes:
        bundle: the graph: of the bundle itself or of a part, or a variant in its place.
        profile: the samples that an inference takes.
        shared: whether it serves the bundle in any precision.
    """

    bundle: Bundle
    profile: Profile
    shared: bool = False

    @property
    def axes(self) -> Mapping[str, int]:
        """The lengths of its named axes other than the batch."""
        named = {axis for spec in self.bundle.inputs for axis in spec.shape if isinstance(axis, str)}
        preprocessing = self.bundle.preprocessing
        sizes = {"height": preprocessing.height, "width": preprocessing.width, "boxes": BOXES}
        return {axis: length for axis, length in sizes.items() if axis in named}

    def key(self, platform: Platform) -> PlanKey:
        """The key of its plan on a platform."""
        return PlanKey.of(self.bundle, platform, self.profile, self.axes)


def profile_of(bundle: Bundle, batch: Profile | None) -> Profile:
    """The samples that an inference of a bundle takes.

    Args:
        bundle: a teacher sees several views of each image.
        batch: images an inference; by default 1 to 8, and single ones for a model that is asked for classes
            by their names, which is large.
    """
    if batch is None:
        batch = SINGLE if asked_by_class(bundle) else DEFAULT_BATCH
    if bundle.role != "teacher":
        return batch
    return Profile(batch.minimum, batch.optimum * VIEWS_PER_INFERENCE, batch.maximum * VIEWS_PER_INFERENCE)


def image_batches(main: Graph) -> tuple[int, int]:
    """The largest and the smallest number of images that an inference of a bundle's own graph takes."""
    views = VIEWS_PER_INFERENCE if main.bundle.role == "teacher" else 1
    return main.profile.maximum // views, -(-main.profile.minimum // views)


def graphs_of(bundle: Bundle, flavour: Flavour, precision: Precision, profile: Profile) -> tuple[Graph, ...]:
    """The graphs that a bundle runs, its own first.

    A text encoder runs once a class: in fp32, a prompt at a time.

    Args:
        bundle: the fp32 bundle.
        flavour: which TensorRT is to run them.
        precision: in which; all but fp32 are variants.
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
    graphs = [Graph(variants.get(bundle.sha256, bundle), profile)]
    for part in (bundle.part(name) for name in bundle.parts):
        if part.role == "text-encoder":
            graphs.append(Graph(part, SINGLE, shared=True))
        else:
            graphs.append(Graph(variants.get(part.sha256, part), profile))
    return tuple(graphs)
