"""`fgdd-fast demo`: everything at once, on drawn pictures or on the user's own photographs."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import click
import numpy as np

from fgdd_export.catalogue.prepare import pull_model
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.distillation.report import report_option, write_final_report
from fgdd_fast.cli.distillation.summary import report_plan
from fgdd_fast.cli.options import folder, foreground_options, runtime_of_options, runtime_options
from fgdd_fast.cli.terminal import console, console_progress, say
from fgdd_fast.distilling import distill
from fgdd_fast.errors import OutputError
from fgdd_fast.models.catalogue.catalogue import load_catalogue
from fgdd_fast.models.fitting import BACKBONE, fit_teacher
from fgdd_fast.output.folder import REPORT, writing
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.output.report import draw_contact_sheet
from fgdd_fast.planning import Plan
from fgdd_fast.synthetic import DrawnSource, write_drawn_dataset

DRAWN_PER_CLASS = 30
FIRST_IMAGES = 60  # of each class of the user's own photographs, so that the demo stays short


@click.command(cls=Command)
@click.option(
    "--data", type=folder(), help="Your own photographs, one folder a class; else pictures are drawn."
)
@click.option(
    "--out",
    type=folder(),
    default=Path("fgdd-demo"),
    show_default=True,
    help="Folder for everything that the demo makes.",
)
@click.option(
    "--ipc", type=click.IntRange(min=1), default=2, show_default=True, help="Images (mosaics) per class."
)
@report_option()
@foreground_options()
@runtime_options()
def demo(
    data: Path | None,
    out: Path,
    ipc: int,
    report: bool,
    foreground: str,
    prompts: Path | None,
    box_threshold: float | None,
    **options: Any,
) -> None:
    """Try everything on drawn pictures, or on your own photographs.

    The models are pulled, a teacher is fitted, and images are distilled and shown: on a contact sheet and in
    a report. The foregrounds of drawn pictures are known, so it says how well they were measured.

    \b
    Example: fgdd-fast demo --data DATA --ipc 5
    """
    runtime = runtime_of_options(options)
    drawn: Sequence[DrawnSource] = ()
    if data is None:
        data, masks = out / "data", out / "masks"
        with _drawing(data, masks) as drawing:
            pull_models((foreground, BACKBONE))
            heading("Drawing a data set")
            with writing(data):
                drawn = drawing.result()
        console().print(f"{len(drawn)} pictures in {data}, their foregrounds in {masks}")
    else:
        pull_models((foreground, BACKBONE))
    heading("Fitting a teacher")
    progress = console_progress(console())
    teacher = fit_teacher(data, out / "teacher.onnx", runtime=runtime, progress=progress).bundle
    heading("Distilling")
    distilled = out / "distilled"
    plan, manifest = distill(
        data,
        distilled,
        teacher=teacher.onnx,
        foreground=foreground,
        prompts=prompts,
        box_threshold=box_threshold,
        pool=FIRST_IMAGES,
        store=out / "store",
        ipc=ipc,
        overwrite=True,
        runtime=runtime,
        progress=progress,
    )
    report_plan(plan)
    sheet = out / "contact-sheet.png"
    draw_contact_sheet(distilled, data, sheet, foreground=foreground, runtime=runtime)
    _report(plan, manifest, drawn)
    say(f"Mosaics:       {distilled / 'images'}")
    say(f"Manifest:      {distilled / 'manifest.json'}")
    say(f"Teacher:       {teacher.onnx}")
    say(f"Contact sheet: {sheet}")
    if report:
        page = out / REPORT
        write_final_report(distilled, data, path=page, threads=runtime.threads, progress=progress)


@contextmanager
def _drawing(data: Path, masks: Path) -> Iterator[Future[tuple[DrawnSource, ...]]]:
    """Draw in a process of its own, while models are made ready in this one."""
    untouched = signal.signal, (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is this process's to answer
    with ProcessPoolExecutor(1, get_context("spawn"), *untouched) as executor:
        try:
            yield executor.submit(
                write_drawn_dataset, data, images_per_class=DRAWN_PER_CLASS, seed=0, masks=masks
            )
        except BrokenProcessPool as error:
            raise OutputError(
                f"{data} was not drawn: the process that drew it was ended", "Is memory short? Try again."
            ) from error
        except BaseException:
            for child in active_children():
                child.terminate()
            raise


def heading(text: str) -> None:
    """Begin a part of the demo."""
    console().rule(text, align="left")


def pull_models(names: Sequence[str]) -> None:
    """Pull those of the models that are in the catalogue; others are the user's own."""
    catalogue = load_catalogue()
    for name in names:
        if name in catalogue:
            heading(f"Model {name}")
            entry = catalogue[name]
            bundle = pull_model(name)
            console().print(f"{entry.description} ({entry.licence}): {bundle.onnx}", soft_wrap=True)


def _report(plan: Plan, manifest: Manifest, drawn: Sequence[DrawnSource]) -> None:
    """What became of the images and, where the truth is known, how well occupancies were measured."""
    heading("Done")
    occupancies = {source: value for part in plan.classes for source, value in part.occupancies.items()}
    known = [(occupancies[item.source], item.occupancy) for item in drawn if item.source in occupancies]
    if known:
        measured, true = np.array(known).T
        errors = np.abs(measured - true)
        console().print(
            f"Measured against true occupancy of {len(known)} pictures: mean error {errors.mean():.3f}, "
            f"largest {errors.max():.3f}, correlation {np.corrcoef(measured, true)[0, 1]:.3f}"
        )
    tiles_count = sum(len(image.tiles) for image in manifest.images)
    console().print(
        f"{manifest.image_count} images became {len(manifest.images)} mosaics of {tiles_count} tiles, "
        f"for {len(manifest.classes)} classes."
    )
