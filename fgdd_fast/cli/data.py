"""Options of what is left out of DATA and where it is measured; what is said of it before the long work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from fgdd_fast.checking.check import check_data
from fgdd_fast.checking.findings import Finding
from fgdd_fast.checking.opening import open_data
from fgdd_fast.cli.options import F, combined, folder
from fgdd_fast.cli.terminal import alerts, console, console_progress, printable
from fgdd_fast.cluster.connecting import ray_address
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import DataSet
from fgdd_fast.images.depth import SIXTEEN_BITS
from fgdd_fast.runtime.choose import RuntimeOptions

_COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}
# What of the options of measuring says what DATA is going to be used for.
USED = ("teacher", "foreground", "prompts", "box_threshold", "pool", "size", "factor", "seed", "sixteen_bit")
_FEW = 10  # findings at the head of a command, in full


def left_out_options() -> Callable[[F], F]:
    """What is no part of DATA."""
    return combined(
        click.option(
            "--ignore",
            multiple=True,
            metavar="GLOB",
            help="Leave files and folders of this name out, such as '*_mask.png', or of this path, such as "
            "'cat/masks'. May be repeated.",
        ),
        click.option("--skip-empty", is_flag=True, help="Leave class folders without images out."),
    )


def leak_option() -> Callable[[F], F]:
    """Whether images that are held out too are left out."""
    return click.option(
        "--exclude-leaks", is_flag=True, help="Leave images out of DATA that are in --validation too."
    )


def sixteen_bit_option() -> Callable[[F], F]:
    """How images of 16 bits are read."""
    return click.option(
        "--sixteen-bit",
        type=click.Choice(SIXTEEN_BITS),
        default="shift",
        show_default=True,
        help="Of images of 16 bits take the upper 8, or those of the bits that each image uses, for pictures "
        "of 10, 12 or 14 bits.",
    )


def data_options() -> Callable[[F], F]:
    """All of these, for a command that needs no held-out images itself."""
    return combined(
        left_out_options(),
        click.option(
            "--validation",
            type=folder(),
            metavar="FOLDER",
            help="Held-out images: what of them is in DATA too is said.",
        ),
        leak_option(),
        sixteen_bit_option(),
    )


def executor_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check the name of an executor."""
    if value is not None:
        try:
            ray_address(value)
        except SettingsError as error:
            raise click.BadParameter(str(error)) from error
    return value


def executor_option() -> Callable[[F], F]:
    """Where images are measured or labelled."""
    return click.option(
        "--executor",
        callback=executor_name,
        metavar="ray[:ADDRESS]",
        help="Work on the workers of a Ray cluster, each with so many --threads. Without an address it is "
        "the cluster that runs on this machine, or one that is started for this.",
    )


def open_checked(
    data: Path,
    options: dict[str, Any],
    *,
    validation: Path | None,
    runtime: RuntimeOptions,
    near: int | None = None,
    found: list[Finding] | None = None,
    **known: Any,
) -> DataSet:
    """Open DATA as options say, which are taken out, and show what is odd about it.

    Only names, sizes and first bytes are looked at, which takes a moment.

    Args:
        data: the folder.
        options: those of `left_out_options` and of `leak_option`.
        validation: the held-out images, if there are any.
        runtime: threads that read.
        near: bits in which leaks differ at most; see `open_data`.
        found: what is odd is appended to it.
        known: what DATA is going to be used for; see `check_data`.
    """
    ignore, skip_empty = options.pop("ignore"), options.pop("skip_empty")
    opened = open_data(
        data,
        ignore=ignore,
        skip_empty=skip_empty,
        validation=validation,
        exclude_leaks=options.pop("exclude_leaks"),
        near=near,
        threads=runtime.threads,
        progress=console_progress(console()),
    )
    findings = check_data(opened, validation, needs="files", ignore=ignore, runtime=runtime, **known)
    if found is not None:
        found += findings
    if console().quiet:
        findings = tuple(each for each in findings if each.severity != "note")
    show_findings(findings, limit=_FEW)
    if len(findings) > _FEW:
        alerts().print(f"  … and {len(findings) - _FEW} more: fgdd-fast check {printable(str(data))}")
    return opened


def show_findings(findings: Sequence[Finding], limit: int | None = None) -> None:
    """Show each finding in two lines: what it is, and what to do."""
    target = alerts()
    for finding in findings[:limit]:
        colour = _COLOURS[finding.severity]
        line = f"[{colour}]{finding.severity}[/{colour}] [bold]{finding.code}[/bold]: "
        target.print(line + printable(finding.message), highlight=False, soft_wrap=True)
        target.print(f"  {printable(finding.advice)}", highlight=False, soft_wrap=True, style="dim")
