"""`fgdd-fast measure`: measure a pool, so that deciding later takes seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from fgdd_fast.cli.options import folder, measure_options
from fgdd_fast.cli.session import MeasureOptions, measure_pool, open_session, report_skipped
from fgdd_fast.images.dataset import scan


@click.command()
@click.argument("data", type=folder())
@measure_options()
def measure(data: Path, **options: Any) -> None:
    """Measure the images of DATA: the foreground's occupancy, and the teacher's loss of each view.

    What the store holds already is not measured again. 'fgdd-fast distill' with the same options then only
    decides and writes.
    """
    console = Console(stderr=True)
    with open_session(scan(data), MeasureOptions(**options), console) as session:
        begin = time.perf_counter()
        measured = measure_pool(session, console)
        seconds = time.perf_counter() - begin
        skipped = (*session.dataset.skipped, *measured.skipped)
        report_skipped(skipped, console)
        rate = f", {measured.measured / seconds:.1f} a second" if measured.measured else ""
        click.echo(
            f"{measured.measured} images measured in {seconds:.1f} s{rate}; "
            f"{measured.reused} were known; {len(skipped)} skipped."
        )
