"""`fgdd-fast engine`: TensorRT engines, built on this device, checked, and kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import click

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
from fgdd_fast.cli import completion as offered
from fgdd_fast.cli.command import Group
from fgdd_fast.cli.networks.bundle_options import comparison_options
from fgdd_fast.cli.networks.convert import parity_table
from fgdd_fast.cli.networks.engine_words import engine_table, plan_table, sidecar_lines
from fgdd_fast.cli.options import give, json_option
from fgdd_fast.cli.terminal import answers, console, console_progress, say
from fgdd_fast.errors import EngineError, SettingsError
from fgdd_fast.models.factory import OWN, asked_by_class, find_network
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.runtime.engine_building import BuildSettings, build_engines
from fgdd_fast.runtime.engine_checking import Checked, Finding, verify_engines
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


@click.group(cls=Group)
def engine() -> None:
    """Build TensorRT engines on this device, and look after them.

    An engine runs only on the GPU, and with the TensorRT, that it was built for. NAME is a model, or an
    engine's file.
    """


@engine.command()
@click.argument("name", metavar="BUNDLE", shell_complete=offered.models(*OWN))
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
@comparison_options(None, shown=f"{PICTURES}, fewer for a large model on drawn ones")
@click.option("--force", is_flag=True, help="Use the engine even if it decides too differently.")
@click.option("--rebuild", is_flag=True, help="Build even what is there already.")
@json_option()
def build(
    name: str,
    check: Path | None,
    count: int | None,
    prompts: Path | None,
    **options: Any,
) -> None:
    """Build the engines of a bundle here, and compare them.

    What they decide is compared with fp32 on the CPU. Those of a teacher's cropped-input graphs are built as
    well.

    \b
    Example: fgdd-fast engine build grounded-sam2 --precision fp16
    """
    settings, images = (
        BuildSettings(**options),
        CheckOptions(check=check, count=count, prompts=prompts).images,
    )
    source, built = find_network(name), list[Plan]()
    for bundle in (source, *source.cropped_graphs()):
        built += _build(bundle, settings, images)
    give({"engines": [_sidecar(plan) for plan in built]})


def _build(
    bundle: Bundle, settings: BuildSettings, images: Callable[[Bundle], Sequence[SampleImage]]
) -> Sequence[Plan]:
    target = console()
    checked = build_engines(bundle, settings, images, store=PlanStore(), progress=console_progress(target))
    target.print(plan_table(checked.plans))
    if checked.parity is not None:
        target.print(parity_table(checked.parity))
    for plan in checked.plans:
        say(str(plan.path))
    if checked.unchecked:
        _log.info("Built, but not checked: %s.", checked.unchecked)
    if checked.plans[0].key.device == NONE:
        _log.info("Engines run where they are built: run this again on the device itself.")
    _refuse_below_bar(bundle, checked)
    return checked.plans


def _sidecar(plan: Plan) -> Any:
    return json.loads(plan.sidecar.read_bytes())


@engine.command("list")
@json_option()
def list_engines() -> None:
    """List the engines, and why one cannot be used here.

    \b
    Example: fgdd-fast engine list
    """
    store = PlanStore()
    plans, here = store.list(), platforms_here()
    reasons = {plan.path: why_not for plan in plans if (why_not := why_unusable(plan, here))}
    rows = [{**_sidecar(plan), "file": str(plan.path), "unusable": reasons.get(plan.path)} for plan in plans]
    if give({"engines": rows, "damaged": [item.problem for item in store.damaged()]}):
        return
    if plans:
        answers().print(engine_table(plans, reasons))
    else:
        click.echo(f"There is no engine in {store.folder} that could be used: fgdd-fast engine build BUNDLE")
    for path, reason in reasons.items():
        click.echo(f"{path.name}: {reason}")
    for item in store.damaged():
        click.echo(item.problem)


@engine.command()
@click.argument("name", metavar="NAME")
@click.option("--layers", is_flag=True, help="List every layer with its precision.")
@json_option()
def inspect(name: str, layers: bool) -> None:
    """Show what engines were built of, and how they compare.

    \b
    Example: fgdd-fast engine inspect grounded-sam2 --layers
    """
    plans = _named_plans(PlanStore(), name)
    sidecars = [_sidecar(plan) for plan in plans]
    if give(sidecars[0] if len(sidecars) == 1 else sidecars):
        return
    here = platforms_here()
    for plan in plans:
        for line in sidecar_lines(plan, why_unusable(plan, here), layers=layers):
            click.echo(line)


@engine.command()
@click.argument("name", required=False, metavar="[NAME]")
@comparison_options(None, shown=f"{PICTURES}, fewer for a large model on drawn ones")
@json_option()
def verify(name: str | None, **options: Any) -> None:
    """Check engines against this machine, and compare them again.

    Their hashes are checked, and their decisions are compared with those of fp32 on the CPU.

    \b
    Example: fgdd-fast engine verify
    """
    store = PlanStore()
    plans = store.list() if name is None else _named_plans(store, name)
    for left in store.leftovers() if name is None else ():
        say(f"{left}: left unfinished by a process that was killed; the next build clears it away")
    found = list[Finding]()
    images = CheckOptions(**options).images
    for finding in verify_engines(plans, platforms_here(), images, store=store):
        say(f"{finding.name}: {finding.words}", always=True)
        found.append(finding)
    for item in store.damaged() if name is None else ():
        say(item.problem, always=True)
        found.append(Finding(item.path.name, item.problem, True))
    give({"engines": [asdict(finding) for finding in found]})
    if wrong := sum(finding.wrong for finding in found):
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
    """Remove engines, and say what became free.

    \b
    Example: fgdd-fast engine remove --stale
    """
    if [name is not None, stale, everything].count(True) != 1:
        raise click.UsageError("Give a NAME, or --stale, or --all.")
    store = PlanStore()
    freed = 0
    if name is None:
        caches = stale_timing_caches(store, platforms_here()) if stale else store.timing_caches()
        freed += store.clear(caches)
    for path, reason in _to_remove(store, name, stale=stale):
        freed += store.remove(path)
        say(f"Removed {path.name}" + (f": {reason}" if reason else ""))
    say(f"{megabytes(freed)} are free again")


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
