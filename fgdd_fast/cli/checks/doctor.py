"""`fgdd-fast doctor`: what this machine can run, and the steps that would add what is missing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fgdd_engines.paths import cache_folder
from fgdd_engines.probing.probes import Probe
from fgdd_export.catalogue.prepare import verify as verify_model
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import folder, give, json_option
from fgdd_fast.cli.terminal import answers, console, console_progress, json_is_printed, readable_size
from fgdd_fast.errors import SettingsError
from fgdd_fast.models.catalogue.catalogue import load_catalogue
from fgdd_fast.models.factory import FamilyState
from fgdd_fast.runtime.doctor import Cache, Extra, ModelState, Report, Step, examine
from fgdd_fast.runtime.machine import Gpu, Jetson, Machine, Nvidia
from fgdd_fast.students.architectures import NAMES

_ABSENT = "[dim]not installed[/]"
_UNKNOWN = "unknown"


@click.command(cls=Command)
@json_option()
@click.option("--gpu-check", is_flag=True, help="Check all that is claimed of each device, with a kit.")
@click.option(
    "--gpu-kit",
    type=folder(),
    metavar="FOLDER",
    show_default="in the cache folder",
    help="The kit, which is made first where it is missing; carry it to a machine without a network.",
)
@click.option(
    "--data", type=folder(), metavar="DATA", help="Photographs for a new kit, instead of drawn pictures."
)
@click.option(
    "--budget",
    type=click.FloatRange(min=10),
    default=470.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that --gpu-check takes at the most, without the making of a kit.",
)
def doctor(gpu_check: bool, gpu_kit: Path | None, data: Path | None, budget: float) -> None:
    """Find out what this machine can run, and what is missing.

    Each device is given a tiny model to run. At the end stands, for everything that is missing and could be
    had, the command that adds it.

    With --gpu-check it is found out whether GPUs decide as the processor does, and how fast they are. The
    exit code is 0 where all is right, 1 where something is wrong, and 3 where nothing is but something is
    left: the time was over, or no GPU runs.

    \b
    Example: fgdd-fast doctor --json
    """
    if gpu_check or gpu_kit is not None:
        _check_gpu(gpu_kit or cache_folder() / "gpu-kit", data, budget if gpu_check else None)
        return
    with console_progress(console()).task("Looking at this machine"):
        report = examine(_model_states(), NAMES)
    if not give(report.to_json()):
        _show(report, answers())


def _check_gpu(kit: Path, data: Path | None, budget: float | None) -> None:
    """Make a kit where there is none; and within a budget, if there is one, check what is claimed."""
    from fgdd_bench.gpu_check.kit import make_kit  # noqa: PLC0415 - needs more than the base install
    from fgdd_bench.gpu_check.running import EXIT_CODES, check_gpu  # noqa: PLC0415

    def write(result: dict[str, Any]) -> None:
        if not json_is_printed():
            give(result)

    if not kit.exists():
        make_kit(kit, data)
    elif data is not None:
        raise SettingsError(f"The kit {kit} is there already", "Leave --data out, or remove the kit.")
    if budget is None:
        size = sum(file.stat().st_size for file in kit.rglob("*") if file.is_file())
        answers().print(f"The kit {escape(str(kit))} has {readable_size(size)}")
        return
    result = check_gpu(kit, budget=budget, write=write, progress=console_progress(console()))
    if json_is_printed():
        give(result)
    else:
        _show_checks(result, answers())
    sys.exit(EXIT_CODES[result["verdict"]])


def _show_checks(result: Mapping[str, Any], target: Console) -> None:
    table = Table("check", "on", "", "s", "", box=None, pad_edge=False)
    colours = {"ok": "green", "failed": "red", "left": "yellow"}
    for row in (row for row in result["checks"] if row["state"] != "left"):
        colour = colours.get(row["state"], "dim")
        precision = "" if row["precision"] == "auto" else row["precision"]
        place = " ".join(filter(None, (row["device"], row["subject"], precision)))
        state = f"[{colour}]{row['state']}[/]"
        table.add_row(row["check"], escape(place), state, f"{row['seconds']:.0f}", escape(row["words"]))
    target.print(table)
    states = Counter(row["state"] for row in result["checks"])
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    gpu = "" if result["gpu"] else "; no GPU runs here"
    target.print(f"{counts}, in {result['seconds']:.0f} of {result['budget_seconds']:g} seconds{gpu}")


def _model_states() -> list[ModelState]:
    found = [(entry, verify_model(entry)) for entry in load_catalogue()]
    return [ModelState(entry.name, entry.role, status.state, status.reason) for entry, status in found]


def _show(report: Report, console: Console) -> None:
    _section(console, "Machine", _machine(report.machine))
    _section(console, "NVIDIA GPU", _nvidia(report.nvidia))
    if report.jetson is not None:
        _section(console, "Jetson", _jetson(report.jetson))
    _section(console, "Devices", (_device(probe) for probe in report.devices))
    _section(console, "Packages", ((name, found or _ABSENT) for name, found in report.versions.items()))
    _section(console, "Extras of fgdd-fast", (_extra(extra) for extra in report.extras))
    _section(console, "Models of the catalogue", (_model(model) for model in report.models))
    _section(console, "Foreground families", (_family(family) for family in report.foregrounds))
    _section(console, "Student architectures", _students(report.students))
    _section(console, f"Cache in {escape(report.cache.folder)}", _cache(report.cache))
    _show_steps(report.steps, console)


def _section(console: Console, title: str, rows: Iterable[tuple[str, ...]]) -> None:
    """A title, and rows below it whose last cell takes what width is left."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row("", *row)
    for column in table.columns[:-1]:
        column.no_wrap = True
    console.print(f"[bold]{title}[/]", soft_wrap=True)
    console.print(table)
    console.print()


def _machine(machine: Machine) -> Iterable[tuple[str, str]]:
    available = machine.memory_available
    yield "processor", escape(machine.processor)
    yield "cores", str(machine.cores)
    yield "vector units", " ".join(machine.vector_units) or _UNKNOWN
    unused = "" if available is None else f", {readable_size(available)} available"
    yield "memory", readable_size(machine.memory) + unused
    yield "system", f"{machine.system}, Python {machine.python}"


def _nvidia(nvidia: Nvidia) -> Iterable[tuple[str, ...]]:
    if nvidia.reason:
        yield (escape(nvidia.reason),)
        return
    for number, gpu in enumerate(nvidia.gpus):
        yield f"GPU {number}", f"{escape(gpu.name)}, {_gpu(gpu)}"
    yield "driver", f"{nvidia.driver or _UNKNOWN}, for CUDA up to {nvidia.cuda or _UNKNOWN}"


def _gpu(gpu: Gpu) -> str:
    memory = _UNKNOWN if gpu.memory is None else readable_size(gpu.memory)
    return f"compute capability {gpu.compute_capability or _UNKNOWN}, memory {memory}"


def _jetson(jetson: Jetson) -> Iterable[tuple[str, str]]:
    yield "model", escape(jetson.model)
    yield "JetPack", jetson.jetpack or _UNKNOWN
    yield "Jetson Linux", jetson.jetson_linux or _UNKNOWN
    yield "power mode", jetson.power_mode or _UNKNOWN


def _device(probe: Probe) -> tuple[str, str, str]:
    advice = f"\n[yellow]{escape(probe.advice)}[/]" if probe.advice else ""
    return probe.device, "[green]runs[/]" if probe.runs else "[dim]no[/]", escape(probe.detail) + advice


def _extra(extra: Extra) -> tuple[str, str]:
    missing = ", ".join(extra.missing)
    return extra.name, f"[dim]lacks {escape(missing)}[/]" if missing else "[green]installed[/]"


def _model(model: ModelState) -> tuple[str, str, str]:
    colour = {"ok": "green", "absent": "dim"}.get(model.state, "yellow")
    reason = f" ({escape(model.reason)})" if model.reason else ""
    return model.name, model.role, f"[{colour}]{model.state}[/]{reason}"


def _family(family: FamilyState) -> tuple[str, str]:
    asked = "asked for each class by its name" if family.asked_by_class else "takes no prompt"
    said = f"[yellow]{escape(family.problem)}[/]" if family.problem else asked
    return escape(family.spelling), said + (f" ({escape(family.origin)})" if family.origin else "")


def _students(students: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for origin in dict.fromkeys(students.values()):
        names = (name for name, found in students.items() if found == origin)
        yield escape(origin), escape(", ".join(names))


def _cache(cache: Cache) -> Iterable[tuple[str, str]]:
    for name, size in cache.sizes.items():
        yield escape(name), readable_size(size)
    yield "all", readable_size(sum(cache.sizes.values()))


def _show_steps(steps: Iterable[Step], console: Console) -> None:
    """The steps, each command whole on a line of its own."""
    lines = [line for step in steps for line in (f"To {step.purpose}:", f"  [bold]{escape(step.command)}[/]")]
    for line in lines or ["Nothing is missing that this machine could use."]:
        console.print(line, soft_wrap=True)
