"""`fgdd-fast evaluate`: what students learn from a distilled data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from fgdd_bench.machine.environment import command_line, environment
from fgdd_engines.base import PRECISIONS
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.cli.command import Command
from fgdd_fast.cli.options import device_option, folder, give, json_option, seed_option
from fgdd_fast.cli.terminal import console, console_progress, json_file, json_is_printed, say
from fgdd_fast.runtime.choose import RuntimeOptions, available_processors
from fgdd_fast.students.architectures import NAMES
from fgdd_fast.students.evaluation import EXTRA, check_outputs
from fgdd_fast.students.evaluation import evaluate as evaluate_students
from fgdd_fast.students.inputs.opening import EPOCHS, FOLDER_SIZE, LABEL_KINDS
from fgdd_fast.students.results.report import Evaluation, balanced
from fgdd_fast.students.training.recipe import ARITHMETICS


def names_option(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Take names apart at commas; each counts once."""
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


@click.command(cls=Command)
@click.argument("data", type=folder())
@click.option(
    "--validation",
    type=folder(),
    required=True,
    metavar="FOLDER",
    help="Held-out images, one folder a class.",
)
@click.option(
    "--teacher",
    metavar="BUNDLE",
    help="Labels views online, and is judged too; else the labels stored in DATA are used.",
)
@click.option(
    "--labels",
    type=click.Choice(LABEL_KINDS),
    show_default="online with --teacher, stored where there are some, hard for a folder of images",
    help="What is learned: the teacher's answers, stored or online, or the true classes.",
)
@click.option(
    "--architectures",
    callback=names_option,
    default="resnet18",
    show_default=True,
    metavar="NAME,…",
    help=f"{', '.join(NAMES)}; '-small' is for views up to 64 pixels. Or a plug-in's; or your own as "
    "module:function, which is called with the number of classes and the side of a view.",
)
@click.option(
    "--seeds",
    "students",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Students of each architecture; they differ in their initial weights.",
)
@seed_option()
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    show_default=f"{EPOCHS}, or all that are stored",
    help="Passes over the images.",
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    show_default=f"of DATA; {FOLDER_SIZE} for a folder of images",
    help="Side in pixels of what students see.",
)
@click.option(
    "--student-batch",
    type=click.IntRange(min=1),
    show_default="RDED's for so many images and classes",
    help="Views of a step, which are mixed together.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    show_default="RDED's for the architecture",
    help="AdamW's at first.",
)
@click.option(
    "--precision",
    type=click.Choice(ARITHMETICS),
    default="fp32",
    show_default=True,
    help="Arithmetic while training; bf16 is faster where the processor has it.",
)
@click.option(
    "--compile",
    is_flag=True,
    help="Compile students, for long trainings; on a processor that needs a C++ compiler.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Trains students.",
)
@device_option("--teacher-device", "Runs the teacher; cpu is ONNX Runtime, the reference.")
@click.option(
    "--teacher-precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Arithmetic of the teacher.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=available_processors,
    show_default="all processors",
    help="Processor threads; another number may change the last digits of a curve.",
)
@click.option(
    "--checkpoints", type=folder(), metavar="FOLDER", help="Keeps students, to go on with after a stop."
)
@json_option()
@click.option("--plot", type=folder(), metavar="FILE", help="Draw accuracy by epoch into the PNG FILE.")
def evaluate(
    data: Path,
    teacher_device: Any,
    teacher_precision: Any,
    plot: Path | None,
    **options: Any,
) -> None:
    """Train students on DATA, and judge them on held-out images.

    Training follows RDED's recipe. DATA is a distilled data set; or a folder of images, as students of all
    the real data are the ceiling. Reported is the accuracy after the last epoch, as mean and sample standard
    deviation over the seeds.

    \b
    Example: fgdd-fast evaluate OUT --validation VALIDATION --architectures resnet18
    """
    if plot is not None:
        import_optional("matplotlib", EXTRA)
    check_outputs(None if json_is_printed() else json_file(), plot)
    runtime = RuntimeOptions(device=teacher_device, precision=teacher_precision, threads=options["threads"])
    progress = console_progress(console())
    with progress.task("Loading PyTorch"):
        import_optional("torch", EXTRA)
    try:
        evaluation = evaluate_students(data, teacher_runtime=runtime, progress=progress, **options)
    except KeyboardInterrupt:
        if options["checkpoints"] is not None:
            raise
        click.echo(
            "Stopped. Nothing is kept: name a folder with --checkpoints to go on from there.", err=True
        )
        raise click.exceptions.Exit(130) from None
    console().print(_table(evaluation))
    if json_file() is not None:
        give(evaluation.to_json({**environment(), "command": command_line(sys.argv[1:])}))
    if plot is not None:
        evaluation.draw(plot)
    for summary in evaluation.summaries:
        say(f"{summary.architecture}: {summary.top1} % right", always=True)


def _table(evaluation: Evaluation) -> Table:
    table = Table(caption="Percent after the last epoch. The best one is chosen on these images.")
    table.add_column("student", no_wrap=True)
    for heading in ("parameters", "seeds", "top-1", "balanced", "best epoch"):
        table.add_column(heading, justify="right")
    for row in evaluation.summaries:
        measures = (str(row.top1), str(row.balanced), str(row.best))
        table.add_row(row.architecture, f"{row.parameters:,}", str(len(row.seeds)), *measures)
    table.add_section()
    if evaluation.teacher is not None:
        shown = {"teacher": evaluation.teacher.photographs, "teacher on views": evaluation.teacher.views}
        for name, judged in shown.items():
            table.add_row(name, "", "", f"{100 * judged.top1:.1f}", f"{100 * balanced(judged):.1f}", "")
    classes = len(evaluation.validation.classes)
    guessing = (f"{100 * evaluation.chance:.1f}", f"{100 / classes:.1f}")
    table.add_row("chance", "", "", *guessing, "")
    return table
