"""What was measured of a path, as the JSON of a result; below the bar without any ratio."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from statistics import median
from typing import Any

from fgdd_bench.harness.bench import Contest, Measured
from fgdd_bench.harness.interleaving import Timed
from fgdd_bench.harness.parity import as_json as parity_json
from fgdd_bench.harness.timing import StageTimes, overlap, processor_ratios, ratios, spread
from fgdd_bench.harness.ways import Answer, StageName, Task
from fgdd_bench.machine.ceilings import Ceilings, multiplying, precisions_of
from fgdd_bench.machine.resources import Sample

FORMAT = 1
DIGITS = 5  # that count of a figure
ON_DEVICE: frozenset[StageName] = frozenset(
    {
        "host to device",
        "saliency",
        "text encoder",
        "detector",
        "mask encoder",
        "mask decoder",
        "teacher",
    }
)


@dataclass(frozen=True)
class Limits:
    """What stages are held against.

    Attributes:
        decoding: images a second that OpenCV decodes on a core.
        processor: of a core.
        device: of the GPU; None where the ways run on the processor.
    """

    decoding: float
    processor: Ceilings
    device: Ceilings | None


def path_result(contest: Contest, task: Task, limits: Limits) -> dict[str, Any]:
    """What was measured of a path.

    Returns:
        `path`, `images`, `passed`, `failures`, `columns` (each way, by who does it), `parity` (by whose
        answers the product's are compared with), `limit` (OpenCV's decoding alone, where that is
        the path's limit), and `speedup` (by reference: over it, within each turn), without which a path is
        left where a check failed.
    """
    product = contest.columns["product"].timed.samples
    result: dict[str, Any] = {
        "path": contest.path,
        "images": contest.images,
        "passed": not contest.failures,
        "failures": list(contest.failures),
        "columns": {
            column: _column(measured, contest, task, limits) for column, measured in contest.columns.items()
        },
        "parity": {parity.against: parity_json(parity) for parity in contest.parities},
    }
    if contest.limit is not None:
        shares = {
            column: _spread(ratios(contest.limit.samples, measured.timed.samples))
            for column, measured in contest.columns.items()
        }
        per_core = {
            column: _spread(processor_ratios(contest.limit.samples, measured.timed.samples))
            for column, measured in contest.columns.items()
        }
        result["limit"] = {
            "name": "OpenCV's decoding alone",
            **_runs(contest.limit),
            "shares": shares,
            "shares_per_core": per_core,
        }
    if not contest.failures:
        result["speedup"] = {
            column: _spread(ratios(measured.timed.samples, product))
            for column, measured in contest.columns.items()
            if column != "product"
        }
    digits: dict[str, Any] = rounded(result)
    return digits


def _column(measured: Measured, contest: Contest, task: Task, limits: Limits) -> dict[str, Any]:
    timed, images = measured.timed, contest.images
    seconds = [sample.seconds for sample in timed.samples]
    on_device = ON_DEVICE if limits.device is not None else frozenset()
    sources = timed.samples[0].joules
    return {
        "arithmetic": measured.arithmetic,
        "load_seconds": measured.load_seconds,
        "text_encodings": measured.text_encodings,
        "batch": measured.batch,
        **_runs(timed),
        "images_per_second": _spread([images / value for value in seconds]),
        "processor_seconds_per_image": median(sample.processor_seconds for sample in timed.samples) / images,
        "joules_per_image": {
            name: median(sample.joules[name] for sample in timed.samples) / images for name in sources
        },
        "peak_memory": asdict(timed.memory),
        **asdict(overlap(measured.stages, median(seconds), task.threads, on_device)),
        "stages": [_stage(stage, measured, limits) for stage in measured.stages],
        "networks": {
            stage: {"name": network.name, "samples_per_image": network.samples, **asdict(network.work)}
            for stage, network in measured.networks.items()
        },
    }


def _runs(timed: Timed[Answer]) -> dict[str, Any]:
    """The raw samples: runs that warm up, then one of each turn."""
    return {
        "warm_ups": _samples(timed.warm_ups),
        "turns": _samples(timed.samples),
        "repeatable": timed.repeatable,
    }


def _samples(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "seconds": [sample.seconds for sample in samples],
        "processor_seconds": [sample.processor_seconds for sample in samples],
        "joules": {name: [sample.joules[name] for sample in samples] for name in samples[0].joules},
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {**asdict(spread(values)), "turns": list(values)}


def _stage(stage: StageTimes, measured: Measured, limits: Limits) -> dict[str, Any]:
    whole = sum(other.seconds_a_pass * other.threads for other in measured.stages)
    rate = stage.images_per_second_per_core
    result: dict[str, Any] = {
        "name": stage.name,
        "threads": stage.threads,
        "images_per_call": stage.images,
        "images_per_second_per_core": rate,
        "latency_ms": {f"p{percent}": 1000 * stage.latency(percent) for percent in (50, 90, 99)},
        "share": stage.seconds_a_pass * stage.threads / whole,
        "calls": [1000 * seconds for seconds in stage.seconds],
    }
    limit = _limit(stage, measured, limits)
    if limit is not None:
        reached = rate * stage.threads if limits.device is not None and stage.name in ON_DEVICE else rate
        result["limit"] = {"images_per_second": limit, "share": reached / limit}
    return result


def _limit(stage: StageTimes, measured: Measured, limits: Limits) -> float | None:
    """Images a second that one core, or the GPU, could do at the most; None where that is unknown."""
    if stage.name == "decode":
        return limits.decoding
    network = measured.networks.get(stage.name)
    precision = multiplying(precisions_of(measured.arithmetic))
    if network is None or precision is None:
        return None
    if limits.device is None:
        samples = limits.processor.samples_per_second(network.work, precision)
    else:
        batch = stage.images * network.samples
        samples = limits.device.samples_per_second(network.work, precision, batch)
    return None if samples is None else samples / network.samples


def rounded(value: Any) -> Any:
    """A JSON value whose numbers have the digits that count; None for those that are not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def to_text(result: dict[str, Any]) -> str:
    """The file of a result: indented, but a list of numbers on one line."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+[-+\d.eE,\s]+\]", lambda found: " ".join(found[0].split()), text) + "\n"
