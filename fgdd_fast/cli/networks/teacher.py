"""`fgdd-fast teacher`: fit a teacher on one's own classes, and check one before it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from fgdd_export.tile.bundle import make_cropped_graph
from fgdd_fast.cli.data import leak_option, left_out_options, open_checked, sixteen_bit_option
from fgdd_fast.cli.options import (
    FACTOR,
    SIZE,
    folder,
    pool_size,
    resize_option,
    runtime_of_options,
    runtime_options,
    seed_option,
)
from fgdd_fast.cli.terminal import console, console_progress, printable, report_skipped
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.fitting import BACKBONE, JudgedTeacher, PoorTeacherError, check_teacher, fit_teacher
from fgdd_fast.models.linear_head import Accuracy
from fgdd_fast.renaming import MATCHINGS, rename_teacher

_tried_images = click.option(
    "--pool",
    "limit",
    callback=pool_size,
    default="20",
    show_default=True,
    metavar="N|all",
    help="Images tried per class.",
)


@click.group()
def teacher() -> None:
    """Fit a teacher on your own images, or check one against them."""


@teacher.command()
@click.argument("data", type=folder())
@click.option("-o", "--output", type=folder(), required=True, metavar="BUNDLE", help="The bundle to write.")
@click.option(
    "--backbone", default=BACKBONE, show_default=True, metavar="NAME|BUNDLE", help="Gives the features."
)
@click.option(
    "--validation", type=folder(), help="Folder of held-out images; else a part of DATA is held out."
)
@click.option(
    "--hold-out",
    "held_out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of each class that is held out.",
)
@click.option(
    "--group",
    metavar="REGEX",
    help="Hold images out together that belong together, such as frames of one film: what REGEX finds in "
    "their paths, as its first group if it has one, is the same.",
)
@left_out_options()
@leak_option()
@sixteen_bit_option()
@click.option("--force", is_flag=True, help="Write the bundle even if it is no better than guessing.")
@resize_option()
@seed_option()
@runtime_options()
def fit(data: Path, output: Path, **options: Any) -> None:
    """Fit a linear classifier for DATA's classes on a frozen backbone, and write both as one bundle."""
    runtime, progress = runtime_of_options(options), console_progress(console())
    validation, alone = options["validation"], options["group"] is None
    known = {"held_out": alone, "sixteen_bit": options["sixteen_bit"]}
    opened = open_checked(data, options, validation=validation, runtime=runtime, **known)
    fitted = _shown(lambda: fit_teacher(opened, output, runtime=runtime, progress=progress, **options))
    click.echo(
        f"{fitted.bundle.onnx}: {len(fitted.bundle.classes or ())} classes, "
        f"{100 * fitted.accuracy.top1:.1f} % of {fitted.accuracy.images} held-out images right"
    )


@teacher.command("tile")
@click.argument("bundle")
@click.option(
    "--tile",
    "tiles",
    type=click.IntRange(min=1),
    multiple=True,
    default=(SIZE // FACTOR,),
    show_default=True,
    metavar="PIXELS",
    help="Side of a tile: --size over --factor. May be repeated.",
)
def tile_command(bundle: str, tiles: tuple[int, ...]) -> None:
    """Make a cropped-input graph of the teacher BUNDLE, beside it: the same losses for tiles, faster.

    With the score view pad most of what a teacher sees is blank. This graph takes tiles, and computes the
    first layers only where a tile shows. `distill` and `measure` use it by themselves; `teacher fit` and
    `export teacher` make it for the default size and factor.
    """
    loaded = find_bundle(bundle, "teacher")
    for tile in tiles:
        cropped = make_cropped_graph(loaded, tile)
        if cropped is None:
            click.echo(
                f"Tiles of {tile} pixels: {loaded.name} has no layers that need only a part of the view",
                err=True,
            )
        else:
            click.echo(str(cropped.onnx))


@teacher.command()
@click.argument("bundle")
@click.argument("data", type=folder())
@_tried_images
@sixteen_bit_option()
@resize_option()
@seed_option()
@runtime_options()
def check(bundle: str, data: Path, **options: Any) -> None:
    """Check that the teacher BUNDLE knows the classes of DATA, by name and by sight.

    Class names in another order than the teacher's outputs give chance accuracy without any error: this says
    which folder is taken for which class.
    """
    runtime, progress = runtime_of_options(options), console_progress(console())
    judged = _shown(lambda: check_teacher(bundle, data, runtime=runtime, progress=progress, **options))
    accuracy = judged.accuracy
    click.echo(
        f"{judged.bundle.name} knows these classes: {accuracy.top1:.1%} of {accuracy.images} images right"
    )


@teacher.command()
@click.argument("bundle")
@click.option("--from", "data", type=folder(), metavar="DATA", help="Take the names of DATA's folders.")
@click.option("--names", type=folder(), metavar="FILE", help="Take these names: one a line, or a JSON list.")
@click.option("-o", "--output", type=folder(), required=True, metavar="BUNDLE", help="The bundle to write.")
@click.option(
    "--by",
    type=click.Choice(MATCHINGS),
    show_default="spelling where that tells, else answers",
    help="How outputs are matched with folders: by their names, or by what is said of the images.",
)
@_tried_images
@resize_option()
@seed_option()
@runtime_options()
def rename(bundle: str, output: Path, **options: Any) -> None:
    """Write the teacher BUNDLE anew with the names of your folders, for one that says 'Dress' or 'LABEL_3'.

    Which output is which folder is told by the spelling of the names, or by what the teacher says of the
    images in each folder.
    """
    runtime, progress = runtime_of_options(options), console_progress(console())
    renamed = rename_teacher(bundle, output, runtime=runtime, progress=progress, **options)
    for now, before in renamed.renamed.items():
        console().print(f"  {printable(before)} → {printable(now)}", highlight=False, soft_wrap=True)
    click.echo(f"{renamed.bundle.onnx}: {len(renamed.renamed)} names are others, by {renamed.by}")


def _shown(judge: Callable[[], JudgedTeacher]) -> JudgedTeacher:
    """Show how a teacher was judged, also where it is refused."""
    try:
        judged = judge()
    except PoorTeacherError as error:
        _show_accuracy(error.accuracy)
        raise
    report_skipped(judged.skipped, console())
    _show_accuracy(judged.accuracy)
    return judged


def _show_accuracy(accuracy: Accuracy) -> None:
    console().print(f"{accuracy.top1:.1%} of {accuracy.images} images right")
    table = Table()
    table.add_column("class")
    table.add_column("right", justify="right")
    for name, share in accuracy.per_class.items():
        table.add_row(printable(name), f"{share:.1%}")
    console().print(table)
