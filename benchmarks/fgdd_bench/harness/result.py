"""What was measured of a path, as the JSON of a result; without any ratio where the answers differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite
from statistics import median
from typing import Any

from fgdd_bench.harness.bench import Measured, PathMeasurement
from fgdd_bench.harness.implementation import ON_DEVICE, Answer
from fgdd_bench.harness.parity import as_json as comparison_json
from fgdd_bench.harness.subject import Task
from fgdd_bench.harness.timing import StageTimes, Timed, overlap, ratios
from fgdd_bench.machine.ceilings import METHOD, multiplying, precisions_of

FORMAT = 2
# What the names of format 1 became.
RENAMED = {"product": "ours", "columns": "implementations", "bars": "tolerances"}
DIGITS = 5  # that count of a figure


@dataclass(frozen=True)
class Limits:
    """What stages are compared with, of a core.

    Attributes:
        decoding: images a second that OpenCV decodes.
        multiply_adds: a second, by precision.
    """

    decoding: float
    multiply_adds: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return what a result says of them."""
        processor = {"multiply_adds": dict(self.multiply_adds)}
        return {"method": METHOD, "decoding": self.decoding, "processor": processor}


def path_result(measured: PathMeasurement, task: Task, limits: Limits) -> dict[str, Any]:
    """Return what was measured of a path.

    Returns:
        `path`, `images`, `passed`, `failures`, `implementations` (by whose they are), `parity` (by whose
        answers ours are compared with), `limit` (OpenCV's decoding alone, where that is the path's limit),
        and `speedup` (by reference: over it, within each turn), without which a path is left where a check
        failed.
    """
    all_runs = {name: one.timed.samples for name, one in measured.implementations.items()}
    ours = all_runs["ours"]
    result: dict[str, Any] = {
        "path": measured.path,
        "images": measured.images,
        "passed": not measured.failures,
        "failures": list(measured.failures),
        "implementations": {
            name: _implementation(one, measured.images, task, limits)
            for name, one in measured.implementations.items()
        },
        "parity": {found.against: comparison_json(found) for found in measured.comparisons},
    }
    if measured.limit is not None:
        alone = partial(ratios, measured.limit.samples)
        result["limit"] = {
            "name": "OpenCV's decoding alone",
            **_runs(measured.limit),
            "shares": {name: _spread(alone(own)) for name, own in all_runs.items()},
            "shares_per_core": {
                name: _spread(alone(own, "processor_seconds")) for name, own in all_runs.items()
            },
        }
    if not measured.failures:
        result["speedup"] = {
            name: _spread(ratios(theirs, ours)) for name, theirs in all_runs.items() if name != "ours"
        }
    digits: dict[str, Any] = rounded(result)
    return digits


def _implementation(measured: Measured, images: int, task: Task, limits: Limits) -> dict[str, Any]:
    timed = measured.timed
    seconds = [sample.seconds for sample in timed.samples]
    on_device = ON_DEVICE if task.device == "cuda" else frozenset()
    return {
        "arithmetic": measured.arithmetic,
        "load_seconds": measured.load_seconds,
        "text_encodings": measured.text_encodings,
        "batch": measured.batch,
        **_runs(timed),
        "images_per_second": _spread([images / value for value in seconds]),
        "processor_seconds_per_image": median(sample.processor_seconds for sample in timed.samples) / images,
        "peak_memory": asdict(timed.memory),
        **overlap(measured.stages, median(seconds), task.threads, on_device),
        "stages": [_stage(stage, measured, task, limits) for stage in measured.stages],
        "networks": {
            stage: {"name": network.name, "samples_per_image": network.samples, **asdict(network.work)}
            for stage, network in measured.networks.items()
        },
    }


def _runs(timed: Timed[Answer]) -> dict[str, Any]:
    """Return the raw samples: runs that warm up, then one of each turn."""
    found: dict[str, Any] = {
        name: {
            figure: [getattr(sample, figure) for sample in samples]
            for figure in ("seconds", "processor_seconds")
        }
        for name, samples in (("warm_ups", timed.warm_ups), ("turns", timed.samples))
    }
    return {**found, "repeatable": timed.repeatable}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": median(values), "lowest": min(values), "highest": max(values), "turns": values}


def _stage(stage: StageTimes, measured: Measured, task: Task, limits: Limits) -> dict[str, Any]:
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
    on_core = task.device == "cpu" or stage.name not in ON_DEVICE
    limit = _limit(stage, measured, limits) if on_core else None
    if limit is not None:
        result["limit"] = {"images_per_second": limit, "share": rate / limit}
    return result


def _limit(stage: StageTimes, measured: Measured, limits: Limits) -> float | None:
    """Return the images a second that one core could do at the most; None where that is unknown."""
    if stage.name == "decode":
        return limits.decoding
    network = measured.networks.get(stage.name)
    rate = limits.multiply_adds.get(multiplying(precisions_of(measured.arithmetic)) or "")
    if network is None or rate is None or not network.work.multiply_adds:
        return None
    return rate / (network.work.multiply_adds * network.samples)


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
