"""What `distill` shows: what was decided for each class, and what was made in which time, or would be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from fgdd_fast.cli.options import F
from fgdd_fast.cli.terminal import NARROW, answers, clock, console, printable, readable_size, report_skipped
from fgdd_fast.distilling import DistillationForecast
from fgdd_fast.measurement.forecast import Forecast
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.planning import Plan

_CLASSES = 40  # in the table, of more


def dry_run_option() -> Callable[[F], F]:
    """Whether only is told what would be done."""
    return click.option(
        "--dry-run",
        is_flag=True,
        help="Tell what would be measured and written, how long that should take, and what disk it needs; "
        "a few images are measured for it, and nothing is kept.",
    )


def report_plan(plan: Plan) -> None:
    """Show what was decided for each class, and what was left out."""
    narrow = console().width < NARROW
    table = Table(box=None, pad_edge=False) if narrow else Table()
    some = any(part.selection.nothing_found for part in plan.classes)
    table.add_column("class", overflow="fold")
    headings = ["images", "threshold", "whole tiles", "crop tiles", "further crops"]
    for heading in [*headings, "nothing found in"] if some else headings:
        table.add_column(heading, justify="right", min_width=max(map(len, heading.split())))
    for part in plan.classes[:_CLASSES]:
        paths = [tile.kind for tile in part.selection.tiles]
        counts = (
            len(part.full_losses),
            f"{part.selection.threshold:.3f}" if plan.settings.rule.needs_foreground else "—",
            paths.count("full"),
            paths.count("crop"),
            part.selection.further,
            *([part.selection.nothing_found] if some else []),
        )
        table.add_row(printable(part.name), *map(str, counts))
    console().print(table)
    if len(plan.classes) > _CLASSES:
        console().print(f"… and {len(plan.classes) - _CLASSES} more classes, which the manifest has")
    report_skipped(plan.skipped)


def figures_of(
    out: Path, manifest: Manifest, seconds: Mapping[str, float], report: Path | None
) -> dict[str, Any]:
    """What was made, for programs."""
    kinds = [tile.kind for image in manifest.images for tile in image.tiles]
    return {
        "out": str(out),
        "classes": len(manifest.classes),
        "images": manifest.image_count,
        "skipped": len(manifest.skipped),
        "mosaics": len(manifest.images),
        "whole_tiles": kinds.count("full"),
        "crop_tiles": kinds.count("crop"),
        "models": {role: model.name for role, model in manifest.models.items()},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "report": None if report is None else str(report),
    }


def show_summary(figures: Mapping[str, Any], next_steps: Sequence[str]) -> None:
    """Show what was made, how long each stage took, where it is, and what could come next."""
    models, seconds = figures["models"], figures["seconds"]
    whole, crops = figures["whole_tiles"], figures["crop_tiles"]
    skipped = f", {figures['skipped']} skipped" if figures["skipped"] else ""
    rows = {
        "classes": str(figures["classes"]),
        "images": f"{figures['images']} considered{skipped}",
        "mosaics": f"{figures['mosaics']}, of {whole} whole and {crops} cropped tiles",
        "models": ", ".join(f"{name} ({role})" for role, name in models.items()),
        "time": ", ".join(f"{name} {clock(value)}" for name, value in seconds.items()),
        "images in": f"{figures['out']}/images",
        "report": figures["report"] or "",
    }
    _show_rows(console(), "Distilled", {name: value for name, value in rows.items() if value})
    for line in next_steps:
        console().print(f"[dim]Next:[/dim] {printable(line)}", highlight=False, soft_wrap=True)


def measuring_figures(found: Forecast, store: Path) -> dict[str, Any]:
    """What measuring would take, for programs."""
    counts = {"images": found.images, "to_measure": found.missing, "sample": found.sample}
    return {**counts, "seconds": found.seconds, "store": str(store), "store_bytes": found.store_bytes}


def forecast_figures(found: DistillationForecast, store: Path, labels: int | None) -> dict[str, Any]:
    """What distilling would take, for programs; `labels` are epochs of stored labels."""
    settings, classes, mosaics = found.settings, found.classes, found.mosaics
    logits = 2 * classes
    views = (
        0
        if labels is None
        else mosaics * (1 + settings.factor**2) * logits + mosaics * labels * (logits + 14)
    )
    made = {"classes": classes, "mosaics": mosaics, "rule": str(settings.rule)}
    sizes = {"out_bytes": found.output_bytes, "labels_bytes": views}
    return {**made, **measuring_figures(found.measuring, store), **sizes}


def show_forecast(figures: Mapping[str, Any], out: Path | None) -> None:
    """Show what would be done, how long that should take, and what it needs of the disk."""
    missing, sample = figures["to_measure"], figures["sample"]
    rows = {}
    if out is not None:
        rows["would write"] = (
            f"{figures['mosaics']} mosaics of {figures['classes']} classes, {figures['rule']}"
        )
    rows["to measure"] = f"{missing} of {figures['images']} images; the store has the others"
    if missing:
        each = figures["seconds"] / missing
        rows["time"] = f"about {clock(figures['seconds'])}: {each:.3g} s an image, by a sample of {sample}"
        rows["store"] = f"{readable_size(figures['store_bytes'])} more in {figures['store']}"
    if out is not None:
        rows["OUT"] = f"{readable_size(figures['out_bytes'])} of mosaics in {out}"
        if figures["labels_bytes"]:
            rows["labels"] = f"{readable_size(figures['labels_bytes'])}; their time is not counted"
    folders = {"store": Path(figures["store"]), **({} if out is None else {"OUT": out})}
    rows["free"] = ", ".join(f"{readable_size(_free(path))} for {name}" for name, path in folders.items())
    _show_rows(answers(), "Nothing is written", rows)


def _free(path: Path) -> int:
    """What the disk has left on which a folder is, or would be."""
    path = path.absolute()
    return shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free


def _show_rows(target: Console, title: str, rows: Mapping[str, str]) -> None:
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, printable(value))
    target.print(table, highlight=False)
