"""`fgdd-fast engine`: TensorRT engines, built on this device, checked, and kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from fgdd_engines.backends import split_device
from fgdd_engines.base import PRECISIONS
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.tensorrt_backend.api import Flavour
from fgdd_engines.tensorrt_backend.build import Profile
from fgdd_engines.tensorrt_backend.plans.key import NONE
from fgdd_engines.tensorrt_backend.plans.store import Plan, PlanStore, megabytes
from fgdd_engines.tensorrt_backend.plans.usability import (
    platforms_here,
    stale_timing_caches,
    why_stale,
    why_unusable,
)
from fgdd_fast.cli.networks.convert import parity_table
from fgdd_fast.cli.networks.engine_words import engine_table, plan_table, sidecar_lines
from fgdd_fast.cli.options import combined, folder, json_option, write_json
from fgdd_fast.cli.terminal import console, console_progress
from fgdd_fast.errors import EngineError, SettingsError
from fgdd_fast.models.factory import asked_by_class, find_network
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.runtime.engine_building import BuildSettings, build_engines
from fgdd_fast.runtime.engine_checking import Checked, verify_engines
from fgdd_fast.runtime.sample_images import SampleImage, check_images
from fgdd_fast.runtime.trials import PICTURES, comparison_images

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """On which images decisions are compared, named as on the command line."""

    check: Path | None
    count: int | None
    prompts: Path | None

    def images(self, bundle: Bundle) -> Sequence[SampleImage]:
        """Return the images for a bundle."""
        if self.check is None and self.count is None:
            return comparison_images(bundle)
        prompts = {} if self.prompts is None else read_prompts(self.prompts)
        named = asked_by_class(bundle)
        return check_images(self.check, self.count or PICTURES, prompts, named=named)


def batches(ctx: click.Context, param: click.Parameter, value: str | None) -> Profile | None:
    """Parse MIN:OPT:MAX."""
    if value is None:
        return None
    try:
        return Profile.parse(value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error


def tensorrt_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check that a device is `auto`, or a TensorRT, with the number of a GPU or without."""
    names = get_args(Flavour)
    try:
        name, _ = split_device(value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error
    if value != "auto" and name not in names:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(['auto', *names])}.")
    return value


def check_options() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """On which images decisions are compared."""
    return combined(
        click.option(
            "--check",
            type=folder(),
            metavar="DATA",
            help="Compare decisions on photographs of this folder, one folder a class; else on drawn ones.",
        ),
        click.option(
            "--check-images",
            "count",
            type=click.IntRange(min=1),
            show_default=f"{PICTURES}, fewer for a large model on drawn ones",
            help="How many of them.",
        ),
        click.option(
            "--prompts",
            type=folder(),
            metavar="FILE",
            help="What to look for in the classes of --check, as for 'distill'.",
        ),
    )


@click.group()
def engine() -> None:
    """Build TensorRT engines of a model on this device, and look after them.

    An engine runs only on the GPU, and with the TensorRT, that it was built for. NAME is a model, or an
    engine's file.
    """


@engine.command()
@click.argument("name", metavar="BUNDLE")
@click.option(
    "--device",
    callback=tensorrt_device,
    metavar=f"[{'|'.join(['auto', *get_args(Flavour)])}]",
    default="auto",
    show_default=True,
    help="Which TensorRT; auto takes the first that is installed and can build here. tensorrt:1 builds on "
    "the second GPU.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default="auto: fp16 where 'fgdd-fast convert' has made that variant, else fp32",
    help="All but fp32 and tf32 take the variant that 'fgdd-fast convert' makes.",
)
@click.option(
    "--batch-profile",
    "batch",
    callback=batches,
    metavar="MIN:OPT:MAX",
    show_default="what --batch auto takes",
    help="Images an inference: fewest, those to be fastest at, most.",
)
@click.option(
    "--workspace",
    "workspace_mib",
    type=click.IntRange(min=1),
    metavar="MIB",
    show_default="all memory",
    help="Memory for scratch; less helps small boards to build.",
)
@check_options()
@click.option("--force", is_flag=True, help="Use the engine even if it decides too differently.")
@click.option("--rebuild", is_flag=True, help="Build even what is there already.")
def build(name: str, check: Path | None, count: int | None, prompts: Path | None, **options: Any) -> None:
    """Build the engines of a bundle here, and compare what they decide with fp32 on the CPU.

    Those of a teacher's cropped-input graphs are built as well.
    """
    settings, images = (
        BuildSettings(**options),
        CheckOptions(check=check, count=count, prompts=prompts).images,
    )
    source = find_network(name)
    for bundle in (source, *source.cropped_graphs()):
        _build(bundle, settings, images)


def _build(
    bundle: Bundle, settings: BuildSettings, images: Callable[[Bundle], Sequence[SampleImage]]
) -> None:
    target = console()
    checked = build_engines(bundle, settings, images, store=PlanStore(), progress=console_progress(target))
    target.print(plan_table(checked.plans))
    if checked.parity is not None:
        target.print(parity_table(checked.parity))
    for plan in checked.plans:
        click.echo(str(plan.path))
    if checked.unchecked:
        _log.info("Built, but not checked: %s.", checked.unchecked)
    if checked.plans[0].key.device == NONE:
        _log.info("Engines run where they are built: run this again on the device itself.")
    _refuse_below_bar(bundle, checked)


@engine.command("list")
def list_engines() -> None:
    """List the engines, and say of those that cannot be used here why."""
    store = PlanStore()
    plans, here = store.list(), platforms_here()
    reasons = {plan.path: why_not for plan in plans if (why_not := why_unusable(plan, here))}
    if plans:
        Console().print(engine_table(plans, reasons))
    else:
        click.echo(f"There is no engine in {store.folder} that could be used: fgdd-fast engine build BUNDLE")
    for path, reason in reasons.items():
        click.echo(f"{path.name}: {reason}")
    for item in store.damaged():
        click.echo(item.problem)


@engine.command()
@click.argument("name", required=False, metavar="NAME")
@click.option("--layers", is_flag=True, help="List every layer with its precision.")
@json_option()
def inspect(name: str | None, layers: bool, json_file: Path | None) -> None:
    """Show what is known of engines: what they were built of, their precisions and their parity."""
    if name is None and json_file is not None:  # 'inspect --json NAME'
        name, json_file = str(json_file), Path("-")
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    plans = _named_plans(PlanStore(), name)
    if json_file is not None:
        sidecars = [json.loads(plan.sidecar.read_bytes()) for plan in plans]
        write_json(json_file, json.dumps(sidecars[0] if len(sidecars) == 1 else sidecars, indent=2))
        return
    here = platforms_here()
    for plan in plans:
        for line in sidecar_lines(plan, why_unusable(plan, here), layers=layers):
            click.echo(line)


@engine.command()
@click.argument("name", required=False, metavar="[NAME]")
@check_options()
def verify(name: str | None, **options: Any) -> None:
    """Check engines against their hashes and this machine, and compare their decisions again."""
    store = PlanStore()
    plans = store.list() if name is None else _named_plans(store, name)
    for left in store.leftovers() if name is None else ():
        click.echo(f"{left}: left unfinished by a process that was killed; the next build clears it away")
    wrong = 0
    images = CheckOptions(**options).images
    for finding in verify_engines(plans, platforms_here(), images, store=store):
        click.echo(f"{finding.name}: {finding.words}")
        wrong += finding.wrong
    for item in store.damaged() if name is None else ():
        click.echo(item.problem)
        wrong += 1
    if wrong:
        raise EngineError(
            f"{wrong} of these engines cannot be used",
            "Remove what can never be used: fgdd-fast engine remove --stale   "
            "Then build anew: fgdd-fast engine build BUNDLE",
        )


@engine.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.option(
    "--stale",
    is_flag=True,
    help="Remove what can never be used here: of another GPU, TensorRT or model, damaged, or unfinished.",
)
@click.option("--all", "everything", is_flag=True, help="Remove all engines.")
def remove(name: str | None, stale: bool, everything: bool) -> None:
    """Remove engines, and say what became free."""
    if [name is not None, stale, everything].count(True) != 1:
        raise click.UsageError("Give a NAME, or --stale, or --all.")
    store = PlanStore()
    freed = 0
    if name is None:
        caches = stale_timing_caches(store, platforms_here()) if stale else store.timing_caches()
        freed += store.clear(caches)
    for path, reason in _to_remove(store, name, stale=stale):
        freed += store.remove(path)
        click.echo(f"Removed {path.name}" + (f": {reason}" if reason else ""))
    click.echo(f"{megabytes(freed)} are free again")


def _named_plans(store: PlanStore, name: str) -> tuple[Plan, ...]:
    """The engines of a model, of which it may have several; or the one whose file is named.

    Raises:
        EngineError: there is none, or it is damaged.
    """
    plans = tuple(plan for plan in store.list() if _is_named(plan.path, name) or _is_of_model(plan, name))
    if plans:
        return plans
    for item in store.damaged():
        if _is_named(item.path, name):
            raise EngineError(item.problem, "Remove it: fgdd-fast engine remove --stale")
    raise EngineError(f"There is no engine {name!r}", "See what there is: fgdd-fast engine list")


def _is_named(path: Path, name: str) -> bool:
    return name in (path.stem, path.name, str(path)) or Path(name).resolve() == path.resolve()


def _is_of_model(plan: Plan, name: str) -> bool:
    model = "saliency-u2netp" if name == "saliency" else name
    return model in (plan.key.model, plan.bundle.stem) or Path(name).resolve() == plan.bundle


def _to_remove(store: PlanStore, name: str | None, *, stale: bool) -> list[tuple[Path, str]]:
    """The files of engines that are to go, and why."""
    damaged = [(item.path, item.problem) for item in store.damaged()]
    if name is not None:
        named = [(path, "") for path, _ in damaged if _is_named(path, name)]
        return named or [(plan.path, "") for plan in _named_plans(store, name)]
    if not stale:
        return [(plan.path, "") for plan in store.list()] + damaged
    here = platforms_here()
    reasons = [(plan.path, why_stale(plan, here)) for plan in store.list()]
    return [(path, reason) for path, reason in reasons if reason] + damaged


def _refuse_below_bar(bundle: Bundle, checked: Checked) -> None:
    if checked.parity is not None and checked.plans[0].state == "below bar":
        raise EngineError(
            f"The engines of {bundle.name} decide too differently from its fp32 model, and are kept out of "
            f"use: {'; '.join(checked.parity.shortfalls)}",
            "Build in another --precision, or add --force to use them all the same.",
        )
