"""`fgdd-fast distill`: from a folder of labelled images to mosaics and their manifest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from fgdd_fast.cli.options import folder, measure_options
from fgdd_fast.cli.session import (
    MeasureOptions,
    Session,
    measure_pool,
    open_session,
    printable,
    progress_bar,
    report_skipped,
)
from fgdd_fast.dataset import pool, scan
from fgdd_fast.distill import MosaicSettings, Plan, check_pool, decide, write_mosaics
from fgdd_fast.errors import SettingsError
from fgdd_fast.foreground_opening import ForegroundChoice
from fgdd_fast.manifest import DistilledImage, Manifest, Setting, build, write
from fgdd_fast.mosaic import Format
from fgdd_fast.output import check_output, output_folder
from fgdd_fast.thresholds import RULES_HELP, Rule, parse_rule


def rule_option(ctx: click.Context, param: click.Parameter, value: str) -> Rule:
    """Parse a threshold rule."""
    try:
        return parse_rule(value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("data", type=folder())
@click.argument("out", type=folder())
@click.option(
    "--ipc", type=click.IntRange(min=1), default=10, show_default=True, help="Images (mosaics) per class."
)
@click.option(
    "--rule",
    callback=rule_option,
    default="quantile:0.3",
    show_default=True,
    metavar="RULE",
    help=f"Which images are kept whole. {RULES_HELP}.",
)
@measure_options()
@click.option(
    "--format", type=click.Choice(["png", "jpg"]), default="png", show_default=True, help="Of the mosaics."
)
@click.option("--overwrite", is_flag=True, help="Replace an older distilled data set at OUT.")
def distill(
    data: Path, out: Path, ipc: int, rule: Rule, format: Format, overwrite: bool, **options: Any
) -> None:
    """Distil the images of DATA into OUT/images/<class>/ and OUT/manifest.json."""
    console = Console(stderr=True)
    _, manifest = run_distill(
        data,
        out,
        ipc=ipc,
        rule=rule,
        format=format,
        overwrite=overwrite,
        options=MeasureOptions(**options),
        console=console,
    )
    click.echo(f"{len(manifest.images)} mosaics in {out}")


def run_distill(
    data: Path,
    out: Path,
    *,
    ipc: int,
    rule: Rule,
    format: Format = "png",
    overwrite: bool,
    options: MeasureOptions,
    console: Console,
) -> tuple[Plan, Manifest]:
    """Measure what is missing, decide, and write OUT whole.

    Returns:
        What was decided, and what was written.

    Raises:
        FgddError: see `fgdd_fast.errors`; OUT is then as it was.
    """
    settings = MosaicSettings(
        ipc=ipc,
        factor=options.factor,
        size=options.size,
        rule=rule,
        seed=options.seed,
        resize=options.resize,
        format=format,
    )
    check_output(out, data, overwrite=overwrite)
    dataset = scan(data)
    check_pool(pool(dataset, options.pool, options.seed), options.crops, settings)
    with open_session(dataset, options, console) as session:
        measured = measure_pool(session, console)
        left_out = {item.source for item in measured.skipped}
        usable = [image for image in session.images if image.source not in left_out]
        plan = decide(session.dataset, usable, session.measurer, settings)
        skipped = (*session.dataset.skipped, *measured.skipped, *plan.skipped)
        with output_folder(out, overwrite=overwrite) as partial, progress_bar(console) as bar:
            task = bar.add_task("Writing", total=ipc * len(plan.classes))
            images = []
            for file, name, mosaic in write_mosaics(
                plan, session.paths, partial, settings, threads=options.threads
            ):
                images.append(DistilledImage(file, name, mosaic.tiles))
                bar.advance(task)
            manifest = build(
                image_count=len(session.images),
                settings=_settings(settings, options, session.choice),
                prompts=session.choice.prompts,
                models=session.models,
                selections={plan.name: plan.selection for plan in plan.classes},
                images=images,
                skipped=skipped,
                runtime=session.runtime,
            )
            write(manifest, partial)
    _report(plan, session, manifest, console)
    return plan, manifest


def _settings(
    settings: MosaicSettings, options: MeasureOptions, choice: ForegroundChoice
) -> dict[str, Setting]:
    """Every setting that the result depends on, as on the command line."""
    asked: dict[str, Setting] = {}
    if choice.box_threshold is not None:
        asked["box_threshold"] = choice.box_threshold
    return {
        "ipc": settings.ipc,
        "factor": settings.factor,
        "size": settings.size,
        "rule": str(settings.rule),
        "ranking": "loss",
        "crops": options.crops,
        "pool": "all" if options.pool is None else options.pool,
        "score_view": options.score_view,
        "resize": settings.resize,
        "seed": settings.seed,
        "batch": options.batch,
        "format": settings.format,
        **asked,
    }


def _report(plan: Plan, session: Session, manifest: Manifest, console: Console) -> None:
    table = Table()
    for heading in ("class", "images", "threshold", "whole tiles", "crop tiles", "further crops"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for part in plan.classes:
        paths = [tile.path for tile in part.selection.tiles]
        counts = (
            len(part.full_losses),
            f"{part.selection.threshold:.3f}",
            paths.count("full"),
            paths.count("crop"),
        )
        table.add_row(printable(part.name), *map(str, counts), str(part.selection.further))
    console.print(table)
    report_skipped(manifest.skipped, console)
    chance = math.log(len(session.teacher.bundle.classes or ()))
    loss = plan.mean_full_loss()
    if not loss < chance:
        console.print(
            f"[yellow]The teacher's mean loss on whole images is {loss:.2f}, no better than guessing "
            f"({chance:.2f}): are its classes these? Run: fgdd-fast teacher check[/yellow]"
        )
