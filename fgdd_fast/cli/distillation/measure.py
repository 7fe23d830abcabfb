"""`fgdd-fast measure`: measure a pool, so that deciding later takes seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.options import folder, measure_options, runtime_of_options
from fgdd_fast.cli.terminal import console, console_progress, report_skipped
from fgdd_fast.pipeline import open_pipeline


@click.command()
@click.argument("data", type=folder())
@measure_options()
def measure(data: Path, **options: Any) -> None:
    """Measure the images of DATA: the foreground's occupancy, and the teacher's loss of each view.

    What the store holds already is not measured again. 'fgdd-fast distill' with the same options then only
    decides and writes.
    """
    runtime = runtime_of_options(options)
    with open_pipeline(data, runtime=runtime, **options) as pipeline:
        begin = time.perf_counter()
        measured = pipeline.measure(progress=console_progress(console()))
        seconds = time.perf_counter() - begin
        skipped = (*pipeline.dataset.skipped, *measured.skipped)
    report_skipped(skipped, console())
    rate = f", {measured.measured / seconds:.1f} a second" if measured.measured else ""
    click.echo(
        f"{measured.measured} images measured in {seconds:.1f} s{rate}; "
        f"{measured.reused} were known; {len(skipped)} skipped."
    )
