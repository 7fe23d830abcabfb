"""Open the implementations of a path: the one place that knows who runs what."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from types import ModuleType

from fgdd_bench.harness.implementation import SCORED, SEGMENTED, Implementation, Name, PathName, StageName
from fgdd_bench.harness.subject import Original, Subject, Task, mosaics_of
from fgdd_bench.machine.operations import Network, graph_operations, grounded_operations
from fgdd_bench.ours.mosaics import our_decoding, our_mosaics
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
    """Opens the implementations of every path.

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
        """Open one, with `load_seconds` set.

        Raises:
            FgddError: it cannot be opened, or a package that it needs is not installed.
        """
        begin = time.perf_counter()
        opened = self._open(name, path)
        opened.load_seconds = time.perf_counter() - begin
        return opened

    def open_fp32(self, path: PathName) -> Implementation:
        """Open this project's in fp32 in ONNX Runtime, for its decisions."""
        return replace(self, subject=replace(self.subject, runtime=self._reference)).open(path, "ours")

    def batch(self, path: PathName, name: Name) -> int | None:
        """Return the images that an opened one puts into one inference; None where nothing is batched."""
        if path not in ("foreground", "teacher"):
            return None
        own: dict[Name, int] = {"ours": self.subject.batch_along(path), "published": 1}
        return own.get(name) or self.batches[path, name]

    def networks(self, path: PathName, opened: Implementation) -> Mapping[StageName, Network]:
        """Return the networks that an opened one runs, by the stage that runs each."""
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

    def _open(self, name: Name, path: PathName, plan: Plan | None = None) -> Implementation:
        """Open one; to compose, of a plan that is given or of the subject's."""
        task, subject = self.task, self.subject
        if plan is not None:
            subject = replace(subject, plan=plan)
        if name != "ours":
            if path == "all":
                return WholeReference(name, task, self.originals, partial(self._open, name))
            batch = task.batch if name == "published" or path == "compose" else self._batch(path, name)
            return open_reference(path, name, replace(task, batch=batch), subject)
        if path == "decode":
            return our_decoding(task)
        if path == "compose":
            return our_mosaics(task, subject.given_plan())
        return OurPipeline(path, task, subject, mosaics_of(self.originals, task) if path == "all" else None)

    def _reference(self, bundle: Bundle) -> Runtime:
        """Return fp32 in ONNX Runtime; of a teacher its own graph, not its cropped-input form."""
        if bundle.tile_of is not None:
            raise SettingsError(f"{bundle.name} is compared with the teacher that it stands for")
        return replace(REFERENCE, threads=self.task.threads)

    def _batch(self, path: PathName, name: Name) -> int:
        """Return the reference's best, measured when it is first needed."""
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
    """Open a PyTorch reference along one piece of the work; see `ImplementationOpener.open`."""
    grounded = path == "foreground" and subject.grounded
    style = "published" if name == "published" else "fair"
    packages = ("transformers", "tokenizers") if grounded else ()
    module = reference_module(f"fgdd_bench.references.{'grounded.' * grounded}{style}", *packages)
    import_optional("torch", EXTRA).set_num_threads(task.threads)
    opened: Implementation = module.open_reference(path, task, subject, name)
    return opened


def reference_module(name: str, *packages: str) -> ModuleType:
    """Return a module of the references, for which PyTorch, Pillow and some packages must be installed."""
    for package in ("torch", "PIL", *packages):
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
                trials: list[float] = []
                tried = fewest if slow else images
                while len(trials) < TRIALS and sum(trials) < PATIENCE:
                    trials.append(_seconds(opened, tried))
        except EngineError:
            if not seconds:
                raise
            break
        seconds[batch] = min(trials) / max(1, len(tried))
        if seconds[batch] > WORSE * min(seconds.values()):
            break
    return min(seconds, key=seconds.__getitem__)


def _seconds(opened: Implementation, images: Sequence[SourceImage]) -> float:
    begin = time.perf_counter()
    opened.run(images)
    return time.perf_counter() - begin
