"""`fgdd-fast label`: stored soft labels of a distilled data set."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from fgdd_fast.cli.options import folder, runtime_options, seed_option
from fgdd_fast.cli.session import RuntimeOptions, open_runtime, progress_bar
from fgdd_fast.errors import DataError, SettingsError, TeacherError
from fgdd_fast.images.tiles import SCORE_VIEWS, ScoreView
from fgdd_fast.labels.compression import (
    COMPRESSIONS_HELP,
    FLOAT16,
    TEMPERATURE,
    Compression,
    parse_compression,
)
from fgdd_fast.labels.index import MOST_EPOCHS, LabelIndex, LabelledViews, epoch_file, read_index
from fgdd_fast.labels.making import LabelSettings, make_labels
from fgdd_fast.labels.teacher import check_labelling_teacher
from fgdd_fast.labels.training_views import ViewRecipe, default_batch
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.output.distilled import DistilledSet, open_distilled
from fgdd_fast.output.folder import LABEL_INDEX, LABELS

EPOCHS = 300  # RDED's training


def compression_option(ctx: click.Context, param: click.Parameter, value: str) -> Compression:
    """Parse a compression."""
    try:
        return parse_compression(value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class LabelOptions(RuntimeOptions):
    """The options of `label`, named as on the command line; None is worked out of the data set."""

    epochs: int = EPOCHS
    size: int | None = None
    student_batch: int | None = None
    cutmix: bool = True
    seed: int = 0
    view: ScoreView = "resize"
    score_view: ScoreView | None = None
    compress: Compression = FLOAT16
    other_teacher: bool = False
    overwrite: bool = False


@click.command()
@click.argument("out", type=folder())
@click.option("--teacher", metavar="BUNDLE", help="The teacher that OUT was distilled with.")
@click.option(
    "--epochs",
    type=click.IntRange(0, MOST_EPOCHS),
    default=EPOCHS,
    show_default=True,
    help="Epochs of training views; 0 for images and tiles alone. More can be added later.",
)
@click.option("--size", type=click.IntRange(min=1), show_default="OUT's", help="Side of a student's view.")
@click.option(
    "--student-batch",
    type=click.IntRange(min=1),
    show_default="RDED's for OUT's images and classes",
    help="Views that are mixed together.",
)
@click.option("--cutmix/--no-cutmix", default=True, show_default=True, help="Whether views are mixed.")
@click.option(
    "--view",
    type=click.Choice(["resize", "native"]),
    default="resize",
    show_default=True,
    help="How the teacher is shown a view: brought to its input, or at its own size.",
)
@click.option(
    "--score-view",
    type=click.Choice(SCORE_VIEWS),
    show_default="OUT's",
    help="How the teacher is shown a tile, for the labels of tiles.",
)
@click.option(
    "--compress",
    callback=compression_option,
    default="float16",
    show_default=True,
    metavar="HOW",
    help=f"How logits are kept: {COMPRESSIONS_HELP}. The cost is printed.",
)
@click.option("--other-teacher", is_flag=True, help="Allow a teacher that OUT was not distilled with.")
@click.option("--overwrite", is_flag=True, help="Replace labels that were made with other settings.")
@seed_option()
@runtime_options()
def label(out: Path, teacher: str | None, **options: Any) -> None:
    """Store the teacher's soft labels for the distilled data set OUT, in OUT/labels/.

    Every image and every tile gets one set of logits; every epoch gets one for each of its training views,
    with the view's tiles, crop, flip and CutMix. An epoch is a file of about 2 bytes a class and 14 bytes
    more for each image. What a stopped run has finished is kept, and the same command goes on from there.
    """
    console = Console(stderr=True)
    index = label_folder(out, teacher, LabelOptions(**options), console)
    click.echo(summary(out, index))


def label_folder(out: Path, teacher: str | None, options: LabelOptions, console: Console) -> LabelIndex:
    """Make what is missing of the labels of OUT, showing progress.

    Args:
        out: the distilled data set.
        teacher: name or path of the bundle.
        options: which labels, and how the teacher runs.
        console: for progress.

    Returns:
        The index of what is there.

    Raises:
        FgddError: see `fgdd_fast.errors`; what was finished is kept.
    """
    if teacher is None:
        raise TeacherError(
            "No teacher is named", "Add: --teacher BUNDLE, the one that OUT was distilled with."
        )
    distilled = open_distilled(out)
    bundle = find_bundle(teacher, "teacher")
    check_labelling_teacher(bundle, distilled, other_teacher=options.other_teacher)
    settings = label_settings(distilled, options)
    runtime = open_runtime(bundle, options, console)
    begin = time.perf_counter()
    with _saying_what_is_kept(out, console), progress_bar(console) as bar:
        task = bar.add_task("Labelling", total=None)
        index = make_labels(
            distilled,
            bundle,
            runtime,
            settings,
            overwrite=options.overwrite,
            begin=lambda total: bar.update(task, total=total),
            advance=lambda: bar.advance(task),
            notice=partial(_warn, console),
        )
        done = int(bar.tasks[0].completed)
    seconds = time.perf_counter() - begin
    if index.subject.other_teacher:
        _warn(console, f"{index.subject.teacher.name} is not the teacher that {out} was distilled with.")
    rate = f" in {seconds:.1f} s, {done / seconds:.1f} a second" if done else ""
    console.print(f"{done} images, tiles and views labelled{rate}", highlight=False, style="dim")
    return index


def label_settings(distilled: DistilledSet, options: LabelOptions) -> LabelSettings:
    """The settings that options mean for a data set.

    Raises:
        SettingsError: a value is out of its range.
    """
    manifest = distilled.manifest
    images_per_class = max(len(distilled) // max(len(manifest.classes), 1), 1)
    recipe = ViewRecipe(
        size=options.size or distilled.size,
        factor=distilled.factor,
        batch=options.student_batch or default_batch(len(manifest.classes), images_per_class),
        seed=options.seed,
        cutmix=options.cutmix,
    )
    scored = (view for view in SCORE_VIEWS if view == manifest.settings.get("score_view"))
    tile_view = next(scored, SCORE_VIEWS[0]) if options.score_view is None else options.score_view
    views = LabelledViews(recipe, options.view, options.compress)
    return LabelSettings(options.epochs, views, tile_view, options.batch)


def summary(out: Path, index: LabelIndex) -> str:
    """What is there, its size on disk, and what the compression cost, for reports."""
    images, total = len(index.subject.images), sum(file.size for file in index.files.values())
    epochs = [index.files[epoch_file(epoch)] for epoch in range(index.epochs)]
    if not epochs or index.views is None:
        return f"{out / LABELS}: logits of {images} images and their tiles, {total:,} bytes"
    each = sum(file.size for file in epochs) / len(epochs) / images
    divergence = sum(file.cost.divergence for file in epochs) / len(epochs)
    information = sum(file.cost.information for file in epochs) / len(epochs)
    agreement = sum(file.cost.agreement for file in epochs) / len(epochs)
    return (
        f"{out / LABELS}: {len(epochs)} epochs of {images} views, {each:.1f} bytes a view, {total:,} bytes "
        f"in all.\n{index.views.compression}: {agreement:.2%} of the top classes are the teacher's; the "
        f"divergence from its labels is {divergence:.1e} nats at T = {TEMPERATURE:g} (of uniform labels: "
        f"{information:.1e})."
    )


@contextlib.contextmanager
def _saying_what_is_kept(out: Path, console: Console) -> Iterator[None]:
    """Say, when the work is stopped by Ctrl-C, how many epochs are kept."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(DataError):
            index = read_index(out / LABELS / LABEL_INDEX)
            there = index.epochs - len(index.missing)
            console.print(f"{there} of {index.epochs} epochs are labelled and kept.", highlight=False)
        raise


def _warn(console: Console, line: str) -> None:
    console.print(f"[yellow]{escape(line)}[/yellow]", highlight=False, soft_wrap=True)
