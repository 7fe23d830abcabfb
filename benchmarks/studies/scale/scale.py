"""How time, memory and the store grow with the number of images, and what ImageNet-1K would take.

    python -m benchmarks.studies.scale.scale DATA --teacher BUNDLE --counts 100,1000,10000 --json OUT.json

For each number of images, `fgdd-fast measure`, the same again, and `fgdd-fast distill` run in processes of
their own. The images are links to photographs of DATA; where these run out, copies with a number in a JPEG
comment, because the store would know a second link. How cost grows does not depend on how much a network
computes, so it is measured with quick ones by default. Then every kind of work is timed alone, with these
models and with those that are projected. The first are held against the largest run, the second say what
ImageNet-1K would take; `benchmarks.studies.scale.project` does so with other rates.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.studies.model_rates import Options, Pair, PairRates, rates_of
from benchmarks.studies.scale.growth import Growth, growth
from benchmarks.studies.scale.growth_report import show_check, show_growth, verdicts
from benchmarks.studies.scale.growth_runs import Setup, SizeRuns, run_size
from benchmarks.studies.scale.many_images import HOW, distinct_photographs
from benchmarks.studies.scale.project import show
from benchmarks.studies.scale.projection import IMAGENET, Workload, project
from fgdd_bench.machine.environment import command_line, environment
from fgdd_engines.backends import DEVICES
from fgdd_engines.base import PRECISIONS
from fgdd_fast.errors import FgddError
from fgdd_fast.images.dataset import SourceImage, scan
from fgdd_fast.images.views import SCORE_VIEWS

TURNS = 3  # in which each kind of work is timed

_POSITIVE = click.IntRange(min=1)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--teacher", required=True, metavar="BUNDLE")
@click.option(
    "--counts",
    default="100,300,1000,3000,10000",
    show_default=True,
    help="Numbers of images.",
)
@click.option("--repeats", type=_POSITIVE, default=1, show_default=True, help="Of all numbers, in turns.")
@click.option("--foreground", default="saliency-u2netp-128", show_default=True, help="To see growth with.")
@click.option("--score-view", type=click.Choice(SCORE_VIEWS), default="native", show_default=True)
@click.option("--project-foreground", default="saliency-u2netp", show_default=True, help="To project with.")
@click.option("--project-score-view", type=click.Choice(SCORE_VIEWS), default="pad", show_default=True)
@click.option("--sample", type=_POSITIVE, default=60, show_default=True, help="Images that work is timed on.")
@click.option("--threads", type=_POSITIVE, default=2, show_default=True)
@click.option("--crops", type=_POSITIVE, default=5, show_default=True)
@click.option("--size", type=_POSITIVE, default=224, show_default=True, help="Side of a mosaic in pixels.")
@click.option("--ipc", type=_POSITIVE, default=10, show_default=True, help="Mosaics of a class.")
@click.option("--device", type=click.Choice(["auto", *DEVICES]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(
    data: Path,
    counts: str,
    repeats: int,
    foreground: str,
    score_view: Any,
    project_foreground: str,
    project_score_view: Any,
    sample: int,
    ipc: int,
    output: Path | None,
    **options: Any,
) -> None:
    """Measure growth on images made of the photographs of DATA, and project ImageNet-1K."""
    images = _numbers(counts)
    pairs = Pair(foreground, score_view), Pair(project_foreground, project_score_view)
    try:
        before = environment()
        photographs = distinct_photographs(scan(data))
        shared = Options(**options)
        measured = _run_all(photographs, images, repeats, _setup(shared, pairs[0], ipc))
        quick, projected = (rates_of(pair, shared, photographs[:sample], TURNS) for pair in pairs)
    except FgddError as error:
        raise click.ClickException(str(error)) from error
    grown = _growth(measured)
    start = max(grown.lines["measure again"]["seconds"].start, 0.0)
    workload = replace(IMAGENET, crops=shared.crops, ipc=ipc)
    projection = project(workload, replace(projected.rates, start=start))
    check = _check(grown, quick, shared.crops)
    if output is not None:
        result = {
            "command": command_line(_given()),
            "environment": before,
            "images": {"made_as": HOW, "photographs": len(photographs), **asdict(quick.images)},
            "models": {"growth": quick.models, "projection": projected.models},
            "sizes": [asdict(size) for size in measured],
            "growth": asdict(grown),
            "verdicts": verdicts(grown),
            "rates": asdict(quick.rates),
            "check": check,
            "projection": asdict(projection),
        }
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console = Console()
    show_growth(measured, grown, console)
    show_check(check, console)
    show(projection, console)


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers of images, ascending, of a text such as `100,1000`."""
    words = {word.strip() for word in text.split(",")}
    if not all(word.isdecimal() and int(word) > 0 for word in words) or len(words) < 2:
        raise click.BadParameter(f"{text!r} is not two or more numbers with commas between.")
    return tuple(sorted(map(int, words)))


def _setup(options: Options, pair: Pair, ipc: int) -> Setup:
    """What the commands are told."""
    words = {
        "teacher": options.teacher,
        "foreground": pair.foreground,
        "score-view": pair.score_view,
        "crops": options.crops,
        "size": options.size,
        "threads": options.threads,
        "device": options.device,
        "precision": options.precision,
    }
    given = tuple(part for name, value in words.items() for part in (f"--{name}", str(value)))
    return Setup(options=given, ipc=ipc)


def _run_all(
    photographs: Sequence[SourceImage], counts: Sequence[int], repeats: int, setup: Setup
) -> list[SizeRuns]:
    """Run the commands on every number of images, in turns, after the smallest once to warm up."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=counts[0] + repeats * sum(counts))

        def run(images: int) -> SizeRuns:
            done = run_size(
                photographs,
                images,
                setup,
                lambda what: bar.update(task, description=f"{images:,} images: {what}"),
            )
            bar.advance(task, images)
            return done

        run(counts[0])
        return [run(images) for _ in range(repeats) for images in counts]


def _growth(sizes: Sequence[SizeRuns]) -> Growth:
    runs = [run for size in sizes for run in size.runs]
    return growth(runs, [(size.runs[0].images, size.store_bytes) for size in sizes])


def _check(grown: Growth, quick: PairRates, crops: int) -> dict[str, Any]:
    """What the arithmetic says of measuring the most images, and what that took, without the start."""
    images = grown.per_image.compared[1]
    workload = Workload(
        name="the largest run",
        classes=1,
        pool=images,
        crops=crops,
        ipc=1,
        factor=2,
        megapixels=quick.images.megapixels,
        megabytes=quick.images.megabytes,
    )
    measuring = project(workload, quick.rates).phases[0]
    return {
        "images": images,
        "projected": {
            "seconds": measuring.seconds,
            "processor_seconds": measuring.busy["processor"] * quick.rates.threads,
        },
        "measured": {
            "seconds": images * grown.per_image.seconds[images],
            "processor_seconds": images * grown.per_image.processor_seconds[images],
        },
    }


def _given() -> list[str]:
    """The words of the command, with the options that were given."""
    context = click.get_current_context()
    words = ["python", "-m", "benchmarks.studies.scale.scale"]
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = [] if isinstance(parameter, click.Argument) else parameter.opts[:1]
            words += [*option, str(context.params[name])]
    return words


if __name__ == "__main__":
    # As Ctrl-C does, so that neither temporary folders nor commands are left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
