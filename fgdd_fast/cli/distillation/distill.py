"""`fgdd-fast distill`: from a folder of labelled images to mosaics and their manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fgdd_fast.checking.findings import Finding
from fgdd_fast.cli import completion as offered
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.data import USED, data_options, executor_option, open_checked
from fgdd_fast.cli.distillation.label import summary
from fgdd_fast.cli.distillation.report import report_option, write_final_report
from fgdd_fast.cli.distillation.summary import (
    dry_run_option,
    figures_of,
    forecast_figures,
    report_plan,
    show_forecast,
    show_summary,
)
from fgdd_fast.cli.options import (
    folder,
    give,
    json_option,
    measure_options,
    preset_option,
    runtime_of_options,
    selection_options,
)
from fgdd_fast.cli.terminal import console, console_progress, say
from fgdd_fast.distilling import distill as run_distill
from fgdd_fast.distilling import forecast_distillation
from fgdd_fast.errors import SettingsError
from fgdd_fast.labels.making import make_labels
from fgdd_fast.options import FOREGROUND_RULE, WHOLE_RULE
from fgdd_fast.output.run_record import RunLog, read_run_record
from fgdd_fast.selection.images_per_class import HELP, parse_images_per_class
from fgdd_fast.selection.thresholds import RULE_NAMES, RULES_HELP, Rule, parse_rule
from fgdd_fast.trust.remaking import remake

_NOT_DECIDING = {"data", "out", "overwrite", "threads", "from_manifest", "report"}


def rule_option(ctx: click.Context, param: click.Parameter, value: str | None) -> Rule | None:
    """Parse a threshold rule, if one is given."""
    if value is None:
        return None
    try:
        return parse_rule(value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error


def ipc_option(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse what is no number of images per class, before anything is read."""
    try:
        parse_images_per_class(value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error
    return value


@click.command(cls=Command)
@click.argument("data", type=folder())
@click.argument("out", type=folder())
@click.option(
    "--ipc", callback=ipc_option, default="10", show_default=True, help=f"Images (mosaics) per class: {HELP}."
)
@click.option(
    "--rule",
    callback=rule_option,
    shell_complete=offered.offer(lambda: RULE_NAMES),
    show_default=f"{FOREGROUND_RULE} where a foreground model is named, else {WHOLE_RULE}",
    metavar="RULE",
    help=f"Which images are kept whole. {RULES_HELP}.",
)
@preset_option()
@data_options()
@measure_options()
@executor_option()
@selection_options()
@click.option(
    "--format", type=click.Choice(["png", "jpg"]), default="png", show_default=True, help="Of the mosaics."
)
@click.option(
    "--label-epochs",
    type=click.IntRange(min=0),
    metavar="EPOCHS",
    help="Also store the teacher's soft labels of so many epochs, as 'fgdd-fast label' does; 0 is for images "
    "and tiles alone.",
)
@click.option("--overwrite", is_flag=True, help="Replace an older distilled data set at OUT.")
@click.option(
    "--from-manifest",
    type=folder(),
    metavar="FILE",
    help="Make the data set of this manifest again from DATA, tile by tile; no model runs.",
)
@report_option()
@dry_run_option()
@json_option()
@click.pass_context
def distill(
    ctx: click.Context,
    /,
    data: Path,
    out: Path,
    label_epochs: int | None,
    from_manifest: Path | None,
    report: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Distil the images of DATA into mosaics, in the folder OUT.

    These lie in OUT/images/<class>/, and OUT/manifest.json says what they are made of. What was measured is
    kept: the same command goes on where it was stopped, and other settings measure only what is missing.

    \b
    Example: fgdd-fast distill DATA OUT --teacher teacher.onnx --ipc 10
    """
    if from_manifest is not None:
        _remake(ctx, from_manifest, data, out)
        return
    runtime = runtime_of_options(options)
    progress = console_progress(console())
    known = {name: options[name] for name in ("ipc", *USED)}
    validation, near = options.pop("validation"), options["near_duplicates"]
    found: list[Finding] = []
    opened = open_checked(
        data, options, validation=validation, runtime=runtime, near=near, found=found, **known
    )
    if dry_run:
        forecast = forecast_distillation(opened, out, runtime=runtime, progress=progress, **options)
        figures = forecast_figures(forecast, options["store"], label_epochs)
        give(figures)
        show_forecast(figures, out)
        return
    remarks = [f"{each.message}. {each.advice} ({each.severity}: {each.code})" for each in found]
    plan, manifest = run_distill(opened, out, remarks=remarks, runtime=runtime, progress=progress, **options)
    report_plan(plan)
    say(f"{len(manifest.images)} mosaics in {out}")
    log = RunLog()
    page = None
    if report:
        with log.stage("the report"):
            page = write_final_report(out, data, threads=runtime.threads, progress=progress)
    labels = {"epochs": label_epochs, "seed": options["seed"], "runtime": runtime, "progress": progress}
    if label_epochs is not None:  # OUT is in place: where labelling is stopped, 'fgdd-fast label' goes on
        with log.stage("labels"):
            index = make_labels(out, options["teacher"], **labels)
        say(summary(out, index))
    record = read_run_record(out)
    figures = figures_of(out, manifest, {**(record.seconds if record else {}), **log.seconds}, page)
    give(figures)
    label = f"fgdd-fast label {out} --teacher {options['teacher']}"
    evaluate = f"fgdd-fast evaluate {out} --validation FOLDER"
    show_summary(figures, [evaluate] if label_epochs else [label, evaluate])


def _remake(ctx: click.Context, manifest: Path, data: Path, out: Path) -> None:
    """Make a data set again; what its manifest says cannot be asked for otherwise."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in ctx.params
        if name not in _NOT_DECIDING and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise SettingsError(
            f"{', '.join(given)} cannot be used with --from-manifest, which says all of it",
            "Leave it out, or distil anew without --from-manifest.",
        )
    threads, overwrite = ctx.params["threads"], ctx.params["overwrite"]
    progress = console_progress(console())
    log = RunLog()
    with log.stage("making mosaics"):
        made = remake(manifest, data, out, overwrite=overwrite, threads=threads, progress=progress)
    say(f"{len(made.images)} mosaics in {out}")
    figures = figures_of(out, made, log.seconds, None)
    give(figures)
    show_summary(figures, [f"fgdd-fast verify {out} {data}"])
