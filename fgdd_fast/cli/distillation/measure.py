"""`fgdd-fast measure`: measure a pool, so that deciding later is quick; or hold a foreground to the truth."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from fgdd_fast.cli import completion as offered
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.data import USED, data_options, executor_option, open_checked
from fgdd_fast.cli.distillation.distill import rule_option
from fgdd_fast.cli.distillation.summary import dry_run_option, measuring_figures, show_forecast
from fgdd_fast.cli.options import (
    folder,
    give,
    json_option,
    measure_options,
    runtime_of_options,
)
from fgdd_fast.cli.terminal import console, console_progress, printable, report_skipped, say
from fgdd_fast.comparison import Agreement, ForegroundComparison, compare_foregrounds
from fgdd_fast.distilling import open_pipeline
from fgdd_fast.images.dataset import DataSet
from fgdd_fast.options import FOREGROUND_RULE
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.selection.thresholds import RULE_NAMES, RULES_HELP, Rule


@click.command(cls=Command)
@click.argument("data", type=folder())
@data_options()
@measure_options()
@executor_option()
@click.option(
    "--against",
    metavar="NAME|BUNDLE|masks:FOLDER",
    help="Compare what --foreground finds with true masks, or with another foreground model. That needs no "
    "teacher.",
)
@click.option(
    "--rule",
    callback=rule_option,
    shell_complete=offered.offer(lambda: RULE_NAMES),
    show_default=FOREGROUND_RULE,
    metavar="RULE",
    help=f"With --against: which images are kept whole. {RULES_HELP}.",
)
@dry_run_option()
@json_option()
def measure(
    data: Path,
    against: str | None,
    rule: Rule | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Measure the images of DATA, so that deciding is quick.

    That is the foreground's occupancy, and the teacher's loss of each view. What the store holds already is
    not measured again. 'fgdd-fast distill' with the same options then only decides and writes.

    \b
    Example: fgdd-fast measure DATA --teacher teacher.onnx --foreground saliency-u2netp
    """
    if against is None and rule is not None:
        raise click.UsageError("--rule is for --against.")
    if against is not None and dry_run:
        raise click.UsageError("--dry-run is not for --against.")
    runtime = runtime_of_options(options)
    known = {name: options[name] for name in USED}
    validation = options.pop("validation")
    opened = open_checked(data, options, validation=validation, runtime=runtime, **known)
    if dry_run:
        progress = console_progress(console())
        asked = {"runtime": runtime, "progress": progress, **options}
        with open_pipeline(opened, look_only=True, **asked) as pipeline:
            figures = measuring_figures(pipeline.forecast(progress=progress), options["store"])
        give(figures)
        show_forecast(figures, None)
        return
    if against is None or options["teacher"] is not None:
        counts = _measure(opened, runtime, options)
    if against is None:
        give(counts)
        return
    compared = compare_foregrounds(
        opened,
        against,
        rule=rule or FOREGROUND_RULE,
        runtime=runtime,
        progress=console_progress(console()),
        **options,
    )
    report_skipped(compared.skipped)
    give(compared.to_json())
    console().print(_table(compared))


def _measure(data: DataSet, runtime: RuntimeOptions, options: dict[str, Any]) -> dict[str, Any]:
    progress = console_progress(console())
    with open_pipeline(data, runtime=runtime, progress=progress, **options) as pipeline:
        begin = time.perf_counter()
        measured = pipeline.measure(progress=progress)
        seconds = time.perf_counter() - begin
        skipped = (*pipeline.dataset.skipped, *measured.skipped)
    report_skipped(skipped)
    rate = f", {measured.measured / seconds:.1f} a second" if measured.measured else ""
    say(
        f"{measured.measured} images measured in {seconds:.1f} s{rate}; "
        f"{measured.reused} were known; {len(skipped)} skipped."
    )
    listed = [asdict(each) for each in skipped]
    return {"measured": measured.measured, "known": measured.reused, "seconds": seconds, "skipped": listed}


def _table(compared: ForegroundComparison) -> Table:
    found, expected = printable(compared.foreground), printable(compared.against)
    some = compared.overall.nothing_in_either > 0
    table = Table(
        title=f"{found} against {expected}",
        caption="Of occupancies: mean and largest error, bias, rank correlation within classes. Paths are "
        f"{compared.rule}'s." + f" Nothing: found by {found} / {expected}." * some,
    )
    table.add_column("class", no_wrap=True)
    headings = ("images", "error", "max", "bias", "IoU", "ranks", "same path")
    for heading in (*headings, "none") if some else headings:
        table.add_column(heading, justify="right")
    for name, agreement in compared.classes.items():
        table.add_row(printable(name), *_cells(agreement, some))
    table.add_section()
    table.add_row("all", *_cells(compared.overall, some))
    return table


def _cells(agreement: Agreement, nothing: bool) -> tuple[str, ...]:
    return (
        str(agreement.images),
        f"{agreement.mean_error:.3f}",
        f"{agreement.largest_error:.3f}",
        f"{agreement.bias:+.3f}",
        "—" if agreement.iou is None else f"{agreement.iou:.2f}",
        "—" if agreement.rank_correlation is None else f"{agreement.rank_correlation:.2f}",
        f"{agreement.path_agreement:.1%}",
        *([f"{agreement.nothing_found} / {agreement.nothing_expected}"] if nothing else []),
    )
