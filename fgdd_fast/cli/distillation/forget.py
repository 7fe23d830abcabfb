"""`fgdd-fast forget`: take withdrawn photographs out of a distilled data set and out of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.options import default_store, folder, runtime_of_options, runtime_options
from fgdd_fast.cli.terminal import console, console_progress, printable
from fgdd_fast.trust.forgetting import forget as run_forget


@click.command()
@click.argument("out", type=folder())
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--data", type=folder(), required=True, help="The photographs that OUT was distilled from.")
@click.option("--teacher", required=True, metavar="BUNDLE", help="The teacher that OUT was distilled with.")
@click.option(
    "--foreground",
    metavar="NAME|BUNDLE|masks:FOLDER|none",
    help="The foreground model that OUT was distilled with; by default the one that its manifest names.",
)
@click.option(
    "--store",
    type=folder(),
    default=default_store,
    show_default="in the cache folder",
    help="The folder that keeps what was measured.",
)
@runtime_options()
def forget(out: Path, sources: tuple[str, ...], **options: Any) -> None:
    """Make OUT what it would be had the photographs SOURCE never been there.

    SOURCE is a path within DATA, as in the manifest. What the store holds of it is overwritten, and the next
    in rank takes its place. Stored labels go with the old images. The files of DATA stay: remove them
    yourself.
    """
    runtime = runtime_of_options(options)
    gone = run_forget(out, sources, runtime=runtime, progress=console_progress(console()), **options)
    click.echo(f"Tiles replaced in {out}: {gone.tiles}; images taken out of the store: {gone.stored}")
    if gone.labels:
        click.echo(f"Its labels are gone: run fgdd-fast label {out} --teacher {options['teacher']} again")
    if gone.remaining:
        listed = ", ".join(map(printable, gone.remaining))
        click.echo(f"Still in {options['data']}, from where the next distillation would take it: {listed}")
