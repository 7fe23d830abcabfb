"""Checks of the whole way from files to an answer: stages, the host alone, PyTorch beside it, `auto`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from fgdd_bench.gpu_check.kit import GROUNDED, SALIENCY, TEACHER, Kit
from fgdd_bench.gpu_check.registry import Case, Found, check
from fgdd_bench.harness.bench import measure_path
from fgdd_bench.harness.implementation import Implementation, PathName, ReferenceName, StageName
from fgdd_bench.harness.opening import ImplementationOpener
from fgdd_bench.harness.result import Limits, path_result
from fgdd_bench.harness.subject import Subject, Task, choose_originals
from fgdd_bench.machine.ceilings import opencv_decode_rate
from fgdd_bench.machine.operations import Network
from fgdd_engines.backends import find_backend
from fgdd_fast.images.dataset import DataSet, scan
from fgdd_fast.images.tiles import default_view
from fgdd_fast.models.factory import choose_foreground
from fgdd_fast.runtime.batches import images_at_once
from fgdd_fast.runtime.choose import available_processors, choose_runtime, runtime_for

TURNS = 2
FEW = 4  # classes, of whose images one mosaic is made, where a processor does the work
_PATHS: dict[str, PathName] = {
    TEACHER: "teacher",
    SALIENCY: "foreground",
    GROUNDED: "foreground",
    "all": "all",
}


@check("from files to the answer decisions are those of fp32; the time of each stage", seconds=90)
def stages(kit: Kit, case: Case) -> Found:
    """Time the whole way and each of its stages."""
    return _measure(kit, case)


@check("how fast the host is alone, with a device that takes no time", seconds=60)
def host(kit: Kit, case: Case) -> Found:
    """Time the whole way on the null device."""
    return _measure(kit, case)


@check("in turns with PyTorch in lower precision, batched, with worker processes", seconds=90)
def fair(kit: Kit, case: Case) -> Found:
    """Time the whole way in turns with a good engineer's PyTorch."""
    return _measure(kit, case, ("fair",))


@check("in turns with the same PyTorch, compiled", seconds=150)
def compiled(kit: Kit, case: Case) -> Found:
    """Time the whole way in turns with compiled PyTorch."""
    return _measure(kit, case, ("compiled",))


@check("--device auto takes a way that decides as fp32 does", seconds=120)
def auto(kit: Kit, case: Case) -> Found:
    """Let `auto` compare and time all ways here."""
    choice = choose_runtime(kit.bundle(case.subject), "auto", "auto", available_processors())
    return Found(f"{choice.runtime.device} {choice.runtime.precision}", {"reason": choice.reason})


class _Opener(ImplementationOpener):
    """Does not count the arithmetic of networks, which takes the package `onnx`, and a while."""

    def networks(self, path: PathName, opened: Implementation) -> Mapping[StageName, Network]:  # noqa: ARG002
        return {}


def _measure(kit: Kit, case: Case, references: Sequence[ReferenceName] = ()) -> Found:
    path = _PATHS[case.subject]
    with TemporaryDirectory() as folder:
        opener = _opener(kit, case, Path(folder) if references else None)
        # This project's batch; `fgdd-fast bench` looks for the reference's own best, which takes a minute.
        opener.batches.update({(path, name): opener.subject.batch_along(path) for name in references})
        # Of random networks near-ties fall either way, and the null device answers by rote.
        compared = case.subject != GROUNDED and not find_backend(case.device).only_copies
        measured = measure_path(path, opener, references, repeats=TURNS, compared=compared)
    if not compared:
        measured = replace(measured, comparisons=())
    files = [original.image.path for original in opener.originals]
    result = path_result(measured, opener.task, Limits(opencv_decode_rate(files), {}))
    found = result["implementations"]
    rates = [f"{name} {one['images_per_second']['median']:.4g}" for name, one in found.items()]
    busy, bound = found["ours"]["device_busy"], found["ours"]["bound_by"]
    words = f"images/s: {', '.join(rates)}; bound by {bound}" + (f", GPU {busy:.0%} busy" if busy else "")
    return Found(words, result, measured.failures)


def _opener(kit: Kit, case: Case, checkpoints: Path | None) -> ImplementationOpener:
    """What opens this project's way on a device, and the references' beside it."""
    grounded, backend = case.subject == GROUNDED, find_backend(case.device)
    dataset = scan(kit.folder / "scenes" if grounded else kit.photographs)
    classes = dataset.classes[: FEW if backend.on_processor else None]
    images = tuple(image for image in dataset.images if image.class_name in classes)
    count = len(classes) * Task().factor ** 2 if backend.on_processor else len(images)
    originals, _ = choose_originals(DataSet(dataset.root, classes, images, ()), count, 0)
    foreground, teacher = kit.bundle(GROUNDED if grounded else SALIENCY), kit.bundle(TEACHER)
    written: tuple[str, str] | None = None
    if grounded and checkpoints is not None:
        networks = import_module("fgdd_bench.references.grounded.random_networks")
        detector, segmenter = networks.write_checkpoints(checkpoints, "tiny", "tiny")
        written = str(detector), str(segmenter)
    threads = available_processors()
    subject = Subject(
        classes=classes,
        runtime=lambda bundle: replace(runtime_for(bundle, case.device, "auto"), threads=threads),
        foreground=choose_foreground(str(foreground.onnx), classes),
        checkpoints=written,
        teacher=teacher,
        batch=images_at_once(foreground, case.device),
        scored=images_at_once(teacher, case.device),
    )
    view = default_view(Task().tile_size, teacher.preprocessing.width)
    on_processor = backend.on_processor or backend.only_copies
    task = Task(view=view, threads=threads, device="cpu" if on_processor else "cuda")
    return _Opener(task=task, subject=subject, originals=originals)
