"""`fgdd-fast cache`: what is kept in the cache folder, and the removal of what nobody needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from fgdd_engines.paths import cache_folder
from fgdd_fast.cli.command import Group
from fgdd_fast.cli.options import give, json_option
from fgdd_fast.cli.terminal import answers, readable_size, say
from fgdd_fast.runtime.cached import KINDS, Cached, list_cached, prune_cache


@click.group(cls=Group)
def cache() -> None:
    """List what the cache keeps, and remove what nobody needs.

    All of it can be had or made again.
    """


@cache.command("list")
@json_option()
def list_cache() -> None:
    """List what is kept, with its size and age.

    The age is that in days since it was last read or written.

    \b
    Example: fgdd-fast cache list
    """
    items = list_cached()
    if give({"folder": str(cache_folder()), "items": [_figures(item) for item in items]}):
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
@json_option()
def prune(older_than: float | None, kinds: tuple[str, ...], dry_run: bool) -> None:
    """Remove what nobody needs, and say what became free.

    What is in use stays.

    \b
    Example: fgdd-fast cache prune --older-than 90 --dry-run
    """
    pruned = prune_cache(kinds=kinds, older_than=older_than, dry_run=dry_run)
    freed = sum(item.bytes for item in pruned.removed)
    removed, in_use = ([_figures(item) for item in items] for items in (pruned.removed, pruned.in_use))
    give({"removed": removed, "in_use": in_use, "bytes": freed, "dry_run": dry_run})
    _show(pruned.removed)
    for item in pruned.in_use:
        say(f"{item.kind} {item.name} is in use, and stays")
    size = readable_size(freed)
    say(f"{size} would become free" if dry_run else f"{size} are free again")


def _figures(item: Cached) -> dict[str, Any]:
    return {**asdict(item), "paths": [str(path) for path in item.paths]}


def _show(items: Sequence[Cached]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "name", "size", "days"):
        table.add_column(heading, no_wrap=heading != "name", overflow="fold")
    for item in items:
        table.add_row(item.kind, escape(item.name), readable_size(item.bytes), f"{item.age:.0f}")
    if items:
        answers().print(table)
