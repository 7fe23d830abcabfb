"""`fgdd-fast cache`: what is kept in the cache folder, and the removal of what nobody needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fgdd_engines.paths import cache_folder
from fgdd_fast.cli.checks.doctor import readable_size
from fgdd_fast.cli.options import json_option, write_json
from fgdd_fast.runtime.cached import KINDS, Cached, list_cached, prune_cache


@click.group()
def cache() -> None:
    """List what the cache keeps, and remove what nobody needs. All of it can be had or made again."""


@cache.command("list")
@json_option()
def list_cache(json_file: Path | None) -> None:
    """List what is kept, with its size and the days since it was last read or written."""
    items = list_cached()
    if json_file is not None:
        rows = [{**asdict(item), "paths": [str(path) for path in item.paths]} for item in items]
        write_json(json_file, json.dumps({"folder": str(cache_folder()), "items": rows}, indent=2))
        return
    _show(items)
    click.echo(f"{readable_size(sum(item.bytes for item in items))} in {cache_folder()}")


@cache.command()
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Remove what was neither read nor written for so many days.",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="Remove this kind; may be given again. A store of measurements goes only where it is named.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def prune(older_than: float | None, kinds: tuple[str, ...], dry_run: bool) -> None:
    """Remove what nobody needs, and say what became free. What is in use stays."""
    pruned = prune_cache(kinds=kinds, older_than=older_than, dry_run=dry_run)
    _show(pruned.removed)
    for item in pruned.in_use:
        click.echo(f"{item.kind} {item.name} is in use, and stays")
    freed = readable_size(sum(item.bytes for item in pruned.removed))
    click.echo(f"{freed} would become free" if dry_run else f"{freed} are free again")


def _show(items: Sequence[Cached]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "name", "size", "days"):
        table.add_column(heading, no_wrap=heading != "name", overflow="fold")
    for item in items:
        table.add_row(item.kind, escape(item.name), readable_size(item.bytes), f"{item.age:.0f}")
    if items:
        Console(highlight=False).print(table)
