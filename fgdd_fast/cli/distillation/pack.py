"""`fgdd-fast pack`: a distilled data set in the formats of other libraries."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from fgdd_fast.cli.options import folder
from fgdd_fast.cli.session import progress_bar
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.packing.huggingface import pack_huggingface
from fgdd_fast.packing.pack import MEGABYTE, Pack
from fgdd_fast.packing.webdataset import pack_webdataset

WRITERS = {"webdataset": pack_webdataset, "huggingface": pack_huggingface}


@click.command()
@click.argument("out", type=folder())
@click.argument("target", type=folder())
@click.option(
    "--to",
    "kind",
    type=click.Choice(list(WRITERS)),
    required=True,
    help="webdataset: tar shards; huggingface: Parquet and a data set card, for datasets.load_dataset.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    metavar="MB",
    help="Of images in a shard, at most.",
)
def pack(out: Path, target: Path, kind: str, shard_size: int) -> None:
    """Repack the distilled data set OUT into the new folder TARGET for another library.

    Its manifest goes along, and the logits of mosaics and tiles if 'fgdd-fast label' stored them.
    """
    packed = Pack(open_distilled(out), shard_size * MEGABYTE)
    with progress_bar(Console(stderr=True)) as bar:
        task = bar.add_task("Packing", total=len(packed.distilled))
        WRITERS[kind](packed, target, advance=lambda count: bar.advance(task, count))
    click.echo(f"{len(packed.distilled)} images in {target}, shards: {len(packed.shards)}")
