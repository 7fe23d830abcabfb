"""A result as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from fgdd_bench.harness.implementation import STAGES
from fgdd_bench.reporting.report import (
    NAMES,
    NOTHING,
    PATHS,
    Result,
    number,
    parity_rows,
    percent,
    references,
    share_of_limit,
    spread,
    summary,
    times,
)
from fgdd_engines.optional_imports import import_optional

TEMPLATE = "report.html"
TICKS = 5  # of an axis, at most
_GIB = 2**30


def page(result: Result) -> str:
    """Return the page of a result.

    Raises:
        MissingExtraError: Jinja is not installed.
    """
    jinja2 = import_optional("jinja2", "bench")
    text = resources.files("fgdd_bench.reporting").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    columns = references(result)
    view = {
        "data": result["data"],
        "summary": summary(result),
        "command": result["command"],
        "references": [{"key": name, "name": NAMES[name]} for name in columns],
        "headline": [_headline(path, columns) for path in result["paths"]],
        "paths": [_path(path, columns) for path in result["paths"]],
        "parity_columns": [NAMES[name] for name in ("fp32", *columns)],
        "facts": list(_facts(result)),
        "limits": list(_limits(result["limits"])),
        "method": result["limits"]["method"],
        "unfinished": [PATHS[name] for name in result["unfinished"]],
    }
    return str(environment.from_string(text).render(view))


def _headline(path: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return a row of the first table."""
    row = {"name": PATHS[path["path"]], "passed": path["passed"], "failures": path["failures"]}
    if not path["passed"]:
        return row
    ratios = [path["speedup"].get(name) for name in columns]
    ours = path["implementations"]["ours"]
    return {
        **row,
        "rate": number(ours["images_per_second"]["median"]),
        "arithmetic": ours["arithmetic"],
        "ratios": [
            None
            if ratio is None
            else {
                "median": times(ratio["median"]),
                "range": f"{times(ratio['lowest'])} to {times(ratio['highest'])}",
            }
            for ratio in ratios
        ],
    }


def _path(path: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the section of a path; the rates are left out where the answers differ."""
    there = [name for name in ("ours", *columns) if name in path["implementations"]]
    found = [(name, path["implementations"][name]) for name in there]
    lanes = [_lane(name, NAMES[name], one, path["images"]) for name, one in found]
    if "limit" in path:
        lanes.append(_lane("limit", path["limit"]["name"], path["limit"], path["images"]))
    return {
        "key": path["path"],
        "name": PATHS[path["path"]],
        "images": path["images"],
        "passed": path["passed"],
        "failures": path["failures"],
        **(_dots(lanes) if path["passed"] else {}),
        "implementations": [_facts_of(name, one, path) for name, one in found] if path["passed"] else [],
        "stages": [name for name in STAGES if any(_has(one, name) for _, one in found)],
        "parity": parity_rows(path, ("fp32", *columns)),
    }


def _has(one: Mapping[str, Any], stage: str) -> bool:
    return any(row["name"] == stage for row in one["stages"])


def _lane(key: str, name: str, one: Mapping[str, Any], images: int) -> dict[str, Any]:
    rates = [images / seconds for seconds in one["turns"]["seconds"]]
    middle = sorted(rates)[len(rates) // 2]
    return {"key": key, "name": name, "rates": rates, "middle": middle}


def _dots(lanes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return where each turn's rate stands on an axis from 0, in percent of its length."""
    ticks = axis(max(rate for lane in lanes for rate in lane["rates"]))
    end = ticks[-1]
    return {
        "ticks": [{"place": 100 * tick / end, "text": f"{tick:,g}"} for tick in ticks],
        "lanes": [
            {
                **lane,
                "places": [round(100 * rate / end, 3) for rate in lane["rates"]],
                "place": round(100 * lane["middle"] / end, 3),
                "text": number(lane["middle"]),
            }
            for lane in lanes
        ],
    }


def axis(highest: float) -> list[float]:
    """Return round numbers from 0 to at least `highest`, which is above 0."""
    rough = highest / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(step * unit for step in (1, 2, 2.5, 5, 10) if step * unit >= rough)
    return [step * place for place in range(math.ceil(highest / step) + 1)]


def _facts_of(name: str, one: Mapping[str, Any], path: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an implementation did from end to end, and its stages."""
    memory = one["peak_memory"]
    resident = memory["process"] + memory["children"]
    facts = {
        "images/s": spread(one["images_per_second"], number),
        "processor s an image": number(one["processor_seconds_per_image"]),
        "bound by": one["bound_by"] or NOTHING,
        "threads busy": percent(one["busy"]),
        "of OpenCV's decoding, a core": percent(share_of_limit(path, name)) if "limit" in path else None,
        "GPU busy": None if one["device_busy"] is None else percent(one["device_busy"]),
        "images an inference": one["batch"],
        "opened in": f"{number(one['load_seconds'])} s",
        "peak memory": f"{resident / _GIB:.2f} GiB",
        "GPU memory": None if memory["device"] is None else f"{memory['device'] / _GIB:.2f} GiB",
        "prompts encoded": one["text_encodings"],
        "same bits every turn": "yes" if one["repeatable"] else "no",
        **{f"J an image, {source}": number(joules) for source, joules in one["joules_per_image"].items()},
    }
    return {
        "key": name,
        "name": NAMES[name],
        "arithmetic": one["arithmetic"],
        "facts": {term: fact for term, fact in facts.items() if fact is not None},
        "stages": [_stage(stage) for stage in one["stages"]],
    }


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    limit = stage.get("limit")
    return {
        "name": stage["name"],
        "key": stage["name"].replace(" ", "-"),
        "width": round(100 * stage["share"], 3),
        "share": percent(stage["share"]),
        "rate": number(stage["images_per_second_per_core"]),
        "latencies": [number(value) for value in stage["latency_ms"].values()],
        "limit": None if limit is None else percent(limit["share"]),
    }


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
    for gpu in machine["gpus"] or [{"none": "none found"}]:
        yield (
            "GPU",
            ", ".join(
                value if key in ("name", "none") else f"{key.replace('_', ' ')} {value}"
                for key, value in gpu.items()
            ),
        )
    if machine["jetson"]:
        yield "Jetson", ", ".join(f"{key} {value}" for key, value in machine["jetson"].items() if value)
    yield "system", f"{machine['system']}, Python {machine['python']}"
    present = {name: version for name, version in machine["packages"].items() if version != "absent"}
    yield "packages", ", ".join(f"{name} {version}" for name, version in present.items())
    yield "threads", ", ".join(f"{name} {value}" for name, value in machine["threads"].items())
    yield (
        "load average",
        f"{_row(machine['load_average'])} before, {_row(result['load_average_after'])} after",
    )
    yield (
        "settings",
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result["settings"].items()),
    )
    for role, model in result["models"].items():
        yield role, ", ".join(f"{name} {value}" for name, value in model.items() if value)


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _limits(limits: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "OpenCV decodes", f"{number(limits['decoding'])} images/s a core"
    for where, ceilings in (("a core", limits["processor"]), ("the GPU", limits["device"])):
        if ceilings is not None:
            for precision, rate in ceilings["multiply_adds"].items():
                yield f"{precision}, {where}", f"{number(rate / 1e9)} billion multiply-adds a second"
            yield f"memory, {where}", f"{number(ceilings['bytes'] / 1e9)} GB/s"
