"""`fgdd-fast doctor`: what this machine can run, and the steps that would add what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fgdd_engines.probing.probes import Probe
from fgdd_export.catalogue.prepare import verify as verify_model
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import give, json_option
from fgdd_fast.cli.terminal import answers, console, console_progress, readable_size
from fgdd_fast.models.catalogue.catalogue import load_catalogue
from fgdd_fast.models.factory import FamilyState
from fgdd_fast.runtime.doctor import Cache, Extra, ModelState, Report, Step, examine
from fgdd_fast.runtime.machine import Gpu, Jetson, Machine, Nvidia
from fgdd_fast.students.architectures import NAMES

_ABSENT = "[dim]not installed[/]"
_UNKNOWN = "unknown"


@click.command(cls=Command)
@json_option()
def doctor() -> None:
    """Find out what this machine can run, and what is missing.

    Each device is given a tiny model to run. At the end stands, for everything that is missing and could be
    had, the command that adds it.

    \b
    Example: fgdd-fast doctor --json
    """
    with console_progress(console()).task("Looking at this machine"):
        report = examine(_model_states(), NAMES)
    if not give(report.to_json()):
        _show(report, answers())


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
