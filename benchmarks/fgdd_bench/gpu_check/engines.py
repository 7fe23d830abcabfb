"""Checks of engines: that they open, decide as fp32 on a CPU, and answer alike however they are called."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import cycle, islice

import numpy as np

from fgdd_bench.gpu_check.kit import Kit
from fgdd_bench.gpu_check.registry import AbsentError, Case, Found, check
from fgdd_bench.harness.timing import time_run
from fgdd_bench.machine.environment import read_gpus
from fgdd_engines.backends import find_backend, split_device
from fgdd_engines.base import Array, Engine
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.onnxruntime_backend.cuda import CudaEngine
from fgdd_engines.probing.probes import probe
from fgdd_engines.tensorrt_backend.cuda_device import STREAMS
from fgdd_engines.tensorrt_backend.plans.store import PlanStore
from fgdd_fast.errors import EngineError
from fgdd_fast.models.factory import asked_by_class, choose_as_exported
from fgdd_fast.models.grounded_sam2 import GroundedSam2, TextEncoder
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Runtime
from fgdd_fast.runtime.batches import images_at_once
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.engine_building import BuildSettings, build_engines
from fgdd_fast.runtime.sample_images import sample_feeds
from fgdd_fast.runtime.tolerances import ParityReport

ALIKE = 1e-3  # of an output's spread: the same kernels may differ by less, if at all; stale inputs do by more
LEAK = 64 << 20  # bytes that a runtime may keep of an engine which was closed
SECONDS = 1.0  # of calls that are timed

Feeds = Mapping[str, Array]


@check("the device runs a tiny model", seconds=120)
def opens(_: Kit, case: Case) -> Found:
    """Ask the device's own probe."""
    found = probe(case.device)
    if not found.runs:
        raise AbsentError(found.detail, found.advice)
    return Found(found.detail)


@check("engines are built in the precision asked for, and decide as fp32 does where they run", seconds=180)
def builds(kit: Kit, case: Case) -> Found:
    """Build the engines of a bundle, as `fgdd-fast engine build` does."""
    bundle = kit.bundle(case.subject)
    settings = BuildSettings(device=case.device, precision=case.precision, force=asked_by_class(bundle))
    built = build_engines(bundle, settings, kit.images, store=PlanStore())
    states = [plan.state for plan in built.plans]
    figures = {"states": states, "unchecked": built.unchecked}
    if built.parity is None:
        return Found(f"{len(states)} built, {states[0]}", figures)
    return Found(
        f"{len(states)} built, {states[0]}", figures | built.parity.as_json(), _wrong(bundle, built.parity)
    )


@check("decisions are those of fp32 on a CPU, in whole batches and one by one", seconds=60)
def decides(kit: Kit, case: Case) -> Found:
    """Compare decisions with those that the kit brings."""
    bundle = kit.bundle(case.subject)
    batch, runtime = images_at_once(bundle, case.device), runtime_for(bundle, case.device, case.precision)
    found = kit.comparison(case.subject).compare(runtime, batch=batch)
    figures = {"batch": batch, "images_per_second": found.images_per_second, "arithmetic": found.arithmetic}
    words = f"{found.images_per_second:.4g} images/s a stream at batch {batch}"
    return Found(words, figures | found.parity.as_json(), _wrong(bundle, found.parity))


def _wrong(bundle: Bundle, parity: ParityReport) -> Sequence[str]:
    """What is not accepted. In lower precision near-ties of random networks fall either way."""
    random = asked_by_class(bundle) and parity.level == "lower precision"
    return () if random and np.isfinite(parity.excess) else parity.shortfalls


@check("a recorded CUDA graph answers changed inputs as launches without one do", seconds=90)
def graphs(kit: Kit, case: Case) -> Found:
    """Answer inputs in turn by a recorded graph, and each by an engine that has not recorded any."""
    pair = _two_inputs(kit, case)
    plain = []
    for feeds in pair:  # a first call, before which no engine of TensorRT's has a graph
        with _engine(kit, case, streams=1, recorded=False) as engine:
            plain.append(engine.run(feeds))
    with _engine(kit, case, streams=1) as engine:
        differences = [_difference(plain[place], engine.run(pair[place])) for place in (0, 1, 0, 1)]
        recorded, places = engine.uses_cuda_graphs, getattr(engine, "placement", {})
    between = _difference(*plain)
    if recorded is None:
        raise AbsentError("No CUDA graphs are recorded here")
    figures = {"recorded": recorded, "differences": differences, "between_inputs": between}
    wrong = [f"answers differ by {max(differences):.3g} of their spread"] * (max(differences) > ALIKE)
    wrong += ["both inputs are answered alike, so nothing was shown"] * (between <= ALIKE)
    counts = {name.removesuffix("ExecutionProvider"): sum(nodes.values()) for name, nodes in places.items()}
    words = [
        "recorded" if recorded else "not recorded",
        *(f"{counts[name]} nodes on {name}" for name in counts),
    ]
    return Found(", ".join(words), figures | {"placement": places}, wrong)


@check("two calls at once answer as one after the other", seconds=60)
def streams(kit: Kit, case: Case) -> Found:
    """Answer two inputs again and again, in one thread and in two."""
    pair = _two_inputs(kit, case)
    with _engine(kit, case) as engine:
        alone = [engine.run(feeds) for feeds in pair]
        one, _ = _rate(engine, pair, threads=1)
        two, answers = _rate(engine, pair, threads=STREAMS)
    worst = max(_difference(alone[place % 2], answer) for place, answer in enumerate(answers))
    wrong = [f"answers differ by {worst:.3g} of their spread"] * (worst > ALIKE)
    return Found(f"{two / one:.2f} times as fast as one", {"gain": two / one, "difference": worst}, wrong)


@check("closing an engine gives its memory back", seconds=90)
def memory(kit: Kit, case: Case) -> Found:
    """Open, run and close an engine three times, and see how much of the GPU's memory is in use."""
    feeds = _two_inputs(kit, case)[0]
    used = [_used(case)]
    for _ in range(3):
        with _engine(kit, case) as engine:
            engine.run(feeds)
            used.append(_used(case))
        used.append(_used(case))
    grown = used[-1] - used[2]
    wrong = [f"{grown >> 20} MiB more are in use after two further times"] * (grown > LEAK)
    return Found(f"{(used[1] - used[0]) >> 20} MiB in use", {"before_opened_closed": used}, wrong)


@check("batches from one image to four times the usual run, two at once", seconds=60)
def batches(kit: Kit, case: Case) -> Found:
    """Time engines of several batches."""
    bundle, backend = kit.bundle(case.subject), find_backend(case.device)
    usual = images_at_once(bundle, case.device)
    any_batch = backend.built is None and not backend.on_processor
    rates: dict[int, float] = {}
    problem = ""
    for images in sorted({1, max(usual // 4, 1), usual, usual * (4 if any_batch else 1)}):
        try:
            with _engine(kit, case, images) as engine:
                rates[images] = _rate(engine, [_feeds(kit, bundle, images)], threads=STREAMS)[0] * images
        except EngineError as error:  # such as no memory for the largest
            problem = f"{images} images: {error.problem}"
    words = ", ".join(f"{rate:.4g} at {images}" for images, rate in rates.items())
    figures = {"images_per_second": rates, "problem": problem}
    return Found(f"images/s: {words}", figures, [problem] * (usual not in rates))


def _rate(engine: Engine, feeds: Sequence[Feeds], *, threads: int) -> tuple[float, list[dict[str, Array]]]:
    """Calls a second with the feeds in turn, and their answers."""
    engine.run(feeds[0])
    calls = max(2 * STREAMS, round(SECONDS / time_run(lambda: engine.run(feeds[0]))[0].seconds))
    with ThreadPoolExecutor(threads) as executor:
        sample, answers = time_run(lambda: [*executor.map(engine.run, islice(cycle(feeds), calls))])
    return calls / sample.seconds, answers


def _engine(
    kit: Kit, case: Case, images: int | None = None, *, streams: int = STREAMS, recorded: bool = True
) -> Engine:
    """Open the engine of a bundle's own graph; by default at the batch that its device likes."""
    bundle = kit.bundle(case.subject)
    runtime = runtime_for(bundle, case.device, case.precision)
    graph, size = runtime.variants.get(bundle.sha256, bundle), bundle.preprocessing
    batch = _samples(bundle, images or images_at_once(bundle, case.device))
    lengths = {"batch": batch, "height": size.height, "width": size.width}
    named = {axis for spec in bundle.inputs for axis in spec.shape}
    axes = {axis: length for axis, length in lengths.items() if axis in named}
    name, gpu = split_device(case.device)
    if name == "cuda" and not recorded:
        return CudaEngine(graph, axes, streams=1, tf32=runtime.precision == "tf32", gpu=gpu, graphs=False)
    return open_engine(graph, device=case.device, precision=runtime.precision, axes=axes, threads=streams)


def _samples(bundle: Bundle, images: int) -> int:
    return images * (VIEWS_PER_INFERENCE if bundle.role == "teacher" else 1)


def _two_inputs(kit: Kit, case: Case) -> tuple[Feeds, Feeds]:
    """Two whole batches that have no sample at the same place."""
    bundle = kit.bundle(case.subject)
    images = images_at_once(bundle, case.device)
    return _feeds(kit, bundle, images), _feeds(kit, bundle, images, shift=1)


def _feeds(kit: Kit, bundle: Bundle, images: int, shift: int = 0) -> Feeds:
    """A batch of the kit's images, as the pipeline feeds them."""
    shown = kit.images(bundle)
    samples = _asked_feeds(kit, bundle) if asked_by_class(bundle) else sample_feeds(bundle, shown)
    chosen = [*islice(cycle(samples), shift, shift + _samples(bundle, images))]
    return {name: np.concatenate([sample[name] for sample in chosen]) for name in chosen[0]}


def _asked_feeds(kit: Kit, bundle: Bundle) -> Sequence[Feeds]:
    """The inputs of a Grounded SAM 2's own graph; its prompts are encoded by rote."""
    images, by_rote = kit.images(bundle), Runtime("null", "fp32", threads=1)
    choice = choose_as_exported(bundle, sorted({image.image.class_name for image in images}))
    model = GroundedSam2(
        bundle, by_rote, batch=1, resize="area", classes=choice.classes, prompts={}, threshold=None
    )
    with closing(model), closing(TextEncoder(bundle.part("text"), by_rote)) as encoder:
        prompts = [model.tokens[model.prompt(image.image.class_name)] for image in images]
        samples = [
            {**model.prepare(image.pixels, image.image), **encoder.encode(prompt)}
            for image, prompt in zip(images, prompts, strict=True)
        ]
    return [{spec.name: sample[spec.name][None] for spec in bundle.inputs} for sample in samples]


def _difference(expected: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """The mean difference of an output as a share of its spread: of the output that differs most."""
    shares = []
    for name, array in expected.items():
        difference = np.abs(array.astype(np.float64) - found[name]).mean()
        shares.append(float(difference / max(float(np.ptp(array)), 1e-6)))
    return max(share if np.isfinite(share) else float("inf") for share in shares)


def _used(case: Case) -> int:
    """Bytes of a GPU's memory that are in use, by whomever."""
    time.sleep(0.2)  # a driver frees late
    gpus, index = read_gpus(), split_device(case.device)[1]
    if index >= len(gpus) or not gpus[index].get("memory_used_mib", "").isdecimal():
        raise AbsentError("Nothing tells how much of a GPU's memory is in use (nvidia-smi)")
    return int(gpus[index]["memory_used_mib"]) << 20
