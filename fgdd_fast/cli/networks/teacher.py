"""`fgdd-fast teacher`: fit a teacher on one's own classes, and check one before it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from fgdd_export.tile.bundle import make_cropped_graph
from fgdd_fast.cli import completion as offered
from fgdd_fast.cli.command import Group
from fgdd_fast.cli.data import leak_option, left_out_options, open_checked, sixteen_bit_option
from fgdd_fast.cli.options import (
    FACTOR,
    SIZE,
    folder,
    give,
    json_option,
    pool_size,
    resize_option,
    runtime_of_options,
    runtime_options,
    seed_option,
)
from fgdd_fast.cli.terminal import console, console_progress, printable, report_skipped, say
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


@click.group(cls=Group)
def teacher() -> None:
    """Fit a teacher on your own images, or check one."""


@teacher.command()
@click.argument("data", type=folder())
@click.option("-o", "--output", type=folder(), required=True, metavar="BUNDLE", help="The bundle to write.")
@click.option(
    "--backbone",
    default=BACKBONE,
    show_default=True,
    metavar="NAME|BUNDLE",
    shell_complete=offered.models(role="backbone"),
    help="Gives the features.",
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
@json_option()
def fit(data: Path, output: Path, **options: Any) -> None:
    """Fit a teacher for DATA's classes.

    It is a linear classifier on a frozen backbone, and both are written as one bundle.

    \b
    Example: fgdd-fast teacher fit DATA -o teacher.onnx
    """
    runtime, progress = runtime_of_options(options), console_progress(console())
    validation, alone = options["validation"], options["group"] is None
    known = {"held_out": alone, "sixteen_bit": options["sixteen_bit"]}
    opened = open_checked(data, options, validation=validation, runtime=runtime, **known)
    fitted = _shown(lambda: fit_teacher(opened, output, runtime=runtime, progress=progress, **options))
    give(_figures(fitted))
    say(
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
    """Make a cropped-input graph of a teacher, for faster tiles.

    It lies beside BUNDLE, and gives the same losses. With the score view pad most of what a teacher sees is
    blank. This graph takes tiles, and computes the first layers only where a tile shows. `distill` and
    `measure` use it by themselves; `teacher fit` and `export teacher` make it for the default size and
    factor.

    \b
    Example: fgdd-fast teacher tile teacher.onnx --tile 112
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
@json_option()
def check(bundle: str, data: Path, **options: Any) -> None:
    """Check that a teacher knows the classes of DATA.

    It has to know them by name and by sight.
    Class names in another order than the teacher's outputs give chance accuracy without any error: this says
    which folder is taken for which class.

    \b
    Example: fgdd-fast teacher check teacher.onnx DATA
    """
    runtime, progress = runtime_of_options(options), console_progress(console())
    judged = _shown(lambda: check_teacher(bundle, data, runtime=runtime, progress=progress, **options))
    give(_figures(judged))
    accuracy = judged.accuracy
    said = f"{accuracy.top1:.1%} of {accuracy.images} images right"
    say(f"{judged.bundle.name} knows these classes: {said}", always=True)


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
@json_option()
def rename(bundle: str, output: Path, **options: Any) -> None:
    """Give a teacher's classes the names of your folders.

    BUNDLE may say 'Dress' or 'LABEL_3', and is written anew. Which output is which folder is told by the
    spelling of the names, or by what the teacher says of the images in each folder.

    \b
    Example: fgdd-fast teacher rename teacher.onnx --from DATA -o renamed.onnx
    """
    runtime, progress = runtime_of_options(options), console_progress(console())
    renamed = rename_teacher(bundle, output, runtime=runtime, progress=progress, **options)
    for now, before in renamed.renamed.items():
        console().print(f"  {printable(before)} → {printable(now)}", highlight=False, soft_wrap=True)
    give({"bundle": str(renamed.bundle.onnx), "names": renamed.renamed, "by": renamed.by})
    say(f"{renamed.bundle.onnx}: {len(renamed.renamed)} names are others, by {renamed.by}")


def _shown(judge: Callable[[], JudgedTeacher]) -> JudgedTeacher:
    """Show how a teacher was judged, also where it is refused."""
    try:
        judged = judge()
    except PoorTeacherError as error:
        _show_accuracy(error.accuracy)
        raise
    report_skipped(judged.skipped)
    _show_accuracy(judged.accuracy)
    return judged


def _figures(judged: JudgedTeacher) -> dict[str, Any]:
    accuracy, skipped = judged.accuracy, [asdict(each) for each in judged.skipped]
    shares = {"images": accuracy.images, "top1": accuracy.top1, "classes": accuracy.per_class}
    return {"bundle": str(judged.bundle.onnx), **shares, "skipped": skipped}


def _show_accuracy(accuracy: Accuracy) -> None:
    console().print(f"{accuracy.top1:.1%} of {accuracy.images} images right")
    table = Table()
    table.add_column("class")
    table.add_column("right", justify="right")
    for name, share in accuracy.per_class.items():
        table.add_row(printable(name), f"{share:.1%}")
    console().print(table)
