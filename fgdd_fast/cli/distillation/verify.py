"""`fgdd-fast verify`: is a distilled data set what it says it is?"""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import folder, give, json_option
from fgdd_fast.cli.terminal import console, console_progress, printable
from fgdd_fast.errors import DataError
from fgdd_fast.trust.verifying import Verified
from fgdd_fast.trust.verifying import verify as run_verify

MOST_SHOWN = 50


@click.command(cls=Command)
@click.argument("out", type=folder())
@click.argument("data", type=folder(), required=False)
@json_option()
def verify(out: Path, data: Path | None) -> None:
    """Check a distilled data set before you rely on it.

    Its files are held against its manifest, and stored labels against their hashes. With DATA, the
    photographs that it was made of, every tile is made anew and compared. Ends with status 1 where anything
    is wrong.

    \b
    Example: fgdd-fast verify OUT DATA
    """
    verified = run_verify(out, data, progress=console_progress(console()))
    give(verified.as_json())
    _show(verified)
    if not verified.sound:
        raise DataError(
            f"{len(verified.findings)} things are wrong with {out}",
            "Copy it anew, or make it again from DATA: fgdd-fast distill DATA OUT --from-manifest FILE",
        )


def _show(verified: Verified) -> None:
    table = Table("what", "where", "problem")
    for finding in verified.findings[:MOST_SHOWN]:
        table.add_row(finding.code, printable(finding.file), printable(finding.problem))
    if verified.findings:
        console().print(table)
    if len(verified.findings) > MOST_SHOWN:
        console().print(f"… and {len(verified.findings) - MOST_SHOWN} more")
    parts = [f"{verified.images} images read"]
    parts += [f"{verified.hashed} of them held against their hashes"] * bool(verified.hashed)
    parts += [f"{verified.label_files} files of labels against theirs"] * bool(verified.label_files)
    if verified.remade:
        parts.append(f"{verified.remade} tiles made anew from their photographs")
    if verified.rounded:
        parts.append(f"{verified.rounded} of these equal but for rounding by another OpenCV")
    console().print("; ".join(parts), highlight=False, soft_wrap=True)
