"""Do students learn more from what this method chooses? A grid of rows, seeds and students, and one table.

    python -m benchmarks.accuracy DATA --validation VALIDATION --teacher BUNDLE --results FILE.jsonl

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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from benchmarks.accuracy.results import read_results
from benchmarks.accuracy.rows import CONTROLS, GROUPS, RULES, choose_rows
from benchmarks.accuracy.table import markdown
from benchmarks.studies.study import POSITIVE, given_words, number_option
from fgdd_bench.machine.environment import command_line
from fgdd_engines.base import PRECISIONS
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.paths import cache_folder
from fgdd_fast.cli.options import device_option
from fgdd_fast.cli.terminal import console_progress, logged_to
from fgdd_fast.errors import FgddError, SettingsError
from fgdd_fast.images.dataset import scan
from fgdd_fast.images.tiles import SCORE_VIEWS, default_view
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.factory import choose_foreground
from fgdd_fast.models.network import check_classes
from fgdd_fast.runtime.choose import RuntimeOptions, runtime_of

if TYPE_CHECKING:
    from benchmarks.accuracy.grid import Grid

SMALL = 64  # pixels: up to here mosaics of one tile are sensible
CURVE = 5  # validations of a student


class Words(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """Words with commas between; whole numbers from 1 on where they are to be numbers."""

    name = "list"

    def __init__(self, *, numbers: bool = False) -> None:
        self._numbers = numbers

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split a text."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in value.split(","))
        if not all(words):
            self.fail(f"{value!r} is no list with commas between.", param, ctx)
        if not self._numbers:
            return words
        if not all(word.isdecimal() and int(word) > 0 for word in words):
            self.fail(f"{value!r} is not one or more numbers with commas between.", param, ctx)
        return tuple(map(int, words))


PATH = click.Path(path_type=Path)


@click.command()
@click.argument("data", type=PATH)
@click.option("--validation", type=PATH, required=True, help="Judges students.")
@click.option("--teacher", required=True, metavar="BUNDLE", help="Scores tiles and labels views.")
@click.option("--foreground", default="saliency", show_default=True, metavar="NAME|BUNDLE|masks:FOLDER")
@click.option(
    "--results",
    type=PATH,
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
@click.option("--rules", type=Words(), default=",".join(RULES), show_default=True, help="Of the groups.")
@click.option(
    "--controls", type=click.Choice([*CONTROLS, "both"]), default="both", show_default=True, help="Likewise."
)
@click.option(
    "--score-view",
    type=click.Choice(SCORE_VIEWS),
    show_default="pad; resize for tiles below half of the teacher's side",
    help="How the groups' methods show a tile to the teacher.",
)
@click.option(
    "--ipc", "ipcs", type=Words(numbers=True), default="1,5,10", show_default=True, help="Images per class."
)
@number_option("--size", 32, "Side of images in pixels.")
@click.option("--factor", type=POSITIVE, show_default="1 up to 64 pixels, else 2", help="Tiles along a side.")
@click.option(
    "--students",
    type=Words(),
    default="convnet3-w32",
    show_default=True,
    help="Architectures; convnet3 is the usual one, 128 channels wide, and takes six times as long.",
)
@number_option("--selection-seeds", 3, "How many pools and crops.")
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the selection; take others to confirm what was found.",
)
@number_option("--training-seeds", 3, "How many first weights.")
@click.option(
    "--hard-seeds",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="How many of these also with hard labels, which HLR needs.",
)
@number_option("--epochs", 300, "RDED's are 300.")
@click.option(
    "--label-epochs", type=POSITIVE, show_default="--epochs", help="Later epochs repeat their views."
)
@number_option("--full-epochs", 60, "Of students of all real data.")
@click.option("--full-data/--no-full-data", default=True, show_default=True, help="Train these at all.")
@click.option(
    "--arithmetic", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Students'."
)
@click.option("--compile", is_flag=True, help="Compile students; on a processor that needs a C++ compiler.")
@number_option("--pool", 300, "Images considered per class.")
@number_option("--crops", 5, "Candidate crops of each image.")
@device_option("--device", "Of models.")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="Of models."
)
@click.option("--student-device", default="cpu", show_default=True, help="Of students: cpu or cuda.")
@click.option(
    "--workers",
    type=POSITIVE,
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="all processors",
    help="Sets that are trained at the same time, one thread each.",
)
@click.option(
    "--store",
    type=PATH,
    default=lambda: cache_folder() / "store",
    show_default="in the cache folder",
    help="Folder that keeps what was measured.",
)
@click.option("--plan", is_flag=True, help="Say what the grid takes, and do nothing.")
@click.option("--markdown", "table", type=PATH, help="Where the table is written.")
def main(results: Path, table: Path | None, plan: bool, **options: Any) -> None:
    """Train students of DATA distilled in many ways, and tell what pays."""
    console = Console(stderr=True)
    try:
        import_optional("torch", "bench")
        from benchmarks.accuracy.grid import describe, run_grid  # noqa: PLC0415 - imports PyTorch

        with logged_to(console):
            grid = make_grid(**options)
            if plan:
                click.echo("\n".join(describe(grid)))
                return
            command = command_line(given_words("benchmarks.accuracy"))
            run_grid(grid, results, command, console_progress(console))
        text = markdown(read_results(results))
        if table is not None:
            table.write_text(text, encoding="utf-8")
    except (FgddError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(text, nl=False)


def make_grid(data: Path, validation: Path, teacher: str, foreground: str, **options: Any) -> Grid:
    """Return the grid that options, named as on the command line, ask for, checked as far as takes no time.

    Raises:
        FgddError: an option cannot be met.
    """
    from benchmarks.accuracy.grid import Grid  # noqa: PLC0415 - imports PyTorch
    from benchmarks.accuracy.selection import SelectionGrid  # noqa: PLC0415
    from benchmarks.accuracy.training import TrainingGrid  # noqa: PLC0415
    from fgdd_fast.students.architectures import find_architecture  # noqa: PLC0415
    from fgdd_fast.students.training.recipe import StudentRecipe  # noqa: PLC0415

    dataset, bundle = scan(data), find_bundle(teacher, "teacher")
    check_classes(bundle, dataset.classes)
    choose_foreground(foreground, dataset.classes)
    size, workers, epochs = options["size"], options["workers"], options["epochs"]
    for name in options["students"]:
        find_architecture(name).new(len(dataset.classes), size)
    factor = options["factor"] or (1 if size <= SMALL else 2)
    if size % factor:
        raise SettingsError(
            f"{size} pixels cannot be cut into {factor} equal tiles", "Choose another --size."
        )
    view = options["score_view"] or default_view(size // factor, bundle.preprocessing.width)
    controls = CONTROLS if options["controls"] == "both" else (options["controls"],)
    first = options["first_seed"]
    runtime = RuntimeOptions(device=options["device"], precision=options["precision"], threads=workers)
    selection = SelectionGrid(
        rows=choose_rows(options["rows"], options["rules"], controls, view),
        ipcs=options["ipcs"],
        seeds=tuple(range(first, first + options["selection_seeds"])),
        size=size,
        factor=factor,
        crops=options["crops"],
        pool=options["pool"],
        teacher=teacher,
        foreground=foreground,
        store=options["store"],
        runtime=runtime,
    )
    recipe = StudentRecipe(
        epochs,
        validate_every=max(epochs // CURVE, 1),
        arithmetic=options["arithmetic"],
        compile=options["compile"],
    )
    training = TrainingGrid(
        architectures=options["students"],
        training_seeds=options["training_seeds"],
        hard_seeds=options["hard_seeds"],
        full_epochs=options["full_epochs"],
        label_epochs=min(options["label_epochs"] or epochs, epochs),
        recipe=recipe,
        classes=dataset.classes,
        size=size,
        teacher=bundle,
        runtime=replace(runtime_of(bundle, runtime), threads=1),
        device=options["student_device"],
    )
    return Grid(dataset, validation, selection, training, options["full_data"], workers)


if __name__ == "__main__":
    # As Ctrl-C does, so that no process is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
