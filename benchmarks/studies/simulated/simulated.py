"""What do data sets as large as ImageNet-1K and 21K take of time and memory, but for the networks?

    python -m benchmarks.studies.simulated WORK --classes 1000 --images 1280 --json scale-imagenet.json

No network runs. The images are links to one picture, and what would be measured of them is drawn, and kept in
a store as a run keeps it. Then each step of the work is done by the product's own code, in a process of its
own, whose memory at the peak is noted. WORK is new, or holds what an earlier run left there, and `--steps`
says what is to be done. Kept results: `scale-imagenet.json`, `scale-labels.json`.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import click

from benchmarks.studies.simulated.made import Made
from benchmarks.studies.simulated.steps import STEPS, run
from benchmarks.studies.study import Study, number_option, study

COLUMNS = {
    "step": "",
    "seconds": ",.1f",
    "processor_seconds": ",.1f",
    "memory_before": ",d",
    "peak_memory": ",d",
}


def _steps(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    steps = tuple(word.strip() for word in text.split(","))
    if unknown := [step for step in steps if step not in STEPS]:
        raise click.BadParameter(f"there is no step {unknown[0]!r}; there are {', '.join(STEPS)}.")
    return steps


@study
@click.argument("work", type=click.Path(path_type=Path))
@number_option("--classes", 1000)
@number_option("--images", 1280, "Of each class.")
@number_option("--pool", None, "Images of each class that are considered; all by default.")
@number_option("--ipc", 10, "Mosaics of a class.")
@click.option("--steps", default=",".join(STEPS), callback=_steps, help="Those to be done, in their order.")
def main(
    study: Study, work: Path, classes: int, images: int, pool: int | None, ipc: int, steps: tuple[str, ...]
) -> None:
    """Simulate a data set in the folder WORK, and measure the work on it."""
    work.mkdir(parents=True, exist_ok=True)
    made = Made(work, classes, images, pool, ipc)
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        for step in study.track(steps, "Steps"):
            rows.append(processes.apply(run, (made, step)))
            facts = {"classes": classes, "images": classes * images, "pool": pool, "ipc": ipc}
            study.report(rows, COLUMNS, data=facts, show=step == steps[-1])


if __name__ == "__main__":
    main()
