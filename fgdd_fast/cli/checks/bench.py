"""`fgdd-fast bench`: how fast this project is, against PyTorch, on the same images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fgdd_bench.harness.implementation import PATHS, REFERENCES
from fgdd_bench.harness.opening import EXTRA, reference_module
from fgdd_bench.harness.parity import DisagreementError
from fgdd_bench.harness.result import to_text
from fgdd_bench.harness.session import BenchOptions, open_bench
from fgdd_bench.machine.environment import command_line
from fgdd_bench.machine.resources import end_descendants
from fgdd_bench.reporting.page import page
from fgdd_bench.reporting.report import headline_rows, markdown
from fgdd_engines.bundle.files import write_file
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import (
    FACTOR,
    SIZE,
    folder,
    foreground_options,
    json_option,
    runtime_options,
    seed_option,
)
from fgdd_fast.cli.terminal import answers, console, console_progress, json_file, json_is_printed
from fgdd_fast.output.folder import writing
from fgdd_fast.students.evaluation import check_outputs


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where a result is written; None where it is not wanted, or is printed instead."""

    json: Path | None
    html: Path | None
    markdown: Path | None

    def check(self) -> None:
        """Find out before the long work whether all of them can be made.

        Raises:
            OutputError: a file cannot be written.
            MissingExtraError: a page is wanted, and Jinja is not installed.
        """
        if self.html is not None:
            import_optional("jinja2", EXTRA)
        check_outputs(self.json, self.html, self.markdown)

    def write(self, result: dict[str, Any]) -> None:
        """Write a result, each file whole or not at all.

        Raises:
            OutputError: a file cannot be written.
        """
        forms: Sequence[tuple[Path | None, Callable[[dict[str, Any]], str]]] = (
            (self.json, to_text),
            (self.html, page),
            (self.markdown, markdown),
        )
        for path, form in forms:
            if path is not None:
                with writing(path):
                    write_file(path, form(result).encode())


def names_among(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, Any], tuple[str, ...]]:
    """A callback that takes names apart at commas, in the order of `known`."""

    def parse(ctx: click.Context, param: click.Parameter, value: Any) -> tuple[str, ...]:
        words = [word.strip() for text in value for word in text.split(",")]
        for word in words:
            if word not in known:
                raise click.BadParameter(f"{word!r} is none of {', '.join(known)}.")
        return tuple(name for name in known if name in words)

    return parse


def output_option(kind: str, what: str) -> Callable[[Any], Any]:
    """A file that is written at the end."""
    return click.option(
        f"--{kind}", f"{kind}_file", type=folder(), metavar="OUT", help=f"Write {what} to OUT."
    )


@click.command(cls=Command)
@click.argument("data", type=folder(), required=False)
@click.option(
    "--stages",
    "paths",
    multiple=True,
    default=(",".join(PATHS),),
    callback=names_among(PATHS),
    show_default=True,
    metavar="NAME,…",
    help="Which pieces of the work; 'all' is the whole, from files to mosaics. May be repeated.",
)
@click.option(
    "--against",
    "references",
    multiple=True,
    default=(",".join(REFERENCES),),
    callback=names_among(REFERENCES),
    show_default=True,
    metavar="NAME,…",
    help="Which PyTorch references: image by image as published, fair (batched, lower precision), compiled.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of all.")
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Images measured, from all classes alike.",
)
@foreground_options()
@click.option("--detector", metavar="CHECKPOINT", help="Of Grounded SAM 2, which the references run.")
@click.option("--segmenter", metavar="CHECKPOINT", help="Likewise.")
@click.option("--teacher", metavar="BUNDLE", help="Teacher: a bundle made by 'fgdd-fast teacher fit'.")
@click.option(
    "--crops", type=click.IntRange(min=1), default=5, show_default=True, help="Candidate crops of each image."
)
@click.option(
    "--size", type=click.IntRange(min=1), default=SIZE, show_default=True, help="Side of a mosaic in pixels."
)
@click.option(
    "--factor",
    type=click.IntRange(min=1),
    default=FACTOR,
    show_default=True,
    help="Tiles along each side of a mosaic.",
)
@seed_option()
@runtime_options()
@json_option()
@output_option("html", "the result as a page")
@output_option("markdown", "the result's tables")
def bench(
    data: Path | None,
    html_file: Path | None,
    markdown_file: Path | None,
    **options: Any,
) -> None:
    """Measure how fast this project is here, against PyTorch.

    Both run on images of DATA in turns, and what they decide is compared. Without DATA a data set is drawn
    and a teacher fitted on it. Where the answers differ, no speed-up is shown and the command fails. The
    foreground model 'grounded-sam2-random' is Grounded SAM 2 at its published size with random weights, for
    its times. With the device 'null', which computes nothing and takes 0 ms for it ('null:5' takes 5), the
    host alone is measured, and nothing is compared.

    \b
    Example: fgdd-fast bench DATA --images 50 --stages teacher
    """
    printed = json_is_printed()
    outputs = Outputs(json=None if printed else json_file(), html=html_file, markdown=markdown_file)
    settings = BenchOptions(**options)
    outputs.check()
    target = console()
    progress = console_progress(target, at_steps_alone=True)
    try:
        with ExitStack() as stack:
            with console_progress(target).task("Opening what is compared"):
                for name in settings.references if settings.compared else ():
                    kind = "published" if name == "published" else "fair"
                    reference_module(f"fgdd_bench.references.{kind}")
                command = command_line(["fgdd-fast", *sys.argv[1:]])
                session = stack.enter_context(open_bench(data, settings, command))
            try:
                failures = session.measure(outputs.write, progress=progress)
            finally:
                if printed and session.result["paths"]:  # what was finished, as in a file
                    click.echo(to_text(session.result), nl=False)
    except KeyboardInterrupt:
        end_descendants()  # also those that had only been asked for
        target.print("Stopped. What was finished has been written; the same command begins anew.")
        raise click.exceptions.Exit(130) from None
    _show(session.result, answers())
    if failures:
        raise DisagreementError(
            f"No speed-up is shown where the answers differ: {'; '.join(failures)}",
            "Name another --precision or --device, or more --images if few decide.",
        )


def _show(result: dict[str, Any], target: Console) -> None:
    headings, *rows = headline_rows(result)
    table = Table()
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if 0 < place < len(headings) - 1 else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    target.print(table)
