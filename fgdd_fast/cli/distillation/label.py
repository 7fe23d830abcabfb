"""`fgdd-fast label`: stored soft labels of a distilled data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.command import Command
from fgdd_fast.cli.data import executor_option
from fgdd_fast.cli.options import (
    folder,
    give,
    json_option,
    runtime_of_options,
    runtime_options,
    seed_option,
)
from fgdd_fast.cli.terminal import console, console_progress, say
from fgdd_fast.images.tiles import SCORE_VIEWS
from fgdd_fast.labels.compression import COMPRESSIONS_HELP, TEMPERATURE
from fgdd_fast.labels.index import MOST_EPOCHS, LabelIndex
from fgdd_fast.labels.making import EPOCHS, make_labels
from fgdd_fast.output.folder import LABELS


@click.command(cls=Command)
@click.argument("out", type=folder())
@click.option("--teacher", required=True, metavar="BUNDLE", help="The teacher that OUT was distilled with.")
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
    "--label-view",
    "view",
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
    default="float16",
    show_default=True,
    metavar="HOW",
    help=f"How logits are kept: {COMPRESSIONS_HELP}. The cost is printed.",
)
@click.option("--other-teacher", is_flag=True, help="Allow a teacher that OUT was not distilled with.")
@click.option("--overwrite", is_flag=True, help="Replace labels that were made with other settings.")
@seed_option()
@runtime_options()
@executor_option()
@json_option()
def label(out: Path, **options: Any) -> None:
    """Store the teacher's soft labels for a distilled data set.

    They lie in OUT/labels/.
    Every image and every tile gets one set of logits; every epoch gets one for each of its training views,
    with the view's tiles, crop, flip and CutMix. An epoch is a file of about 2 bytes a class and 14 bytes
    more for each image. What a stopped run has finished is kept, and the same command goes on from there.

    \b
    Example: fgdd-fast label OUT --teacher teacher.onnx --epochs 300
    """
    runtime, progress = runtime_of_options(options), console_progress(console())
    index = make_labels(out, runtime=runtime, progress=progress, **options)
    give(label_figures(out, index))
    say(summary(out, index))


def label_figures(out: Path, index: LabelIndex) -> dict[str, Any]:
    """What is there, for programs."""
    size, cost = sum(file.size for file in index.files.values()), index.epoch_cost
    found = {"labels": str(out / LABELS), "images": len(index.subject.images), "epochs": index.epochs}
    return {**found, "bytes": size, "cost": None if cost is None else asdict(cost)}


def summary(out: Path, index: LabelIndex) -> str:
    """What is there, its size on disk, and what the compression cost, for reports."""
    images, total = len(index.subject.images), sum(file.size for file in index.files.values())
    if index.views is None or (cost := index.epoch_cost) is None:
        return f"{out / LABELS}: logits of {images} images and their tiles, {total:,} bytes"
    return (
        f"{out / LABELS}: {index.epochs} epochs of {images} views, {index.epoch_bytes / images:.1f} bytes a "
        f"view, {total:,} bytes in all.\n{index.views.compression}: {cost.agreement:.2%} of the top classes "
        f"are the teacher's; the divergence from its labels is {cost.divergence:.1e} nats at T = "
        f"{TEMPERATURE:g} (of uniform labels: {cost.information:.1e})."
    )
