"""`fgdd-fast pack`: a distilled data set in the formats of other libraries."""

from __future__ import annotations

from pathlib import Path

import click

from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import folder, give, json_option
from fgdd_fast.cli.terminal import console, console_progress, say
from fgdd_fast.packing.pack import FORMATS, SHARD_SIZE
from fgdd_fast.packing.pack import pack as pack_folder


@click.command(cls=Command)
@click.argument("out", type=folder())
@click.argument("target", type=folder())
@click.option(
    "--to",
    "format",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="webdataset: tar shards; huggingface: Parquet and a data set card, for datasets.load_dataset.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=SHARD_SIZE,
    show_default=True,
    metavar="MB",
    help="Of images in a shard, at most.",
)
@json_option()
def pack(out: Path, target: Path, format: str, shard_size: int) -> None:
    """Repack a distilled data set for another library.

    The new folder TARGET holds what OUT does. Its manifest goes along, and the logits of mosaics and tiles if
    'fgdd-fast label' stored them.

    \b
    Example: fgdd-fast pack OUT SHARDS --to webdataset
    """
    progress = console_progress(console())
    packed = pack_folder(out, target, format=format, shard_size=shard_size, progress=progress)
    shards = [str(path) for path in packed.shards]
    give({"target": str(target), "images": len(packed.distilled), "shards": shards})
    say(f"{len(packed.distilled)} images in {target}, shards: {len(packed.shards)}")
