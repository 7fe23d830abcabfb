"""Open the implementations of a path: the one place that knows who runs what."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType

from fgdd_bench.harness.bench import Network
from fgdd_bench.harness.implementation import SCORED, SEGMENTED, Implementation, Name, PathName, StageName
from fgdd_bench.harness.subject import Original, Subject, Task, mosaics_of
from fgdd_bench.machine.operations import graph_operations, grounded_operations
from fgdd_bench.ours.mosaics import OurDecoding, OurMosaics
from fgdd_bench.ours.pipeline import OurPipeline
from fgdd_bench.references.whole import WholeReference
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.errors import BundleError, EngineError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.network import Runtime
from fgdd_fast.planning import Plan
from fgdd_fast.runtime.parity import REFERENCE

EXTRA = "bench"
TRIED = {"cpu": 8, "cuda": 128}  # images on which a reference's batch is chosen
CANDIDATES = {"cpu": (1, 2, 4), "cuda": (1, 2, 4, 8, 16, 32, 64)}
# Of Grounded SAM 2, an image of which takes seconds on a processor and a gigabyte on a GPU.
GROUNDED_CANDIDATES = {"cpu": (1, 2), "cuda": (1, 2, 4, 8, 16)}
TRIALS = 3  # of each batch; the fastest counts
PATIENCE = 5.0  # seconds; a batch whose trials have taken longer gets no further one
WORSE = 1.1  # times as slow an image as the best before: larger batches are not tried

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImplementationOpener:
    """Opens the implementations of every path; see `bench.Opener`.

    Attributes:
        task: what every implementation is given; the batch of the references is found here.
        subject: the models.
        originals: the images of the benchmark.
        batches: images that a reference puts into one inference, by path and name, once they are found.
    """

    task: Task
    subject: Subject
    originals: Sequence[Original]
    batches: dict[tuple[PathName, Name], int] = field(default_factory=dict)

    def open(self, path: PathName, name: Name) -> Implementation:
        """See `bench.Opener.open`.

        Raises:
            MissingExtraError: a package of the references is not installed.
            FgddError: it cannot be opened.
        """
        begin = time.perf_counter()
        opened = self._open(path, name, None)
        opened.load_seconds = time.perf_counter() - begin
        return opened

    def open_fp32(self, path: PathName) -> Implementation:
        """See `bench.Opener.open_fp32`."""
        return replace(self, subject=replace(self.subject, runtime=self._reference)).open(path, "ours")

    def batch(self, path: PathName, name: Name) -> int | None:
        """See `bench.Opener.batch`."""
        if path not in ("foreground", "teacher"):
            return None
        own: dict[Name, int] = {"ours": self.subject.batch, "published": 1}
        return own.get(name) or self.batches[path, name]

    def networks(self, path: PathName, opened: Implementation) -> Mapping[StageName, Network]:
        """See `bench.Opener.networks`."""
        networks: dict[StageName, Network] = {}
        if path in SEGMENTED and self.subject.grounded:
            bundle = self.subject.foreground_bundle(grounded=True)
            with suppress(BundleError):  # its weights are in other files
                works = grounded_operations(bundle)
                networks |= {stage: Network(bundle.onnx.stem, work, 1) for stage, work in works.items()}
        elif path in SEGMENTED:
            networks["saliency"] = _network(self.subject.foreground_bundle(), 1)
        if path in SCORED:
            teacher, _ = self.subject.known_teacher()
            tiles = opened.arithmetic.endswith("tiles")
            form = teacher.find_cropped_graph(self.task.tile_size) if tiles else None
            networks["teacher"] = _network(form or teacher, 1 + self.task.crops)
        return networks

    def _open(self, path: PathName, name: Name, plan: Plan | None) -> Implementation:
        """Open one; to compose, of a plan that is given or of the subject's."""
        task = self.task
        subject = self.subject if plan is None else replace(self.subject, plan=plan)
        if name == "ours":
            if path == "decode":
                return OurDecoding(task)
            if path == "compose":
                return OurMosaics(task, subject.given_plan())
            settings = mosaics_of(self.originals, task) if path == "all" else None
            return OurPipeline(path, task, subject, settings)
        if path == "all":
            settings = mosaics_of(self.originals, task)
            return WholeReference(
                name, task, self.originals, settings, lambda part, plan: self._open(part, name, plan)
            )
        if name != "published":
            task = replace(task, batch=self._batch(path, name))
        return open_reference(path, name, task, subject)

    def _reference(self, bundle: Bundle) -> Runtime:
        """Return fp32 in ONNX Runtime; of a teacher its own graph, not its cropped-input form."""
        if bundle.tile_of is not None:
            raise SettingsError(f"{bundle.name} is compared with the teacher that it stands for")
        return replace(REFERENCE, threads=self.task.threads)

    def _batch(self, path: PathName, name: Name) -> int:
        """Return the reference's best, measured when it is first needed."""
        if path == "compose":
            return 1  # it has no batches
        if (path, name) not in self.batches:
            grounded = path == "foreground" and self.subject.grounded
            if grounded and name == "compiled":
                return self.batches.setdefault((path, name), self._batch(path, "fair"))  # it takes minutes
            candidates = (GROUNDED_CANDIDATES if grounded else CANDIDATES)[self.task.device]
            count = candidates[-1] if grounded else TRIED[self.task.device]
            images = [original.image for original in self.originals[:count]]

            def open_with(batch: int) -> Implementation:
                return open_reference(path, name, replace(self.task, batch=batch), self.subject)

            self.batches[path, name] = fastest_batch(open_with, candidates, images)
        return self.batches[path, name]


def open_reference(path: PathName, name: Name, task: Task, subject: Subject) -> Implementation:
    """Open a PyTorch reference along one piece of the work.

    Raises:
        MissingExtraError: a package is not installed.
        FgddError: it cannot be opened.
    """
    opened: Implementation
    if path == "foreground" and subject.grounded:
        for package in ("transformers", "tokenizers"):
            import_optional(package, EXTRA)
        if name == "published":
            module = reference_module("fgdd_bench.references.grounded.published")
            opened = module.PublishedGrounded(task, subject)
        else:
            module = reference_module("fgdd_bench.references.grounded.fair")
            opened = module.FairGrounded(task, subject, name=name)
    elif name == "published":
        opened = reference_module("fgdd_bench.references.published").open_published(path, task, subject)
    else:
        opened = reference_module("fgdd_bench.references.fair").open_fair(path, task, subject, name=name)
    return opened


def reference_module(name: str) -> ModuleType:
    """Return a module of the PyTorch references.

    Raises:
        MissingExtraError: PyTorch or Pillow is not installed.
    """
    for package in ("torch", "PIL"):
        import_optional(package, EXTRA)
    return import_module(name)


def _network(bundle: Bundle, samples: int) -> Network:
    size = bundle.preprocessing
    return Network(bundle.onnx.stem, graph_operations(bundle, size.height, size.width), samples)


def fastest_batch(
    open_batch: Callable[[int], Implementation], candidates: Sequence[int], images: Sequence[SourceImage]
) -> int:
    """Find the batch at which an implementation is fastest, among those that fit into memory.

    Args:
        open_batch: opens it with a number of images in a batch.
        candidates: the numbers, ascending.
        images: what is tried; of a slow one no more than are needed for one whole batch of each number.

    Raises:
        EngineError: not even the first of the candidates fits.
    """
    seconds: dict[int, float] = {}
    fewest = images[: candidates[-1]]
    for batch in candidates:
        _log.info("Trying batches of %d", batch)
        try:
            with open_batch(batch) as opened:
                slow = _seconds(opened, fewest) > PATIENCE / TRIALS  # which warms it up, too
                seconds[batch] = _best_seconds(opened, fewest if slow else images)
        except EngineError:
            if not seconds:
                raise
            break
        if seconds[batch] > WORSE * min(seconds.values()):
            break
    return min(seconds, key=seconds.__getitem__)


def _best_seconds(opened: Implementation, images: Sequence[SourceImage]) -> float:
    """Return the seconds of an image in the fastest of some runs."""
    trials: list[float] = []
    while len(trials) < TRIALS and sum(trials) < PATIENCE:
        trials.append(_seconds(opened, images))
    return min(trials) / max(1, len(images))


def _seconds(opened: Implementation, images: Sequence[SourceImage]) -> float:
    begin = time.perf_counter()
    opened.run(images)
    return time.perf_counter() - begin
