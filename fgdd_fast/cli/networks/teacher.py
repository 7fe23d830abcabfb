"""`fgdd-fast teacher`: fit a teacher on one's own classes, and check one before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fgdd_engines.bundle.bundle import Bundle
from fgdd_export.classifier.teacher import build_teacher
from fgdd_export.tile.bundle import write_tile_form
from fgdd_fast.cli.options import (
    BACKBONE,
    FACTOR,
    SIZE,
    folder,
    pool_size,
    resize_option,
    runtime_options,
    seed_option,
)
from fgdd_fast.cli.session import RuntimeOptions, open_runtime, printable, progress_bar, report_skipped
from fgdd_fast.errors import DataError, SettingsError, TeacherError
from fgdd_fast.images.dataset import DataSet, SourceImage, pool, scan
from fgdd_fast.images.resize import ResizeMethod
from fgdd_fast.models.catalogue.catalogue import find_bundle
from fgdd_fast.models.linear_head import Accuracy, accuracy, fit_head, hold_out, swapped_classes, whole_images
from fgdd_fast.models.network import BatchedNetwork, Images, Teacher, check_classes


@dataclass(frozen=True, kw_only=True)
class TeacherOptions(RuntimeOptions):
    """The options that `fit` and `check` share, named as on the command line."""

    resize: ResizeMethod
    seed: int


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
    "share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of each class that is held out.",
)
@click.option("--force", is_flag=True, help="Write the bundle even if it is no better than guessing.")
@resize_option()
@seed_option()
@runtime_options()
def fit(
    data: Path,
    output: Path,
    backbone: str,
    validation: Path | None,
    share: float,
    force: bool,
    **options: Any,
) -> None:
    """Fit a linear classifier for DATA's classes on a frozen backbone, and write both as one bundle."""
    console = Console(stderr=True)
    fitted = fit_teacher(
        data,
        output,
        backbone=backbone,
        validation=validation,
        share=share,
        force=force,
        options=TeacherOptions(**options),
        console=console,
    )
    click.echo(
        f"{fitted.onnx}: {len(fitted.classes or ())} classes, "
        f"{100 * float(fitted.accuracy['top1']):.1f} % of {fitted.accuracy['images']} held-out images right"
    )


def fit_teacher(
    data: Path,
    output: Path,
    *,
    backbone: str = BACKBONE,
    validation: Path | None = None,
    share: float = 0.2,
    force: bool = False,
    options: TeacherOptions,
    console: Console,
) -> Bundle:
    """Fit, judge on held-out images, and write a teacher.

    Raises:
        TeacherError: it is no better than guessing, and `force` is not set.
    """
    onnx = output if output.suffix == ".onnx" else output.with_name(output.name + ".onnx")
    dataset = scan(data)
    fitting, held = _split(dataset, validation, share, options.seed)
    bundle = find_bundle(backbone, "backbone")
    preprocessing = bundle.preprocessing
    runtime = open_runtime(bundle, options, console)
    height, width = preprocessing.height, preprocessing.width
    with closing(BatchedNetwork(bundle, runtime, batch=options.batch, height=height, width=width)) as network:

        def features(images: Images) -> NDArray[np.float32]:
            return network.run({"images": images}, ["features"])["features"]

        inputs, labels = _labelled(fitting, dataset.classes, network, features, options, console)
        held_inputs, held_labels = _labelled(held, dataset.classes, network, features, options, console)
        arithmetic = network.engine.arithmetic
    present = set(labels.tolist())
    absent = [name for place, name in enumerate(dataset.classes) if place not in present]
    if absent:
        raise DataError(
            f"No image of the class '{absent[0]}' is left to fit on",
            "Add images to it, or remove its folder.",
        )
    with console.status("Fitting the classifier"):
        head = fit_head(inputs, labels)
    judged = accuracy(head.logits(held_inputs), held_labels, dataset.classes)
    _show_accuracy(judged, console)
    if not judged.above_chance() and not force:
        raise TeacherError(
            f"The teacher is no better than guessing: {judged.top1:.1%} of {judged.images} held-out images "
            f"are right, and always naming the most frequent class gets {judged.chance:.1%}",
            "Check the labels, add images, or name another --backbone; --force writes it all the same.",
        )
    fitted = build_teacher(
        bundle,
        head.weight,
        head.bias,
        dataset.classes,
        onnx,
        name=onnx.stem,
        source={"fitted_on": {"images": len(labels), "seed": options.seed, "resize": options.resize}},
        accuracy={
            "top1": judged.top1,
            "images": judged.images,
            "held_out": "validation folder" if validation is not None else f"{share:g} of each class",
            "per_class": judged.per_class,
            "features": arithmetic,
        },
    )
    if fitted.preprocessing.pad_value is not None:
        write_tile_form(fitted, SIZE // FACTOR)
    return fitted


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
    """Make the tile form of the teacher BUNDLE, beside it: the same losses for tiles, faster.

    With the score view pad most of what a teacher sees is blank. The tile form computes its first layers only
    where the tile shows. `distill` and `measure` use it by themselves; `teacher fit` and `export teacher`
    make it for the default size and factor.
    """
    loaded = find_bundle(bundle, "teacher")
    for tile in tiles:
        form = write_tile_form(loaded, tile)
        if form is None:
            click.echo(
                f"Tiles of {tile} pixels: {loaded.name} has no layers that need only a part of the view",
                err=True,
            )
        else:
            click.echo(str(form.onnx))


@teacher.command()
@click.argument("bundle")
@click.argument("data", type=folder())
@click.option(
    "--pool",
    "limit",
    callback=pool_size,
    default="20",
    show_default=True,
    metavar="N|all",
    help="Images tried per class.",
)
@resize_option()
@seed_option()
@runtime_options()
def check(bundle: str, data: Path, limit: int | None, **options: Any) -> None:
    """Check that the teacher BUNDLE knows the classes of DATA, by name and by sight.

    Class names in another order than the teacher's outputs give chance accuracy without any error: this says
    which folder is taken for which class.
    """
    console = Console(stderr=True)
    settings = TeacherOptions(**options)
    dataset = scan(data)
    loaded = find_bundle(bundle, "teacher")
    check_classes(loaded, dataset.classes)
    classes = loaded.classes or ()
    runtime = open_runtime(loaded, settings, console)
    size = loaded.preprocessing.width
    with closing(Teacher(loaded, runtime, view="native", tile_size=size, batch=settings.batch)) as network:
        images = pool(dataset, limit, settings.seed)
        logits, labels = _labelled(images, classes, network, network.logits, settings, console)
    judged = accuracy(logits, labels, classes)
    _show_accuracy(judged, console)
    swapped = swapped_classes(judged.confusion)
    if swapped:
        pairs = "; ".join(
            f"images in the folder '{classes[folder]}' are taken for '{classes[taken]}'"
            for folder, taken in swapped
        )
        raise TeacherError(
            f"The teacher's class names are not in the order of its outputs: {pairs}",
            f"Correct the order of 'classes' in {loaded.sidecar}, or the names of the folders.",
        )
    if not judged.above_chance():
        raise TeacherError(
            f"The teacher is no better than guessing on these images: {judged.top1:.1%} of {judged.images} "
            "are right",
            "Is it the right teacher, and are the labels right? To fit one: fgdd-fast teacher fit",
        )
    click.echo(f"{loaded.name} knows these classes: {judged.top1:.1%} of {judged.images} images right")


def _split(
    dataset: DataSet, validation: Path | None, share: float, seed: int
) -> tuple[tuple[SourceImage, ...], tuple[SourceImage, ...]]:
    """The images to fit on, and those held out: a share of each class, or all of another folder."""
    if len(dataset.classes) < 2:
        raise TeacherError(f"{dataset.root} has one class, and a teacher must tell at least two apart")
    if validation is None:
        fitting, held = hold_out(dataset.images, share, seed)
        if not held:
            raise DataError(
                f"No image of {dataset.root} can be held out: every class has a single one",
                "Add images, or name held-out ones with --validation.",
            )
        return fitting, held
    other = scan(validation)
    unknown = sorted(set(other.classes) - set(dataset.classes))
    if unknown:
        raise SettingsError(
            f"{validation} has classes that the images to fit on lack: {', '.join(map(repr, unknown))}",
            "Both folders need the same class folders.",
        )
    return dataset.images, other.images


def _labelled(
    images: Sequence[SourceImage],
    classes: Sequence[str],
    network: BatchedNetwork,
    run: Callable[[Images], NDArray[np.float32]],
    options: TeacherOptions,
    console: Console,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the network says of whole images [n, ...], and the images' labels [n]."""
    with progress_bar(console) as bar:
        task = bar.add_task("Reading images", total=len(images))
        results, used, skipped = whole_images(
            images,
            network,
            run,
            method=options.resize,
            threads=options.threads,
            advance=lambda: bar.advance(task),
        )
    report_skipped(skipped, console)
    index = {name: place for place, name in enumerate(classes)}
    return results, np.array([index[image.class_name] for image in used])


def _show_accuracy(judged: Accuracy, console: Console) -> None:
    console.print(f"{judged.top1:.1%} of {judged.images} images right")
    table = Table()
    table.add_column("class")
    table.add_column("right", justify="right")
    for name, share in judged.per_class.items():
        table.add_row(printable(name), f"{share:.1%}")
    console.print(table)
