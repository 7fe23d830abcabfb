"""Choose how a bundle runs: on what was asked for, or on the fastest that decides as the reference does.

The reference is ONNX Runtime on the CPU, in fp32. All that really runs here is compared with it on drawn
pictures, once for each bundle, its variants, and what is installed; the cache keeps the verdict.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar

import fgdd_fast
from fgdd_engines.backends import all_devices, find_backend
from fgdd_engines.base import Device, Precision
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.bundle.files import write_file
from fgdd_engines.paths import cache_folder
from fgdd_engines.probing.probes import Probe, probe
from fgdd_engines.progress import SILENT, Progress
from fgdd_fast.errors import EngineError, FgddError, MissingExtraError, SettingsError
from fgdd_fast.models.network import Runtime
from fgdd_fast.runtime.batches import Batch, images_at_once
from fgdd_fast.runtime.machine import read_machine
from fgdd_fast.runtime.parity import REFERENCE
from fgdd_fast.runtime.trials import RULES, Trial, comparison_images, read_trials, read_tuning, try_all
from fgdd_fast.runtime.variants import find_variants, variant_name

Requested = str  # a device's name, or `auto`

_log = logging.getLogger(__name__)


def available_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How the models of a task are to be run.

    Attributes:
        device: a backend's name, or `auto`: the fastest whose decisions agree with the reference's.
        precision: of the arithmetic, or `auto`.
        threads: processor threads, at least 1; all processors that this process may use by default.
        batch: images an inference, at least 1, or `auto`: 1 on a processor, more on a GPU, by the network's
            role. With another one everything is measured anew.
        executor: `ray`, or `ray:ADDRESS`, has the workers of a Ray cluster measure, instead of this process;
            see `docs/scaling.md`.
        one_foreground_stream: whether all threads run one inference of the foreground model at a time, which
            gives the same in less memory, and little slower.
    """

    for_speed_alone: ClassVar[bool] = False  # whether a device will do that computes nothing

    device: Requested = "auto"
    precision: Precision = "auto"
    threads: int = field(default_factory=available_processors)
    batch: Batch = "auto"
    executor: str | None = None
    one_foreground_stream: bool = False


@dataclass(frozen=True)
class Choice:
    """How a bundle runs, and why.

    Attributes:
        runtime: device, precision, threads and variants.
        reason: one sentence for reports.
    """

    runtime: Runtime
    reason: str


def runtime_of(bundle: Bundle, options: RuntimeOptions, progress: Progress = SILENT) -> Runtime:
    """Return how a bundle runs, as `choose_runtime` finds it, and log why.

    Args:
        bundle: the model, in fp32.
        options: what is asked for.
        progress: told that this is found out.

    Raises:
        FgddError: nothing here can run the bundle as asked; or the device computes nothing.
    """
    if options.device != "auto" and find_backend(options.device).only_copies and not options.for_speed_alone:
        raise SettingsError(
            f"The device {options.device} computes nothing, so its results would mean nothing",
            f"It measures the host: fgdd-fast bench DATA --device {options.device}",
        )
    with progress.task(f"Choosing how to run {bundle.onnx.stem}"):
        choice = choose_runtime(bundle, options.device, options.precision, options.threads, options.batch)
    _log.info("%s: %s (%s)", bundle.onnx.stem, choice.runtime.device, choice.reason)
    return replace(choice.runtime, one_stream=options.one_foreground_stream and bundle.role != "teacher")


def batch_of(source: object, options: RuntimeOptions) -> int:
    """Return how many images an inference of a model takes, run as `runtime_of` finds it.

    Args:
        source: the model's bundle; what is no bundle, such as a folder of masks, takes single images.
        options: what is asked for.

    Raises:
        FgddError: nothing here can run the bundle as asked.
    """
    if options.batch != "auto":
        return options.batch
    if not isinstance(source, Bundle):
        return 1
    device = options.device
    if device == "auto":
        device = find_candidates(source, options.precision)[0].device
        if not find_backend(device).on_processor:  # which may be found not to agree
            device = choose_runtime(source, "auto", options.precision, options.threads).runtime.device
    return images_at_once(source, device)


def choose_runtime(
    bundle: Bundle,
    device: Requested,
    precision: Precision,
    threads: int,
    batch: Batch = "auto",
) -> Choice:
    """Return how to run a bundle, and log what takes long.

    Args:
        bundle: the model, in fp32.
        device: one to be taken as it is, or `auto`.
        precision: likewise.
        threads: processor threads.
        batch: images an inference, at which ways to run it are compared and timed.

    Raises:
        SettingsError: the device does not compute in this precision, or the bundle has no such variant.
        MissingExtraError: no runtime is installed.
        EngineError: nothing here can run the bundle as asked.
    """
    if device != "auto":
        runtime = runtime_for(bundle, device, precision)
        return Choice(replace(runtime, threads=threads), "asked for")
    candidates = find_candidates(bundle, precision)
    # A GPU is compared with the reference even if it is the only way; without the reference nothing can be.
    alone = len(candidates) == 1 and find_backend(candidates[0].device).on_processor
    if alone or not probe("cpu").runs:
        return Choice(replace(candidates[0], threads=threads), "not compared with any other way here")
    try:
        trials, on = _tuned_trials(bundle, candidates, batch)
        trials = trials or _remembered_trials(bundle, candidates, batch)
    except SettingsError as error:  # the drawn pictures are nothing that this model can be asked about
        return Choice(replace(REFERENCE, threads=threads), f"compared with nothing else: {error.problem}")
    chosen, reason = _choose(trials, precision)
    reason = on + reason
    runtime = next((way for way in candidates if (way.device, way.precision) == chosen), REFERENCE)
    return Choice(replace(runtime, threads=threads), reason)


def runtime_for(bundle: Bundle, device: Device, precision: Precision) -> Runtime:
    """Return a device as it was asked for, with one thread.

    Where no precision is named, OpenVINO takes bf16 if the processor computes in it, a GPU the fp16 variant
    if there is one, and everything else fp32.

    Raises:
        SettingsError: the device does not compute in this precision, or the bundle has no such variant.
    """
    backend = find_backend(device)
    if precision == "auto" and not backend.lowers_fp32:
        fp16 = bundle.find_variant("fp16") if "fp16" in backend.variants else None
        precision = "fp32" if fp16 is None else "fp16"
    return Runtime(device, precision, 1, find_variants(bundle, variant_name(device, precision)))


def find_candidates(bundle: Bundle, precision: Precision = "auto") -> list[Runtime]:
    """Return every way to run a bundle here that exists, each with one thread.

    Raises:
        FgddError: there is none.
    """
    candidates = [way for device in devices_here() for way in _ways(bundle, device, precision)]
    if candidates:
        return candidates
    raise SettingsError(
        f"Nothing here runs {bundle.name} in {precision}", "Leave --precision out, or name a --device."
    )


def devices_here() -> list[Device]:
    """Return the devices that `auto` considers: those on a GPU where one runs, else the processor's.

    Raises:
        FgddError: nothing runs here.
    """
    probes = [probe(device) for device in all_devices()]
    running = [found.device for found in probes if found.runs]
    if not running:
        raise _nothing_runs(probes)
    return [device for device in running if not find_backend(device).on_processor] or running


def _ways(bundle: Bundle, device: Device, precision: Precision) -> list[Runtime]:
    backend = find_backend(device)
    wanted = tuple(backend.variants) if precision == "auto" else (precision,)
    ways = []
    for each in wanted:
        try:
            way = runtime_for(bundle, device, each)
        except SettingsError:
            continue  # no such variant, or not this device's precision
        if backend.built is None or _built(bundle, way):
            ways.append(way)
    return ways


def _built(bundle: Bundle, way: Runtime) -> list[str]:
    """What was built for a way to run a bundle, where its device needs that: hashes and states."""
    built = find_backend(way.device).built
    return [] if built is None else list(built(way.variants.get(bundle.sha256, bundle), way.precision))


def _nothing_runs(probes: Sequence[Probe]) -> FgddError:
    reference = next(found for found in probes if found.device == "cpu")
    if "fgdd-fast[" in reference.advice:
        return MissingExtraError("onnxruntime", "cpu")
    return EngineError(f"No runtime runs here: {reference.detail}", "Run: fgdd-fast doctor")


def _choose(trials: Sequence[Trial], precision: Precision) -> tuple[tuple[Device, Precision], str]:
    """The fastest trial whose decisions agree, and why it was taken."""
    accepted = [trial for trial in trials if not trial.shortfalls]
    if not accepted:
        first = trials[0]
        if precision in ("auto", "fp32"):
            return ("cpu", "fp32"), f"nothing was shown to decide alike: {'; '.join(first.shortfalls)}"
        raise EngineError(
            f"Nothing here runs this model in the precision {precision} with the decisions of fp32: "
            f"{first.name}: {'; '.join(first.shortfalls)}",
            "Leave --precision out, or name a --device to take it nevertheless.",
        )
    best = max(accepted, key=lambda trial: trial.images_per_second)
    others = [
        f"{trial.name}: {'; '.join(trial.shortfalls)}"
        if trial.shortfalls
        else f"{trial.name}: {trial.images_per_second / best.images_per_second:.2f} of its speed"
        for trial in trials
        if trial is not best
    ]
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.2g}" for name, value in _telling(best.figures))
    reason = (
        f"{best.precision}, the fastest that decides as the reference does ({figures}); {', '.join(others)}"
    )
    return (best.device, best.precision), reason


def _telling(figures: Mapping[str, float]) -> list[tuple[str, float]]:
    names = ("mean_occupancy_error", "mean_regret", "mean_cosine_distance")
    return [(name, figures[name]) for name in names if name in figures]


def _tuned_trials(bundle: Bundle, candidates: Sequence[Runtime], batch: Batch) -> tuple[list[Trial], str]:
    """What `fgdd-fast tune` found out about these ways on this machine, and a word on it; else nothing."""
    images, trials = read_tuning(bundle, lambda: verdict_key(bundle, find_candidates(bundle), batch))
    ways = {(way.device, way.precision) for way in candidates}
    found = [one for one in trials if (one.device, one.precision) in ways]
    return found, f"tuned on {images}: " if found else ""


def _remembered_trials(bundle: Bundle, candidates: Sequence[Runtime], batch: Batch) -> list[Trial]:
    path = cache_folder() / "agreement" / f"{verdict_key(bundle, candidates, batch)}.json"
    try:
        return read_trials(path.read_bytes())
    except (OSError, ValueError, TypeError):
        _log.info("%s: comparing what can run it here, once", bundle.name)
        trials = try_all(bundle, candidates, comparison_images(bundle), batch)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps([asdict(trial) for trial in trials]).encode())
    except OSError:
        pass  # the next run compares again
    return trials


def verdict_key(bundle: Bundle, candidates: Sequence[Runtime], batch: Batch = "auto") -> str:
    """Return all that a verdict depends on. A probe's words say what it ran on, with the version."""
    ways = [
        (
            way.device,
            way.precision,
            sorted(graph.sha256 for graph in way.variants.values()),
            _built(bundle, way),
            images_at_once(bundle, way.device, batch),
        )
        for way in candidates
    ]
    here = read_machine()
    machine = [here.processor, here.vector_units, *(probe(way.device).detail for way in candidates)]
    network = bundle.fingerprint, sorted(bundle.parts.items())
    parts = fgdd_fast.__version__, network, ways, machine, RULES
    return hashlib.sha256(repr(parts).encode()).hexdigest()
