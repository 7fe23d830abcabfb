"""How long ImageNet-1K, or another data set, would take to distil on a machine of these rates.

    python -m benchmarks.studies.scale.project --rates stages.json
    python -m benchmarks.studies.scale.project --rates scale.json --gpu --rate teacher=18000

Rates come from a result of `benchmarks.studies.scale.scale` or `.stages`; those given replace them. So
anybody can project a machine of theirs, and what it would gain from a faster part.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.studies.scale.projection import FORMULA, IMAGENET, Projection, Rates, project
from benchmarks.studies.scale.projection_rates import GIVEN, parse_given, read_rates, with_given
from fgdd_fast.errors import FgddError

_POSITIVE = click.IntRange(min=1)


@click.command()
@click.option("--rates", "file", type=click.Path(path_type=Path), help="A result with measured rates.")
@click.option(
    "--rate",
    "given",
    multiple=True,
    metavar="NAME=PER_SECOND",
    help="; ".join(f"{name}: {what}" for name, what in GIVEN.items()) + ".",
)
@click.option("--gpu", is_flag=True, help="The networks run on a GPU, at the rates given.")
@click.option("--threads", type=_POSITIVE, help="Processor threads, where they are not those of the rates.")
@click.option("--classes", type=_POSITIVE, default=IMAGENET.classes, show_default=True)
@click.option("--pool", type=_POSITIVE, default=IMAGENET.pool, show_default=True, help="Images of a class.")
@click.option("--crops", type=_POSITIVE, default=IMAGENET.crops, show_default=True)
@click.option("--ipc", type=_POSITIVE, default=IMAGENET.ipc, show_default=True, help="Mosaics of a class.")
@click.option("--factor", type=_POSITIVE, default=IMAGENET.factor, show_default=True)
@click.option(
    "--megapixels",
    type=click.FloatRange(min=0, min_open=True),
    default=IMAGENET.megapixels,
    show_default=True,
    help="Of an image, on average; ImageNet's are 469 x 387.",
)
@click.option(
    "--megabytes",
    type=click.FloatRange(min=0, min_open=True),
    default=IMAGENET.megabytes,
    show_default=True,
    help="Of an image's file, on average; ImageNet's archive has 147.9 GB for 1,281,167 images.",
)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(
    file: Path | None,
    given: tuple[str, ...],
    gpu: bool,
    threads: int | None,
    output: Path | None,
    **sizes: float,
) -> None:
    """Project a distillation; by default ImageNet-1K with 300 images and 10 mosaics of each class."""
    workload = replace(IMAGENET, **sizes)  # type: ignore[arg-type]  # click has made each what it has to be
    if workload != IMAGENET:
        workload = replace(workload, name="as given")
    try:
        rates = Rates(seconds={}, threads=1) if file is None else read_rates(file, workload)
        rates = with_given(rates, dict(map(parse_given, given)), workload, gpu=gpu, threads=threads)
    except FgddError as error:
        raise click.ClickException(str(error)) from error
    projection = project(workload, rates)
    if output is not None:
        result = {"command": "python -m benchmarks.studies.scale.project", "projection": asdict(projection)}
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(projection, Console())


def show(projection: Projection, console: Console) -> None:
    """Print the arithmetic of a projection."""
    workload, rates = projection.workload, projection.rates
    table = Table("phase", "work", "count", "each", "total", "worker", box=SIMPLE)
    for column in table.columns[2:5]:
        column.justify = "right"
    for row in projection.rows:
        count = f"{row.count:,.0f} {row.unit}s"
        each, total = f"{1000 * row.seconds_each:.3g} ms", f"{row.total:,.0f} s"
        table.add_row(row.phase, row.work, count, each, total, row.worker)
    console.print(
        f"{workload.name}: {workload.classes:,} classes of {workload.pool:,} images "
        f"({workload.megapixels} megapixels, {workload.megabytes} MB), {workload.crops} crops; "
        f"{workload.ipc} mosaics a class; {rates.threads} processor threads"
    )
    console.print(table)
    if rates.start:
        console.print(f"start: {rates.start:.0f} s")
    for phase in projection.phases:
        busy = ", ".join(f"{worker} {seconds:,.0f} s" for worker, seconds in phase.busy.items() if seconds)
        console.print(f"{phase.phase}: {busy}: takes {phase.seconds:,.0f} s, bound by the {phase.bound_by}")
    console.print(f"[bold]in all {projection.seconds:,.0f} s = {duration(projection.seconds)}[/bold]")
    if projection.left_out:
        console.print(f"[yellow]No rate is known for: {', '.join(projection.left_out)}.[/yellow]")
    console.print(FORMULA, style="dim")


def duration(seconds: float) -> str:
    """Hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


if __name__ == "__main__":
    main()
