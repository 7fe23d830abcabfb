"""Rates for a projection: read from a benchmark's result, and given by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, cast

from benchmarks.studies.scale.projection import NETWORKS, SERIAL, UNITS, Rates, Work, Workload
from fgdd_fast.errors import SettingsError
from fgdd_fast.models.given_masks import GivenMasks

# What can be given, and what is counted for it.
GIVEN: Mapping[str, str] = {
    "decode": "images read, hashed and decoded",
    "cut": "images cut into what the networks take",
    "foreground": "images",
    "teacher": "views",
    "overhead": "images looked up, handed from thread to thread, and stored",
    "decide": "images decided on",
    "compose": "mosaics cut, joined and written",
}


def read_rates(path: Path, workload: Workload) -> Rates:
    """The rates in a result of `benchmarks.studies.scale.scale`, `.project` or `.stages`.

    A result of `.stages` does not say how large its images were: they are taken to be as the workload's.

    Raises:
        SettingsError: the file cannot be read, or is no such result.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if "projection" in data:
            rates = data["projection"]["rates"]
            seconds = {work: float(rates["seconds"][work]) for work in UNITS if work in rates["seconds"]}
            return Rates(**{**rates, "seconds": seconds, "on_gpu": tuple(rates["on_gpu"])})
        return _rates_of_stages(data, workload)
    except OSError as error:
        raise SettingsError(f"The rates {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise SettingsError(
            f"{path} is no result of benchmarks.studies.scale.scale, .project or .stages",
            "Write one with --json.",
        ) from error


def _rates_of_stages(data: Mapping[str, Any], workload: Workload) -> Rates:
    """What all threads took for each stage becomes what one worker takes for one unit."""
    images, threads = int(data["images"]), int(data["threads"])
    each = {
        stage: median(row[stage] for row in data["seconds"]) / images
        for stage in ("decode", "resize and crop", "foreground", "teacher")
    }
    on_gpu = tuple(
        work
        for work, runtime in zip(NETWORKS, data["runtimes"], strict=True)
        if ", CPU, " not in runtime and runtime != GivenMasks.description
    )
    workers = {work: 1 if work in on_gpu else threads for work in NETWORKS}
    seconds: dict[Work, float] = {
        "decode pixels": threads * each["decode"] / workload.megapixels,
        "decode bytes": 0.0,
        "cut": threads * each["resize and crop"] / workload.megapixels,
        "foreground": workers["foreground"] * each["foreground"],
        "teacher": workers["teacher"] * each["teacher"] / (1 + int(data["crops"])),
    }
    return Rates(seconds=seconds, threads=threads, on_gpu=on_gpu)


def parse_given(text: str) -> tuple[str, float]:
    """A name of `GIVEN` and a rate, from `NAME=PER_SECOND`.

    Raises:
        SettingsError: the name is unknown, or the rate no number above 0.
    """
    name, _, value = text.partition("=")
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if name not in GIVEN or not 0 < rate < float("inf"):
        raise SettingsError(
            f"The rate {text!r} is none", f"Write NAME=PER_SECOND, NAME one of {', '.join(GIVEN)}."
        )
    return name, rate


def with_given(
    rates: Rates, given: Mapping[str, float], workload: Workload, *, gpu: bool, threads: int | None
) -> Rates:
    """Other rates in the place of some.

    Args:
        rates: what is known.
        given: how many a second, by name (see `GIVEN`), of images as large as the workload's: by all
            processor threads together, by the main thread (`overhead`, `decide`), or by the GPU.
        workload: what is projected.
        gpu: whether the networks run on a GPU.
        threads: processor threads at work, where they are others.

    Raises:
        SettingsError: the networks are to run on a GPU, and their rates on one are not known.
    """
    rates = replace(rates, threads=threads or rates.threads)
    if gpu:
        unknown = [work for work in NETWORKS if work not in given and work not in rates.on_gpu]
        if unknown:
            raise SettingsError(
                f"How fast a GPU runs the {' and the '.join(unknown)} is not known",
                f"Add {' '.join(f'--rate {work}=PER_SECOND' for work in unknown)}.",
            )
        rates = replace(rates, on_gpu=NETWORKS)
    seconds = dict(rates.seconds)
    for name, rate in given.items():
        alone = name in rates.on_gpu or name in SERIAL
        each = (1 if alone else rates.threads) / rate
        if name == "decode":
            seconds["decode pixels"], seconds["decode bytes"] = each / workload.megapixels, 0.0
        elif name == "cut":
            seconds["cut"] = each / workload.megapixels
        else:
            seconds[cast(Work, name)] = each
    return replace(rates, seconds=seconds)
