"""`fgdd-fast tune`: the fastest arithmetic whose decisions agree on one's own photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import folder, give, json_option
from fgdd_fast.cli.terminal import answers, console, console_progress, say
from fgdd_fast.options import DEFAULT_FOREGROUND

# How the table words what agrees, of each figure that it has.
_AGREEMENT = {
    "same_path": "{:.0%} of paths",
    "mean_occupancy_error": "occupancy ±{:.4f}",
    "same_or_near_crop": "{:.0%} of crops",
    "loss_rank_correlation": "order {:.3f}",
    "same_class": "{:.0%} of classes",
}


@click.command(cls=Command)
@click.argument("data", type=folder(), required=False)
@click.option("--teacher", metavar="BUNDLE", help="Teacher: a bundle made by 'fgdd-fast teacher fit'.")
@click.option("--foreground", default=DEFAULT_FOREGROUND, show_default=True, metavar="NAME|BUNDLE|none")
@click.option("--calibrate", type=folder(), metavar="OUT", help="Calibrate int8 on a distilled set as well.")
@click.option(
    "--precisions",
    callback=lambda _, __, value: value and value.split(","),
    metavar="NAME,…",
    help="Of int8, fp16 and bf16; by default those that this machine gains from.",
)
@click.option("--images", type=click.IntRange(min=1), default=64, show_default=True, help="To compare on.")
@click.option("--reset", is_flag=True, help="Remove what was tuned of these networks; needs no DATA.")
@json_option()
def tune(data: Path | None, reset: bool, **options: Any) -> None:
    """Find the fastest arithmetic that decides alike on your images.

    Makes the variants that this machine gains from, calibrated on as many photographs as they are then
    compared on: which stay whole, occupancies, losses, chosen crops, and classes. What agrees is kept, and
    --device auto uses the fastest from now on, on this machine with these versions.

    \b
    Example: fgdd-fast tune DATA --teacher teacher.onnx
    """
    tuning = import_module("fgdd_export.precision.tuning")
    if reset:
        removed = tuning.reset_tuning(teacher=options["teacher"], foreground=options["foreground"])
        give({network: {"records": counts[0], "variants": counts[1]} for network, counts in removed.items()})
        for network, (records, variants) in removed.items():
            say(f"{network}: {records} records and {variants} variants removed")
        return
    if data is None:
        raise click.UsageError("Missing argument 'DATA'.")
    found = tuning.tune(data, progress=console_progress(console()), **options)
    give(asdict(found))
    _show(found)


def _show(found: Any) -> None:
    target = answers()
    for network, mirrored in found.mirrored.items():
        table = Table("way", "calibrated on", "agreement with fp32", "speed", "kept", box=None, title=network)
        for row in (each for each in found.rows if each.network == network):
            kept = "; ".join(row.shortfalls) or "another calibration agrees better"
            kept = "used" if row.used else "yes" if row.kept else f"no: {kept}"
            speed = f"{row.speed:.2f}" if row.speed else ""
            way = f"{row.device} {row.precision}".strip()
            table.add_row(*map(escape, (way, row.calibrated_on, _agreement(row.figures), speed, kept)))
        table.add_row("mirrored photographs", "", _agreement(mirrored), "", "")
        target.print(table)
    target.print(
        f"{found.images} photographs of {escape(found.data)}, {escape(found.processor)}; "
        "speed 1 is fp32 in ONNX Runtime on the processor."
    )


def _agreement(figures: Mapping[str, float]) -> str:
    return ", ".join(text.format(figures[name]) for name, text in _AGREEMENT.items() if name in figures)
