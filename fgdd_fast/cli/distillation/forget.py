"""`fgdd-fast forget`: take withdrawn photographs out of a distilled data set and out of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import (
    default_store,
    folder,
    give,
    json_option,
    runtime_of_options,
    runtime_options,
)
from fgdd_fast.cli.terminal import console, console_progress, printable, say
from fgdd_fast.trust.forgetting import forget as run_forget


@click.command(cls=Command)
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
@json_option()
def forget(out: Path, sources: tuple[str, ...], **options: Any) -> None:
    """Take withdrawn photographs out of a distilled data set.

    OUT becomes what it would be had the photographs SOURCE never been there.
    SOURCE is a path within DATA, as in the manifest. What the store holds of it is overwritten, and the next
    in rank takes its place. Stored labels go with the old images. The files of DATA stay: remove them
    yourself.

    \b
    Example: fgdd-fast forget OUT cat/12.jpg --data DATA --teacher teacher.onnx
    """
    runtime = runtime_of_options(options)
    gone = run_forget(out, sources, runtime=runtime, progress=console_progress(console()), **options)
    listed = {"sources": gone.sources, "remaining": gone.remaining}
    give({**listed, "tiles": gone.tiles, "stored": gone.stored, "labels_gone": gone.labels})
    say(f"Tiles replaced in {out}: {gone.tiles}; images taken out of the store: {gone.stored}")
    if gone.labels:
        say(f"Its labels are gone: run fgdd-fast label {out} --teacher {options['teacher']} again")
    if gone.remaining:
        named = ", ".join(map(printable, gone.remaining))
        say(f"Still in {options['data']}, from where the next distillation would take it: {named}")
