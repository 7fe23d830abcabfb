"""A result as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from fgdd_bench.harness.implementation import STAGES
from fgdd_bench.reporting import report
from fgdd_bench.reporting.report import Result, number, percent, spread
from fgdd_engines.optional_imports import import_optional

TEMPLATE = "report.html"
TICKS = 5  # of an axis, at most


def page(result: Result) -> str:
    """Return the page of a result.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    jinja2 = import_optional("jinja2", "bench")
    text = resources.files("fgdd_bench.reporting").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "percent": percent, "times": report.times}
    environment.globals |= {"names": report.NAMES, "path_names": report.PATHS, "stage_names": STAGES}
    environment.globals |= {"dots": dots, "facts_of": facts_of, "parity_rows": report.parity_rows}
    view = {
        "result": result,
        "summary": report.summary(result),
        "references": report.references(result),
        "facts": list(_facts(result)),
        "limits": list(_limits(result["limits"])),
    }
    return str(environment.from_string(text).render(view))


def dots(path: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return where each turn's rate stands on an axis from 0, in percent of its length.

    Args:
        path: of a result.
        names: of the implementations.

    Returns:
        `ticks`, with `place` and `text`; `lanes`, of the implementations and of the path's limit, with `key`,
        `name`, `places` of all turns, and `place` and `text` of the one in the middle.
    """
    timed = [(name, report.NAMES[name], path["implementations"][name]) for name in names]
    if "limit" in path:
        timed.append(("limit", path["limit"]["name"], path["limit"]))
    rates = {
        (key, name): [path["images"] / seconds for seconds in one["turns"]["seconds"]]
        for key, name, one in timed
    }
    ticks = axis(max(map(max, rates.values())))
    unit = 100 / ticks[-1]
    lanes = []
    for (key, name), turns in rates.items():
        middle, places = sorted(turns)[len(turns) // 2], [round(unit * rate, 3) for rate in turns]
        words = {"key": key, "name": name, "text": number(middle)}
        lanes.append({**words, "places": places, "place": round(unit * middle, 3)})
    return {"ticks": [{"place": unit * tick, "text": f"{tick:,g}"} for tick in ticks], "lanes": lanes}


def axis(highest: float) -> list[float]:
    """Return round numbers from 0 to at least `highest`, which is above 0."""
    rough = highest / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(step * unit for step in (1, 2, 2.5, 5, 10) if step * unit >= rough)
    return [step * place for place in range(math.ceil(highest / step) + 1)]


def facts_of(path: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what an implementation of a path did from end to end."""
    one = path["implementations"][name]
    memory = one["peak_memory"]
    facts = {
        "images/s": spread(one["images_per_second"], number),
        "processor s an image": number(one["processor_seconds_per_image"]),
        "bound by": one["bound_by"] or report.NOTHING,
        "threads busy": percent(one["busy"]),
        "of OpenCV's decoding, a core": "limit" in path and percent(report.share_of_limit(path, name)),
        "GPU busy": one["device_busy"] is not None and percent(one["device_busy"]),
        "images an inference": one["batch"],
        "opened in": f"{number(one['load_seconds'])} s",
        "peak memory": f"{(memory['process'] + memory['children']) / 2**30:.2f} GiB",
        "GPU memory": memory["device"] is not None and f"{memory['device'] / 2**30:.2f} GiB",
        "prompts encoded": one["text_encodings"],
        "same bits every turn": "yes" if one["repeatable"] else "no",
    }
    return {term: fact for term, fact in facts.items() if fact is not None and fact is not False}


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    """Yield the environment and the settings, by name."""
    machine = result["environment"]
    clocks = machine["clocks"]
    yield "processor", f"{machine['processor']}; {machine['cores']} cores given"
    yield "vector units", " ".join(machine["vector_units"]) or "unknown"
    if clocks["mhz"]:
        governed = f", governed by {', '.join(clocks['governors'])}" if clocks["governors"] else ""
        yield "clocks", f"{min(clocks['mhz'])} to {max(clocks['mhz'])} MHz as found{governed}"
    yield "memory", f"{machine['memory_gib']} GiB"
    for gpu in machine["gpus"] or [{"name": "none found"}]:
        named = [gpu[key] if key == "name" else f"{key.replace('_', ' ')} {gpu[key]}" for key in gpu]
        yield "GPU", ", ".join(named)
    if machine["jetson"]:
        yield "Jetson", _words({key: value for key, value in machine["jetson"].items() if value})
    yield "system", f"{machine['system']}, Python {machine['python']}"
    packages = machine["packages"]
    yield "packages", _words({name: found for name, found in packages.items() if found != "absent"})
    yield "threads", _words(machine["threads"])
    loads = machine["load_average"], result["load_average_after"]
    before, after = (" ".join(f"{value:g}" for value in values) for values in loads)
    yield "load average", f"{before} before, {after} after"
    yield "settings", _words({name.replace("_", " "): value for name, value in result["settings"].items()})
    for role, model in result["models"].items():
        yield role, _words({name: value for name, value in model.items() if value})


def _limits(limits: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "OpenCV decodes", f"{number(limits['decoding'])} images/s a core"
    for precision, rate in limits["processor"]["multiply_adds"].items():
        yield f"{precision}, a core", f"{number(rate / 1e9)} billion multiply-adds a second"
