"""`fgdd-fast convert`: variants of a bundle in lower precision, which decide as the fp32 one does."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from fgdd_fast.cli import completion as offered
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.networks.bundle_options import comparison_options
from fgdd_fast.cli.options import folder, give, json_option
from fgdd_fast.cli.terminal import answers, console, console_progress
from fgdd_fast.errors import SettingsError
from fgdd_fast.models.factory import OWN, asked_by_class, find_network
from fgdd_fast.models.prompts import read_prompts
from fgdd_fast.runtime.sample_images import check_images
from fgdd_fast.runtime.tolerances import ParityReport

NAMED_IN_FULL = 8  # nodes


@click.command(cls=Command)
@click.argument("bundle", shell_complete=offered.models(*OWN))
@click.option(
    "--precision",
    type=click.Choice(["fp16", "bf16", "int8"]),
    required=True,
    help="fp16 and bf16 are for GPUs; int8 is for CPUs and boards.",
)
@click.option(
    "--calibrate",
    type=folder(),
    metavar="DATA",
    help="Images like those to be measured, one folder a class; int8 needs them.",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="How many of them.",
)
@comparison_options(24)
@json_option()
@click.option("--force", is_flag=True, help="Write variants even if they decide too differently.")
def convert(
    bundle: str,
    precision: Any,
    calibrate: Path | None,
    calibration_images: int,
    check: Path | None,
    count: int,
    prompts: Path | None,
    force: bool,
) -> None:
    """Make variants of a network in lower precision.

    They lie beside BUNDLE; those of a teacher's cropped-input graphs are made as well. BUNDLE is a name
    (saliency, grounded-sam2, cam, one of the catalogue) or a path. What decides otherwise than the fp32 graph
    is not written; nodes that cause it are looked for, and stay in fp32.

    \b
    Example: fgdd-fast convert teacher.onnx --precision int8 --calibrate DATA
    """
    source = find_network(bundle)
    if precision == "int8" and calibrate is None:
        raise SettingsError(
            "int8 needs images that tell how large the values inside the network become",
            "Name a folder of images like those to be measured: --calibrate DATA",
        )
    named = asked_by_class(source)
    progress = console_progress(console())
    images = check_images(check, count, {} if prompts is None else read_prompts(prompts), named=named)
    conversion = import_module("fgdd_export.precision.conversion")
    samples = check_images(calibrate, calibration_images, {}) if precision == "int8" else ()
    with progress.task(f"Converting {source.name}"):
        converted = conversion.convert(source, precision, images, calibration=samples, force=force)
    give({"variants": [_figures(each) for each in converted]})
    _show(converted)


def _figures(each: Any) -> dict[str, Any]:
    counts = {"lowered": each.lowered, "in_fp32": sorted(each.kept), "sensitive": each.sensitive}
    made = {"bundle": str(each.bundle.onnx), "variant": each.bundle.variant}
    return {**made, **counts, "parity": dict(each.parity.figures)}


def _show(converted: Sequence[Any]) -> None:
    target = answers()
    for each in converted:
        kept = len(each.kept)
        target.print(
            f"{each.bundle.onnx}: {each.lowered} nodes in {each.bundle.variant}, {kept} in fp32",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
        if each.sensitive:
            names = ", ".join(each.sensitive[:NAMED_IN_FULL])
            more = len(each.sensitive) - NAMED_IN_FULL
            rest = f" and {more} more" if more > 0 else ""
            target.print(f"  in fp32 for what they did to decisions: {names}{rest}", markup=False)
        target.print(parity_table(each.parity))


def parity_table(parity: ParityReport) -> Table:
    """How decisions compare, and what is accepted."""
    table = Table("figure", "value", "accepted")
    for name, value in parity.figures.items():
        limit = parity.tolerances.get(name)
        table.add_row(name.replace("_", " "), f"{value:.4g}", "" if limit is None else str(limit))
    return table
