"""`fgdd-fast evaluate`: what students learn from a distilled data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from fgdd_bench.machine.environment import command_line, environment
from fgdd_fast.cli.checks.evaluation import (
    EvaluateOptions,
    Evaluation,
    check_outputs,
    run_evaluation,
    write_outputs,
)
from fgdd_fast.cli.options import folder
from fgdd_fast.runtime.choose import available_processors
from fgdd_fast.students.inputs.opening import EPOCHS, FOLDER_SIZE, LABEL_KINDS
from fgdd_fast.students.results.report import balanced, chance
from fgdd_fast.students.training.recipe import ARITHMETICS


def names_option(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Take names apart at commas; each counts once."""
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


@click.command()
@click.argument("data", type=folder())
@click.option(
    "--val", type=folder(), required=True, metavar="FOLDER", help="Held-out images, one folder a class."
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
    help="convnet3 to convnet5, resnet18, resnet50, mobilenetv2, vit-tiny; resnet18-small and its like are "
    "for views up to 64 pixels.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Students of each architecture; they differ in their initial weights.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the first student; also of the views, where none are stored.",
)
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
    "--batch",
    type=click.IntRange(min=1),
    show_default="RDED's for so many images and classes",
    help="Views of a step.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    show_default="RDED's for the architecture",
    help="AdamW's at first.",
)
@click.option(
    "--arithmetic",
    type=click.Choice(ARITHMETICS),
    default="fp32",
    show_default=True,
    help="While training; bf16 is faster where the processor has it.",
)
@click.option(
    "--compile",
    is_flag=True,
    help="Compile students, for long trainings; on a processor that needs a C++ compiler.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Trains."
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
@click.option("--json", "json_file", type=folder(), metavar="FILE", help="Write all results to FILE.")
@click.option("--plot", type=folder(), metavar="FILE", help="Draw accuracy by epoch into the PNG FILE.")
def evaluate(data: Path, **options: Any) -> None:
    """Train students on DATA by RDED's recipe, and judge them on the images of --val.

    DATA is a distilled data set; or a folder of images, as students of all the real data are the ceiling.
    Reported is the accuracy after the last epoch, as mean and sample standard deviation over the seeds.
    """
    console = Console(stderr=True)
    settings = EvaluateOptions(**options)
    check_outputs(settings)
    try:
        evaluation = run_evaluation(data, settings, console)
    except KeyboardInterrupt:
        kept = (
            "Nothing is kept: name a folder with --checkpoints to go on from there."
            if settings.checkpoints is None
            else "The same command goes on from the students kept in --checkpoints."
        )
        console.print(f"Stopped. {kept}", soft_wrap=True)
        raise click.exceptions.Exit(130) from None
    _show(evaluation, console)
    used = {"command": command_line(sys.argv[1:]), "device": evaluation.device}
    write_outputs(evaluation, settings, {**environment(), **used})
    for summary in evaluation.summaries:
        click.echo(f"{summary.architecture}: {summary.top1} % right")


def _show(evaluation: Evaluation, console: Console) -> None:
    table = Table(caption="Percent after the last epoch. The best one is chosen on these images.")
    table.add_column("student", no_wrap=True)
    for heading in ("parameters", "seeds", "top-1", "balanced", "best epoch"):
        table.add_column(heading, justify="right")
    for row in evaluation.summaries:
        measures = (str(row.top1), str(row.balanced), str(row.best))
        table.add_row(row.architecture, f"{row.parameters:,}", str(len(row.seeds)), *measures)
    table.add_section()
    if evaluation.teacher is not None:
        shown = {
            "teacher": evaluation.teacher.photographs,
            "teacher on views": evaluation.teacher.views,
        }
        for name, judged in shown.items():
            table.add_row(name, "", "", f"{100 * judged.top1:.1f}", f"{100 * balanced(judged):.1f}", "")
    validation = evaluation.validation
    guessing = (f"{100 * chance(validation):.1f}", f"{100 / len(validation.classes):.1f}")
    table.add_row("chance", "", "", *guessing, "")
    console.print(table)
