"""`fgdd-fast sheet`: a picture of what was chosen, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import folder, runtime_of_options, runtime_options
from fgdd_fast.cli.terminal import console, console_progress, say
from fgdd_fast.output.report import MOSAICS, SOURCES, draw_contact_sheet


@click.command(cls=Command)
@click.argument("out", type=folder())
@click.argument("data", type=folder())
@click.option("-o", "--output", type=folder(), required=True, metavar="FILE", help="The PNG file to write.")
@click.option(
    "--foreground",
    metavar="NAME|BUNDLE|masks:FOLDER|none",
    help="The foreground model that OUT was distilled with; by default the one that its manifest names.",
)
@click.option(
    "--sources",
    type=click.IntRange(min=1),
    default=SOURCES,
    show_default=True,
    help="Images shown of each class.",
)
@click.option(
    "--mosaics",
    type=click.IntRange(min=1),
    default=MOSAICS,
    show_default=True,
    help="Mosaics shown of each class.",
)
@runtime_options()
def sheet(
    out: Path, data: Path, output: Path, foreground: str | None, sources: int, mosaics: int, **options: Any
) -> None:
    """Draw a contact sheet of what was taken.

    It shows of the distilled data set OUT, made from DATA, for each class, source images with their
    foreground outlined, their occupancy, the path taken and the box chosen, beside the mosaics.

    \b
    Example: fgdd-fast sheet OUT DATA -o sheet.png
    """
    runtime = runtime_of_options(options)
    with console_progress(console()).task("Drawing the contact sheet"):
        draw_contact_sheet(
            out, data, output, foreground=foreground, sources=sources, mosaics=mosaics, runtime=runtime
        )
    say(str(output))
