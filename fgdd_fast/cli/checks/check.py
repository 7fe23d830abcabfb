"""`fgdd-fast check`: what is odd about a folder of images, before it is used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from fgdd_fast.checking.check import check_data
from fgdd_fast.checking.findings import SEVERITIES, Finding, counted, matching
from fgdd_fast.checking.registry import CHECKS, Need
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.data import left_out_options, show_findings, sixteen_bit_option
from fgdd_fast.cli.options import (
    FACTOR,
    SIZE,
    default_store,
    folder,
    give,
    json_option,
    pool_size,
    resize_option,
    runtime_of_options,
    runtime_options,
    seed_option,
)
from fgdd_fast.cli.terminal import console, console_progress, say
from fgdd_fast.images.near_duplicates import BITS

FAILED = 3  # the exit status where --fail-on finds something


def wanted_codes(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check the codes and severities that make the command fail."""
    for name in value:
        if name not in CHECKS and name not in SEVERITIES:
            raise click.BadParameter(f"{name!r} is none of {', '.join([*SEVERITIES, *CHECKS])}.")
    return value


@click.command(cls=Command)
@click.argument("data", type=folder())
@click.option("--validation", type=folder(), metavar="FOLDER", help="Held-out images, compared with DATA.")
@left_out_options()
@click.option("--quick", is_flag=True, help="Look at names, sizes and first bytes alone; decode nothing.")
@click.option(
    "--teacher",
    metavar="BUNDLE",
    help="A teacher, or a backbone: says which labels are likely wrong, and whether it knows the classes.",
)
@click.option(
    "--foreground",
    default="",
    metavar="NAME|BUNDLE|masks:FOLDER",
    help="A foreground model: says in which classes it finds nothing.",
)
@click.option("--prompts", type=folder(), metavar="FILE", help="What it looks for in each class.")
@click.option("--ipc", type=click.IntRange(min=1), help="Mosaics per class that are going to be made.")
@click.option("--size", type=click.IntRange(min=1), default=SIZE, show_default=True, help="Side of a mosaic.")
@click.option(
    "--factor", type=click.IntRange(min=1), default=FACTOR, show_default=True, help="Tiles along its side."
)
@click.option(
    "--pool",
    callback=pool_size,
    default="all",
    show_default=True,
    metavar="N|all",
    help="Images looked at per class.",
)
@click.option(
    "--near-duplicates",
    "near",
    type=click.IntRange(0, BITS),
    default=2,
    show_default=True,
    metavar="DISTANCE",
    help=f"Bits of {BITS} in which perceptual hashes of nearly the same images differ at most.",
)
@sixteen_bit_option()
@resize_option()
@seed_option()
@click.option(
    "--store",
    type=folder(),
    default=default_store,
    show_default="in the cache folder",
    help="Folder that keeps what the foreground model found.",
)
@runtime_options()
@click.option(
    "--fail-on",
    multiple=True,
    callback=wanted_codes,
    metavar="CODE",
    help=f"Exit with status {FAILED} if this is found: a code; or error, warning or note, or what is worse. "
    "May be repeated.",
)
@json_option()
def check(data: Path, quick: bool, fail_on: tuple[str, ...], **options: Any) -> None:
    """Find what is odd about the images of DATA. Nothing is changed.

    Do it before the long work. Every image is decoded, unless --quick is given. With --teacher and
    --foreground, these are asked as well.

    \b
    Example: fgdd-fast check DATA --validation VALIDATION
    """
    runtime = runtime_of_options(options)
    needs: Need | None = "files" if quick else None
    progress = console_progress(console())
    findings = check_data(data, needs=needs, runtime=runtime, progress=progress, **options)
    give({"findings": [each.to_json() for each in findings]})
    show_findings(findings)
    say(_summary(findings))
    if failing := matching(findings, fail_on):
        click.echo(f"Failed for: {', '.join(dict.fromkeys(each.code for each in failing))}", err=True)
        raise click.exceptions.Exit(FAILED)


def _summary(findings: tuple[Finding, ...]) -> str:
    counts = Counter(finding.severity for finding in findings)
    said = [counted(counts[severity], severity) for severity in SEVERITIES if counts[severity]]
    return ", ".join(said) or "Nothing odd was found."
