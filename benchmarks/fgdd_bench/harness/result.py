"""What was measured of a path, as the JSON of a result; without any ratio where the answers differ."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from statistics import median
from typing import Any

from fgdd_bench.harness.bench import Measured, PathMeasurement
from fgdd_bench.harness.implementation import ON_DEVICE, Answer
from fgdd_bench.harness.parity import as_json as comparison_json
from fgdd_bench.harness.subject import Task
from fgdd_bench.harness.timing import StageTimes, Timed, overlap, ratios, spread
from fgdd_bench.machine.ceilings import Ceilings, multiplying, precisions_of
from fgdd_bench.machine.resources import Sample

FORMAT = 2
# What the names of format 1 became.
RENAMED = {"product": "ours", "columns": "implementations", "bars": "tolerances"}
DIGITS = 5  # that count of a figure


@dataclass(frozen=True)
class Limits:
    """What stages are compared with.

    Attributes:
        decoding: images a second that OpenCV decodes on a core.
        processor: of a core.
        device: of the GPU; None where everything runs on the processor.
    """

    decoding: float
    processor: Ceilings
    device: Ceilings | None


def path_result(measured: PathMeasurement, task: Task, limits: Limits) -> dict[str, Any]:
    """Return what was measured of a path.

    Returns:
        `path`, `images`, `passed`, `failures`, `implementations` (by whose they are), `parity` (by whose
        answers ours are compared with), `limit` (OpenCV's decoding alone, where that is the path's limit),
        and `speedup` (by reference: over it, within each turn), without which a path is left where a check
        failed.
    """
    implementations = measured.implementations
    ours = implementations["ours"].timed.samples
    result: dict[str, Any] = {
        "path": measured.path,
        "images": measured.images,
        "passed": not measured.failures,
        "failures": list(measured.failures),
        "implementations": {
            name: _implementation(one, measured.images, task, limits) for name, one in implementations.items()
        },
        "parity": {found.against: comparison_json(found) for found in measured.comparisons},
    }
    if measured.limit is not None:
        alone = measured.limit.samples
        result["limit"] = {
            "name": "OpenCV's decoding alone",
            **_runs(measured.limit),
            **{
                key: {
                    name: _spread(ratios(alone, one.timed.samples, figure))
                    for name, one in implementations.items()
                }
                for key, figure in (("shares", "seconds"), ("shares_per_core", "processor_seconds"))
            },
        }
    if not measured.failures:
        result["speedup"] = {
            name: _spread(ratios(one.timed.samples, ours))
            for name, one in implementations.items()
            if name != "ours"
        }
    digits: dict[str, Any] = rounded(result)
    return digits


def _implementation(measured: Measured, images: int, task: Task, limits: Limits) -> dict[str, Any]:
    timed = measured.timed
    seconds = [sample.seconds for sample in timed.samples]
    on_device = ON_DEVICE if limits.device is not None else frozenset()
    return {
        "arithmetic": measured.arithmetic,
        "load_seconds": measured.load_seconds,
        "text_encodings": measured.text_encodings,
        "batch": measured.batch,
        **_runs(timed),
        "images_per_second": _spread([images / value for value in seconds]),
        "processor_seconds_per_image": median(sample.processor_seconds for sample in timed.samples) / images,
        "joules_per_image": {
            name: median(sample.joules[name] for sample in timed.samples) / images
            for name in timed.samples[0].joules
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
    """Return the raw samples: runs that warm up, then one of each turn."""
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
    """Return the images a second that one core, or the GPU, could do at the most; None where unknown."""
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
    """Return a JSON value whose numbers have the digits that count; None for those that are not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def upgraded(value: Any) -> Any:
    """Return a result of format 1, or a part of it, under the names of today."""
    if isinstance(value, dict):
        return {RENAMED.get(key, key): upgraded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [upgraded(item) for item in value]
    return value


def to_text(result: dict[str, Any]) -> str:
    """Return the file of a result: indented, but a list of numbers on one line."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    return re.sub(r"\[\s+[-+\d.eE,\s]+\]", lambda found: " ".join(found[0].split()), text) + "\n"
