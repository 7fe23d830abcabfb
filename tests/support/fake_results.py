"""A result of fakes, with numbers that are easy to find again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fake_implementations import TASK, FakeOpener, answer, originals

from fgdd_bench.harness.bench import Measured, PathMeasurement
from fgdd_bench.harness.implementation import Answer, Name, PathName
from fgdd_bench.harness.parity import compare
from fgdd_bench.harness.result import FORMAT, Limits, path_result, rounded
from fgdd_bench.harness.timing import StageTimes, Timed
from fgdd_bench.machine.resources import Memory, Sample

LIMITS = Limits(700.0, {"fp32": 3e10, "bf16": 7e10})
ENVIRONMENT: Mapping[str, Any] = {
    "processor": "A processor",
    "vector_units": ["avx2"],
    "cores": 2,
    "clocks": {"mhz": [2000, 2100], "governors": ["performance"]},
    "load_average": [0.5, 0.5, 0.5],
    "memory_gib": 24.0,
    "gpus": [],
    "jetson": None,
    "system": "Linux x86_64",
    "python": "3.12.1",
    "packages": {"numpy": "2.0.0", "torch": "absent"},
    "threads": {"affinity": 2},
}
# Of 16 images: 3.7 times as fast as fair in every turn, and 23.3 times as fast as published.
SECONDS: Mapping[Name, Sequence[float]] = {
    "ours": (0.1, 0.2, 0.1),
    "fair": (0.37, 0.74, 0.37),
    "published": (2.33, 4.66, 2.33),
}


def timed(seconds: Sequence[float], given: Answer, **memory: Any) -> Timed[Answer]:
    samples = tuple(Sample(value, 1.5 * value) for value in seconds)
    return Timed(samples[:1], samples, given, True, Memory(2**30, 2**29, memory.get("device")))


def measurement(
    path: PathName = "teacher",
    answers: Mapping[str, Answer] | None = None,
    arithmetic: str = "fake, bf16",
) -> PathMeasurement:
    """A path whose implementations take `SECONDS`; they all answer alike but for those that are given."""
    given = {name: (answers or {}).get(name, answer(path)) for name in ("fp32", *SECONDS)}
    stages = (
        StageTimes("decode", (0.001,) * 16, 1, 1, 1),
        StageTimes("teacher", (0.02,) * 4, 1, 4, 2),
        StageTimes("write", (0.0005,) * 16, 1, 1, 1),
    )
    opener = FakeOpener({})
    found: dict[Name, Measured] = {}
    for whose, seconds in SECONDS.items():
        name = arithmetic if whose == "ours" else "fake, fp32"
        networks = opener.networks(path, opener.open(path, whose))
        found[whose] = Measured(name, 0.25, None, 4, timed(seconds, given[whose]), stages, networks)
    comparisons = tuple(
        compare(path, name, given[name], given["ours"], originals(), TASK, ("bf16",))
        for name in ("fp32", "fair", "published")
    )
    limit = timed((0.08, 0.16, 0.08), {}) if path == "decode" else None
    return PathMeasurement(path, 16, found, comparisons, limit)


def result(*measured: PathMeasurement) -> dict[str, Any]:
    """A whole result."""
    whole: dict[str, Any] = rounded(
        {
            "format": FORMAT,
            "command": "fgdd-fast bench train",
            "data": {"name": "<train>", "images": 16, "classes": 2, "drawn": False},
            "settings": {"crops": 3, "repeats": 3, "threads": 2},
            "models": {"teacher": {"name": "a teacher", "sha256": "ab" * 32}},
            "environment": dict(ENVIRONMENT),
            "load_average_after": [1.0, 0.5, 0.25],
            "limits": LIMITS.as_json(),
            "paths": [path_result(one, TASK, LIMITS) for one in measured],
            "unfinished": [],
        }
    )
    return whole
