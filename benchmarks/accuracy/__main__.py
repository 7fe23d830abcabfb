"""Do students learn more from what this method chooses? A grid of rows, seeds and students, and one table.

    python -m benchmarks.accuracy DATA --val VALIDATION --teacher BUNDLE --results FILE.jsonl

Every row distils DATA in another way; students of each set learn by RDED's recipe from the teacher's
labels, and VALIDATION judges them. Every finished student is a line of FILE, so a run that was stopped goes
on when it is started again. The table is made of that file alone:

    python -m benchmarks.accuracy.table FILE.jsonl

`--plan` says what a grid takes, and does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from benchmarks.accuracy.results import read_results
from benchmarks.accuracy.rows import CONTROLS, GROUPS, RULES
from benchmarks.accuracy.table import markdown
from fgdd_bench.machine.environment import command_line
from fgdd_engines.backends import DEVICES
from fgdd_engines.base import PRECISIONS
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.paths import cache_folder
from fgdd_fast.errors import FgddError
from fgdd_fast.images.views import SCORE_VIEWS

EXTRA = "bench"

_POSITIVE = click.IntRange(min=1)


class Words(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """Words with commas between."""

    name = "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split a text."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in value.split(","))
        if not all(words):
            self.fail(f"{value!r} is no list with commas between.", param, ctx)
        return words


class Numbers(Words):
    """Whole numbers from 1 on, with commas between."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a text."""
        words = super().convert(value, param, ctx)
        if not all(str(word).isdecimal() and int(word) > 0 for word in words):
            self.fail(f"{value!r} is not one or more numbers with commas between.", param, ctx)
        return tuple(map(int, words))


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--val", "validation", type=click.Path(path_type=Path), required=True, help="Judges students.")
@click.option("--teacher", "teacher", required=True, metavar="BUNDLE", help="Scores tiles and labels views.")
@click.option("--foreground", default="saliency", show_default=True, metavar="NAME|BUNDLE|masks:FOLDER")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default="accuracy.jsonl",
    show_default=True,
    help="Keeps every student; a run goes on with what it finds there.",
)
@click.option(
    "--rows",
    type=Words(),
    default="main",
    show_default=True,
    help=f"Groups ({', '.join(GROUPS)}, all), or rows such as quantile:0.3+kmeans+resize+keep:0.5.",
)
@click.option(
    "--rules", type=Words(), default=",".join(RULES), show_default=True, help="Of the groups' methods."
)
@click.option(
    "--controls",
    type=click.Choice([*CONTROLS, "both"]),
    default="both",
    show_default=True,
    help="Of the groups' methods.",
)
@click.option(
    "--score-view",
    type=click.Choice(SCORE_VIEWS),
    show_default="pad; resize for tiles below half of the teacher's side",
    help="How the groups' methods show a tile to the teacher.",
)
@click.option("--ipc", "ipcs", type=Numbers(), default="1,5,10", show_default=True, help="Images per class.")
@click.option("--size", type=_POSITIVE, default=32, show_default=True, help="Side of images in pixels.")
@click.option(
    "--factor", type=_POSITIVE, show_default="1 up to 64 pixels, else 2", help="Tiles along a side."
)
@click.option(
    "--students",
    "architectures",
    type=Words(),
    default="convnet3-w32",
    show_default=True,
    help="Architectures; convnet3 is the usual one, 128 channels wide, and takes six times as long.",
)
@click.option(
    "--selection-seeds", type=_POSITIVE, default=3, show_default=True, help="How many pools and crops."
)
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the selection; take others to confirm what was found.",
)
@click.option(
    "--training-seeds", type=_POSITIVE, default=3, show_default=True, help="How many first weights."
)
@click.option(
    "--hard-seeds",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="How many of these also with hard labels, which HLR needs.",
)
@click.option("--epochs", type=_POSITIVE, default=300, show_default=True, help="RDED's are 300.")
@click.option(
    "--label-epochs",
    type=_POSITIVE,
    show_default="--epochs",
    help="Labelled epochs; later ones repeat their views.",
)
@click.option(
    "--full-epochs", type=_POSITIVE, default=60, show_default=True, help="Of students of all real data."
)
@click.option("--full-data/--no-full-data", default=True, show_default=True, help="Train these at all.")
@click.option(
    "--arithmetic", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Students'."
)
@click.option("--compile", is_flag=True, help="Compile students; on a processor that needs a C++ compiler.")
@click.option("--pool", type=_POSITIVE, default=300, show_default=True, help="Images considered per class.")
@click.option("--crops", type=_POSITIVE, default=5, show_default=True, help="Candidate crops of each image.")
@click.option(
    "--device", type=click.Choice(["auto", *DEVICES]), default="auto", show_default=True, help="Of models."
)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="Of models."
)
@click.option("--student-device", default="cpu", show_default=True, help="Of students: cpu or cuda.")
@click.option(
    "--workers",
    type=_POSITIVE,
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="all processors",
    help="Sets that are trained at the same time, one thread each.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=lambda: cache_folder() / "store",
    show_default="in the cache folder",
    help="Folder that keeps what was measured.",
)
@click.option("--plan", is_flag=True, help="Say what the grid takes, and do nothing.")
@click.option("--markdown", "table", type=click.Path(path_type=Path), help="Where the table is written.")
def main(results: Path, table: Path | None, plan: bool, **options: Any) -> None:
    """Train students of DATA distilled in many ways, and tell what pays."""
    console = Console(stderr=True)
    try:
        import_optional("torch", EXTRA)
        from benchmarks.accuracy import command  # noqa: PLC0415 - imports PyTorch

        grid = command.make_grid(command.GridOptions(**options))
        if plan:
            command.show_plan(grid, Console())
            return
        command.run_grid(grid, results, command_line(_given()), console)
        text = markdown(read_results(results))
    except FgddError as error:
        raise click.ClickException(str(error)) from error
    if table is not None:
        table.write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


def _given() -> list[str]:
    """The words of the command, with the options that were given."""
    context = click.get_current_context()
    words = ["python", "-m", "benchmarks.accuracy"]
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
            continue
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [text] if isinstance(parameter, click.Argument) else [parameter.opts[0], text]
    return words


if __name__ == "__main__":
    # As Ctrl-C does, so that no process is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
