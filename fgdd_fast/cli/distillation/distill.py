"""`fgdd-fast distill`: from a folder of labelled images to mosaics and their manifest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from fgdd_fast.cli.distillation.label import LabelOptions, label_folder, summary
from fgdd_fast.cli.options import folder, measure_options, selection_options
from fgdd_fast.cli.session import (
    MeasureOptions,
    Session,
    measure_features,
    measure_pool,
    open_session,
    printable,
    progress_bar,
    report_skipped,
)
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import pool, scan
from fgdd_fast.models.network import Teacher
from fgdd_fast.output.folder import check_output, output_folder
from fgdd_fast.output.manifest import DistilledImage, Manifest, Setting, build, write
from fgdd_fast.output.mosaic import Format
from fgdd_fast.output.writing import (
    MosaicSettings,
    Plan,
    check_pool,
    decide,
    tiles_with_features,
    write_mosaics,
)
from fgdd_fast.selection.ranking import RankingName
from fgdd_fast.selection.select import PLAIN, SelectionSettings, default_keep_foreground
from fgdd_fast.selection.thresholds import RULES_HELP, Rule, parse_rule


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
@selection_options()
@click.option(
    "--format", type=click.Choice(["png", "jpg"]), default="png", show_default=True, help="Of the mosaics."
)
@click.option(
    "--labels",
    type=click.IntRange(min=0),
    metavar="EPOCHS",
    help="Also store the teacher's soft labels of so many epochs, as 'fgdd-fast label' does; 0 is for images "
    "and tiles alone.",
)
@click.option("--overwrite", is_flag=True, help="Replace an older distilled data set at OUT.")
def distill(
    data: Path,
    out: Path,
    ipc: int,
    rule: Rule,
    format: Format,
    labels: int | None,
    overwrite: bool,
    ranking: RankingName,
    keep_foreground: float | None,
    least_area: float,
    near_duplicates: int | None,
    **options: Any,
) -> None:
    """Distil the images of DATA into OUT/images/<class>/ and OUT/manifest.json."""
    console = Console(stderr=True)
    measuring = MeasureOptions(**options)
    if keep_foreground is None:
        keep_foreground = default_keep_foreground(rule)
    _, manifest = run_distill(
        data,
        out,
        ipc=ipc,
        rule=rule,
        format=format,
        overwrite=overwrite,
        options=measuring,
        selection=SelectionSettings(ranking, keep_foreground, least_area, near_duplicates),
        console=console,
    )
    click.echo(f"{len(manifest.images)} mosaics in {out}")
    if labels is not None:  # OUT is in place: where labelling is stopped, 'fgdd-fast label' goes on with it
        labelling = LabelOptions(
            epochs=labels,
            seed=measuring.seed,
            device=measuring.device,
            precision=measuring.precision,
            threads=measuring.threads,
            batch=measuring.batch,
        )
        click.echo(summary(out, label_folder(out, measuring.teacher, labelling, console)))


def run_distill(
    data: Path,
    out: Path,
    *,
    ipc: int,
    rule: Rule,
    format: Format = "png",
    overwrite: bool,
    options: MeasureOptions,
    selection: SelectionSettings = PLAIN,
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
        selection=selection,
    )
    check_output(out, data, overwrite=overwrite)
    dataset = scan(data)
    check_pool(pool(dataset, options.pool, options.seed), options.crops, settings)
    with open_session(dataset, options, console, selection) as session:
        measured = measure_pool(session, console)
        left_out = {item.source for item in measured.skipped}
        usable = [image for image in session.images if image.source not in left_out]
        wanted = tiles_with_features(session.dataset, usable, session.measurer, settings)
        measure_features(session, wanted, console)
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
                settings=_settings(settings, options, session),
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


def _settings(settings: MosaicSettings, options: MeasureOptions, session: Session) -> dict[str, Setting]:
    """Every setting that the result depends on, as on the command line; a limit only where one is set."""
    selection = settings.selection
    asked: dict[str, Setting] = {}
    if session.choice.box_threshold is not None:
        asked["box_threshold"] = session.choice.box_threshold
    if selection.keep_foreground:
        asked["keep_foreground"] = selection.keep_foreground
    if selection.least_area:
        asked["least_area"] = selection.least_area
    if selection.near_duplicates is not None:
        asked["near_duplicates"] = selection.near_duplicates
    return {
        "ipc": settings.ipc,
        "factor": settings.factor,
        "size": settings.size,
        "rule": str(settings.rule),
        "ranking": selection.ranking,
        "crops": options.crops,
        "pool": "all" if options.pool is None else options.pool,
        "score_view": session.teacher.view,
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
            + _advice_on_view(session.teacher)
        )


def _advice_on_view(teacher: Teacher) -> str:
    """What else may be wrong where tiles are shown smaller than what the teacher was made for."""
    bundle = teacher.bundle
    fills_the_view = bundle.tile_of is None and teacher.tile_size >= bundle.preprocessing.width
    if teacher.view == "resize" or fills_the_view:
        return ""
    return (
        f"[yellow] Or are tiles of {teacher.tile_size} pixels too small for it as it sees them? "
        f"Try: --score-view resize[/yellow]"
    )
