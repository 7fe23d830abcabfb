"""Open the ways of a path: the one place that knows who runs what."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType
from typing import Any

from fgdd_bench.harness.batches import CANDIDATES, GROUNDED_CANDIDATES, fastest_batch
from fgdd_bench.harness.bench import Network
from fgdd_bench.harness.originals import Original, mosaic_settings
from fgdd_bench.harness.subject import Composition, Subject, saliency_of, teacher_of
from fgdd_bench.harness.ways import Column, PathName, StageName, Task, Way
from fgdd_bench.machine.operations import graph_operations, grounded_operations
from fgdd_bench.ours.small_networks import open_product
from fgdd_bench.ours.whole import WholeProduct, WholeReference
from fgdd_bench.references.grounded.subject import GroundedSubject
from fgdd_bench.references.grounded.ways import open_grounded
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.foreground import ForegroundChoice
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime.parity import REFERENCE

EXTRA = "bench"
TRIED = {"cpu": 8, "cuda": 128}  # images on which a reference's batch is chosen


@dataclass(frozen=True, kw_only=True)
class WayOpener:
    """Opens the ways of every path; see `bench.Opener`.

    Attributes:
        task: what every way is given; the batch of the references is found here.
        subject: the models; without a foreground model where `grounded` is it.
        grounded: the foreground model, where it is Grounded SAM 2.
        originals: the images of the benchmark.
        size: side of a mosaic in pixels.
        batches: images that a reference puts into one inference, by path and column, once they are found.
    """

    task: Task
    subject: Subject
    grounded: GroundedSubject | None
    originals: Sequence[Original]
    size: int
    batches: dict[tuple[PathName, Column], int] = field(default_factory=dict)

    def open(self, path: PathName, column: Column, tell: Callable[[str], None] = lambda _: None) -> Way:
        """See `bench.Opener.open`.

        Raises:
            MissingExtraError: a package of the references is not installed.
            FgddError: the way cannot be opened.
        """
        if path == "all":
            return self._whole(column, tell)
        return self._part(path, None, column=column, tell=tell)

    def open_fp32(self, path: PathName) -> Way:
        """See `bench.Opener.open_fp32`."""
        grounded = self.grounded
        if grounded is not None:
            grounded = replace(grounded, runtime=self._reference(grounded.bundle))
        subject = replace(self.subject, runtime=self._reference)
        return replace(self, subject=subject, grounded=grounded).open(path, "product")

    def batch(self, path: PathName, column: Column) -> int | None:
        """See `bench.Opener.batch`."""
        if path not in ("foreground", "teacher"):
            return None
        own: dict[Column, int] = {"product": self.subject.batch, "published": 1}
        return own.get(column) or self.batches[path, column]

    def networks(self, path: PathName, way: Way) -> Mapping[StageName, Network]:
        """See `bench.Opener.networks`."""
        networks: dict[StageName, Network] = {}
        if path in ("foreground", "all") and self.grounded is not None:
            with suppress(BundleError):  # its weights are in other files
                bundle = self.grounded.bundle
                works = grounded_operations(bundle)
                networks |= {stage: Network(bundle.onnx.stem, work, 1) for stage, work in works.items()}
        elif path in ("foreground", "all"):
            networks["saliency"] = _network(saliency_of(self.subject), 1)
        if path in ("teacher", "all"):
            teacher, _ = teacher_of(self.subject)
            form = (
                teacher.find_cropped_graph(self.task.tile_size) if way.arithmetic.endswith("tiles") else None
            )
            networks["teacher"] = _network(form or teacher, 1 + self.task.crops)
        return networks

    @property
    def _images(self) -> list[SourceImage]:
        return [original.image for original in self.originals]

    def _whole(self, column: Column, tell: Callable[[str], None]) -> Way:
        """The whole of the work."""
        begin = time.perf_counter()
        settings = mosaic_settings(self.originals, self.task, self.size)
        way: Way
        if column == "product":
            way = WholeProduct(self.task, self.subject, self._choice(), settings, self._part)
        else:

            def open_part(path: PathName, composition: Composition | None) -> Way:
                return self._part(path, composition, column=column, tell=tell)

            way = WholeReference(column, self.task, self.originals, settings, open_part)
        way.load_seconds = time.perf_counter() - begin
        return way

    def _choice(self) -> ForegroundChoice:
        """The foreground model as the pipeline is asked for it."""
        if self.grounded is None:
            return ForegroundChoice(saliency_of(self.subject), self.subject.classes)
        grounded = self.grounded
        return ForegroundChoice(grounded.bundle, grounded.classes, grounded.prompts, grounded.box_threshold)

    def _part(
        self,
        path: PathName,
        composition: Composition | None,
        *,
        column: Column = "product",
        tell: Callable[[str], None] = lambda _: None,
    ) -> Way:
        """A way along a part of the whole, with other mosaics to compose where they are given."""
        subject = self.subject if composition is None else replace(self.subject, composition=composition)
        task = self.task
        if column in ("fair", "compiled"):
            task = replace(task, batch=self._batch(path, column, tell))
        if path == "foreground" and self.grounded is not None:
            return open_grounded(column, task, self.grounded)
        way: Way
        if column == "product":
            way = open_product(path, task, subject)
        elif column == "published":
            way = reference_module("fgdd_bench.references.published").open_published(path, task, subject)
        else:
            way = reference_module("fgdd_bench.references.fair").open_fair(
                path, task, subject, compile=column == "compiled"
            )
        return way

    def _reference(self, bundle: Bundle) -> Runtime:
        """fp32 in ONNX Runtime; of a teacher its own graph, not its cropped-input graph."""
        if bundle.tile_of is not None:
            raise SettingsError(f"{bundle.name} is held against the teacher that it stands for")
        return replace(REFERENCE, threads=self.task.threads)

    def _batch(self, path: PathName, column: Column, tell: Callable[[str], None]) -> int:
        """The reference's best, measured when it is first needed."""
        if (path, column) not in self.batches:
            self.batches[path, column] = self._measured_batch(path, column, tell)
        return self.batches[path, column]

    def _measured_batch(self, path: PathName, column: Column, tell: Callable[[str], None]) -> int:
        device = self.task.device
        images = self._images[: TRIED[device]]
        if path == "compose":
            return 1  # it has no batches
        if path != "foreground" or self.grounded is None:
            fair = reference_module("fgdd_bench.references.fair")

            def open_network(batch: int) -> Way:
                task = replace(self.task, batch=batch)
                way: Way = fair.open_fair(path, task, self.subject, compile=column == "compiled")
                return way

            return fastest_batch(open_network, CANDIDATES[device], images, tell)
        if column == "compiled":
            return self._batch(path, "fair", tell)  # to compile these networks takes minutes
        grounded, candidates = self.grounded, GROUNDED_CANDIDATES[device]

        def open_grounded_fair(batch: int) -> Way:
            return open_grounded("fair", replace(self.task, batch=batch), grounded)

        return fastest_batch(open_grounded_fair, candidates, images[: candidates[-1]], tell)


def reference_module(name: str) -> ModuleType:
    """A module of the PyTorch references.

    Raises:
        MissingExtraError: PyTorch or Pillow is not installed.
    """
    for package in ("torch", "PIL"):
        import_optional(package, EXTRA)
    return import_module(name)


def _network(bundle: Bundle, samples: int) -> Network:
    size = bundle.preprocessing
    return Network(bundle.onnx.stem, graph_operations(bundle, size.height, size.width), samples)


def model_facts(bundle: Bundle, runtime: Runtime) -> dict[str, Any]:
    """What a result says of a model that the product ran: its name, and the hashes of all that it is."""
    graph = runtime.variants.get(bundle.sha256, bundle)
    engines = [
        plan.sha256
        for plan in PlanStore().list()
        if (plan.key.flavour, plan.key.model_sha256) == (runtime.device, graph.fingerprint)
    ]
    return {
        "name": bundle.onnx.stem,
        "sha256": bundle.sha256,
        "parts": dict(bundle.parts),
        "variant": graph.variant,
        "variant_sha256": None if graph is bundle else graph.sha256,
        "asked": f"{runtime.device} {runtime.precision}",
        "engines": engines,
    }
