"""`fgdd-fast stream` and `fgdd-fast merge`: distil what a camera sees, and join what several boards kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fgdd_fast.cli.command import Command
from fgdd_fast.cli.data import sixteen_bit_option
from fgdd_fast.cli.distillation.distill import ipc_option, rule_option
from fgdd_fast.cli.distillation.summary import report_plan
from fgdd_fast.cli.options import (
    F,
    combined,
    folder,
    give,
    json_option,
    measure_options,
    preset_option,
    runtime_of_options,
    selection_options,
)
from fgdd_fast.cli.terminal import console, console_progress, printable, say
from fgdd_fast.options import FOREGROUND_RULE, WHOLE_RULE
from fgdd_fast.selection.images_per_class import HELP as IPC_HELP
from fgdd_fast.streaming.checkpoint import Written
from fgdd_fast.streaming.labels import HELP as LABELS_HELP
from fgdd_fast.streaming.merging import merge as run_merge
from fgdd_fast.streaming.run import RESERVOIR
from fgdd_fast.streaming.stream import stream as run_stream

_WHOLE, _MORE = click.IntRange(min=1), click.FloatRange(min=0, min_open=True)


def stream_options() -> Callable[[F], F]:
    """How a stream is read, and what it may take."""
    every = "Of so many frames of a video, a camera or standard input take one."
    reservoir = "Images of a class by which its threshold is set; up to so many, its tiles are exact."
    patience = "After so long without a frame, a camera is opened anew."
    numbers: list[tuple[str, click.ParamType[Any], Any, str, str]] = [
        ("--every", _WHOLE, 1, "N", every),
        ("--reservoir", _WHOLE, RESERVOIR, "N", reservoir),
        ("--checkpoint", _MORE, 60.0, "SECONDS", "How often OUT is written anew."),
        ("--memory", _WHOLE, None, "MIB", "What the process may hold; frames beyond it are dropped."),
        ("--disk", _WHOLE, None, "MIB", "What OUT.candidates may take; the least promising ones go."),
        ("--fps", _MORE, None, "N", "Frames a second; a camera's others are dropped, files wait."),
        ("--power", _MORE, None, "WATTS", "What the machine may take, as its sensors tell; else as --fps."),
        ("--patience", _MORE, 10.0, "SECONDS", patience),
    ]
    return combined(
        click.option("--once", is_flag=True, help="End with the last file that a folder has."),
        click.option(
            "--labels",
            metavar="HOW",
            show_default="folder of a folder, else teacher",
            help=f"What tells the class of an image. {LABELS_HELP}.",
        ),
        click.option(
            "--confident",
            type=click.FloatRange(0, 1),
            default=0.9,
            show_default=True,
            metavar="P",
            help="The probability that the teacher gives a class that it tells, at least.",
        ),
        *(
            click.option(
                name, type=kind, default=default, show_default=default is not None, metavar=metavar, help=text
            )
            for name, kind, default, metavar, text in numbers
        ),
    )


@click.command(cls=Command)
@click.argument("source")
@click.argument("out", type=folder())
@click.option(
    "--ipc",
    callback=ipc_option,
    default="10",
    show_default=True,
    help=f"Images (mosaics) per class: {IPC_HELP}.",
)
@click.option(
    "--rule",
    callback=rule_option,
    show_default=f"{FOREGROUND_RULE} where a foreground model is named, else {WHOLE_RULE}",
    metavar="RULE",
    help="Which images are kept whole, as for 'fgdd-fast distill', but without a control.",
)
@preset_option()
@stream_options()
@sixteen_bit_option()
@measure_options(streamed=True)
@selection_options()
@click.option(
    "--format", type=click.Choice(["png", "jpg"]), default="png", show_default=True, help="Of the mosaics."
)
@click.option("--overwrite", is_flag=True, help="Begin anew, and replace an older data set at OUT.")
@json_option()
def stream(source: str, out: Path, **options: Any) -> None:
    """Distil a camera, a video or a folder that grows.

    OUT is whole at every checkpoint. SOURCE is a folder, a video file, a camera (camera:0), or - for JPEGs on
    standard input, each after four bytes, the highest first, that say how many bytes it has. Run the same
    command again to go on.

    \b
    Example: fgdd-fast stream camera:0 OUT --teacher teacher.onnx --every 15
    """
    runtime = runtime_of_options(options)
    done = run_stream(source, out, runtime=runtime, progress=console_progress(console()), **options)
    _show(done.written, out, counts=done.counts)
    counts = ", ".join(f"{count} {printable(name)}" for name, count in done.counts.items() if count)
    say(f"Of the stream: {counts}")


@click.command(cls=Command)
@click.argument("outs", nargs=-1, required=True, type=folder(), metavar="OUT...")
@click.option("-o", "--output", type=folder(), required=True, metavar="OUT", help="The folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace an older distilled data set there.")
@json_option()
def merge(outs: tuple[Path, ...], output: Path, overwrite: bool) -> None:
    """Merge distilled streams, such as those of several boards.

    No image is read. Beside each OUT lies its file OUT.candidates, which 'fgdd-fast stream' keeps: copy both
    from a board.

    \b
    Example: fgdd-fast merge board1 board2 -o ALL
    """
    progress = console_progress(console())
    _show(run_merge(outs, output, overwrite=overwrite, progress=progress), output)


def _show(written: Written, out: Path, **more: Any) -> None:
    """Show what is in OUT, and what is not yet."""
    report_plan(written.plan)
    for name, reason in written.short.items():
        line = f"Not yet in OUT: {printable(name)}. {printable(reason)}"
        console().print(line, style="yellow", highlight=False, soft_wrap=True)
    images = len(written.manifest.images)
    give({"out": str(out), "images": images, "lacking": dict(written.short), **more})
    say(f"{images} mosaics in {out}")
