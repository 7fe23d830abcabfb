"""`fgdd-fast report`: one page that shows what was distilled, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from fgdd_engines.progress import Progress
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import F, folder, give, json_option
from fgdd_fast.cli.terminal import alerts, console, console_progress, printable, say
from fgdd_fast.errors import FgddError
from fgdd_fast.output.folder import MANIFEST
from fgdd_fast.report_page.comparison_page import write_comparison
from fgdd_fast.report_page.report import MEGABYTES, write_report
from fgdd_fast.runtime.choose import available_processors


def write_final_report(
    out: Path, data: Path, *, path: Path | None = None, threads: int, progress: Progress
) -> Path | None:
    """Write the report of a run that is done; where that fails, say so in one line: the run is good.

    Returns:
        The page; None where it could not be written.
    """
    try:
        written = write_report(out, data, path=path, threads=threads, progress=progress)
    except FgddError as error:
        line = printable(f"No report was written: {error}")
        alerts().print(line, style="yellow", highlight=False, soft_wrap=True)
        return None
    say(f"Report: {written}   (open it in a browser)")
    return written


def report_option() -> Callable[[F], F]:
    """Whether a report is written in the end."""
    return click.option(
        "--report/--no-report",
        default=True,
        show_default=True,
        help="Write a page that shows what was chosen.",
    )


@click.command(cls=Command)
@click.argument("out", type=folder())
@click.argument("other", type=folder(), required=False, metavar="[DATA|OUT_B]")
@click.option(
    "-o", "--output", type=folder(), metavar="FILE", help="The HTML file to write.", show_default="in OUT"
)
@click.option(
    "--max-megabytes",
    type=click.FloatRange(min=1),
    default=MEGABYTES,
    show_default=True,
    help="About how large the page may become: its pictures are as small as that needs.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=available_processors,
    show_default="all processors",
    help="Processor threads.",
)
@json_option()
def report(
    out: Path,
    other: Path | None,
    output: Path | None,
    max_megabytes: float,
    threads: int,
) -> None:
    """Write a page that shows what was taken, and why.

    It shows the distilled data set OUT, made from DATA, in one HTML file that needs no network. Without DATA,
    tiles are shown as their mosaics have them. With OUT_B, another distilled data set, it shows which tiles
    of the two differ, and why.

    \b
    Example: fgdd-fast report OUT DATA
    """
    progress = console_progress(console())
    if other is not None and (other / MANIFEST).is_file():
        written = write_comparison(out, other, path=output, threads=threads, progress=progress)
    else:
        written = write_report(
            out, other, path=output, max_megabytes=max_megabytes, threads=threads, progress=progress
        )
    give({"report": str(written)})
    say(str(written))
