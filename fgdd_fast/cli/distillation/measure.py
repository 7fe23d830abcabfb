"""`fgdd-fast measure`: measure a pool, so that deciding later is quick; or hold a foreground to the truth."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from fgdd_fast.cli.data import USED, data_options, open_checked
from fgdd_fast.cli.distillation.distill import rule_option
from fgdd_fast.cli.options import folder, json_option, measure_options, runtime_of_options, write_json
from fgdd_fast.cli.terminal import console, console_progress, printable, report_skipped
from fgdd_fast.comparison import Agreement, ForegroundComparison, compare_foregrounds
from fgdd_fast.distilling import open_pipeline
from fgdd_fast.images.dataset import DataSet
from fgdd_fast.options import FOREGROUND_RULE
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.selection.thresholds import RULES_HELP, Rule


@click.command()
@click.argument("data", type=folder())
@data_options()
@measure_options()
@click.option(
    "--against",
    metavar="NAME|BUNDLE|masks:FOLDER",
    help="Compare what --foreground finds with true masks, or with another foreground model. That needs no "
    "teacher.",
)
@click.option(
    "--rule",
    callback=rule_option,
    show_default=FOREGROUND_RULE,
    metavar="RULE",
    help=f"With --against: which images are kept whole. {RULES_HELP}.",
)
@json_option()
def measure(
    data: Path, against: str | None, rule: Rule | None, json_file: Path | None, **options: Any
) -> None:
    """Measure the images of DATA: the foreground's occupancy, and the teacher's loss of each view.

    What the store holds already is not measured again. 'fgdd-fast distill' with the same options then only
    decides and writes.
    """
    if against is None and (rule is not None or json_file is not None):
        raise click.UsageError("--rule and --json are for --against.")
    runtime = runtime_of_options(options)
    known = {name: options[name] for name in USED}
    validation = options.pop("validation")
    opened = open_checked(data, options, validation=validation, runtime=runtime, **known)
    if against is None or options["teacher"] is not None:
        _measure(opened, runtime, options, err=json_file is not None)
    if against is None:
        return
    compared = compare_foregrounds(
        opened,
        against,
        rule=rule or FOREGROUND_RULE,
        runtime=runtime,
        progress=console_progress(console()),
        **options,
    )
    report_skipped(compared.skipped, console())
    if json_file is not None:
        write_json(json_file, json.dumps(compared.to_json(), indent=1))
    console().print(_table(compared))


def _measure(data: DataSet, runtime: RuntimeOptions, options: dict[str, Any], *, err: bool) -> None:
    with open_pipeline(data, runtime=runtime, **options) as pipeline:
        begin = time.perf_counter()
        measured = pipeline.measure(progress=console_progress(console()))
        seconds = time.perf_counter() - begin
        skipped = (*pipeline.dataset.skipped, *measured.skipped)
    report_skipped(skipped, console())
    rate = f", {measured.measured / seconds:.1f} a second" if measured.measured else ""
    click.echo(
        f"{measured.measured} images measured in {seconds:.1f} s{rate}; "
        f"{measured.reused} were known; {len(skipped)} skipped.",
        err=err,
    )


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
