"""How fast and how faithful each way to run a network on this processor is: runtimes and precisions.

    python -m benchmarks.studies.precisions DATA --network saliency --json OUT.json
    python -m benchmarks.studies.precisions DATA --network teacher.onnx --validation FOLDER --json OUT.json

Speed is that of the network alone, on inputs that are ready: every way in turn, several times over, so that
what else the machine does hits all alike; ratios are medians over the turns. Decisions are compared on images
of DATA with fp32 in ONNX Runtime.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fgdd_bench.machine.environment import environment
from fgdd_engines.backends import find_backend
from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.probing.probes import probe
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import pool, scan
from fgdd_fast.models.factory import find_network
from fgdd_fast.models.linear_head import accuracy, whole_images
from fgdd_fast.models.network import BatchedNetwork, Images, Runtime
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.parity import Comparison, sample_feeds
from fgdd_fast.runtime.sample_images import check_images

OUTPUT = {"teacher": "loss", "foreground": "occupancy", "backbone": "features"}


@dataclass(frozen=True)
class Row:
    """One way.

    Attributes:
        way: device and precision as asked for.
        arithmetic: what really ran.
        samples_per_second: views of a teacher, images of other networks; median over the turns.
        ratio: to the first way, within the same turn; median over the turns.
        seconds: of each turn.
        top1: share of validation images that a teacher names right, at their whole; None without.
        figures: how its decisions compare.
        accepted: whether they are close enough for `--device auto`.
    """

    way: str
    arithmetic: str
    samples_per_second: float
    ratio: float
    seconds: tuple[float, ...]
    top1: float | None
    figures: Mapping[str, float]
    accepted: bool


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--network", "name", required=True, metavar="NAME|BUNDLE", help="A teacher or a saliency model."
)
@click.option(
    "--validation", type=click.Path(path_type=Path), help="Images that a teacher was not fitted on."
)
@click.option("--images", "count", type=click.IntRange(min=2), default=100, show_default=True)
@click.option("--samples", type=click.IntRange(min=1), default=24, show_default=True, help="Timed in a turn.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples an inference."
)
@click.option("--turns", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(
    data: Path,
    name: str,
    validation: Path | None,
    count: int,
    samples: int,
    batch: int,
    turns: int,
    threads: int,
    output: Path | None,
) -> None:
    """Compare all ways to run a network on this processor, on images of DATA."""
    cv2.setNumThreads(1)
    bundle = find_network(name)
    before = environment()
    images = check_images(data, count, {})
    ways = list(_ways(bundle, threads))
    comparison = Comparison(bundle, images)
    held = [comparison.hold(way, batch=1) for way in ways]
    feeds = sample_feeds(bundle, images)[:samples]
    seconds = _time(bundle, ways, feeds, batch, turns)
    rows = [
        Row(
            way=f"{way.device} {way.precision}",
            arithmetic=found.arithmetic,
            samples_per_second=len(feeds) / median(times),
            ratio=median(first / own for first, own in zip(seconds[0], times, strict=True)),
            seconds=tuple(round(value, 4) for value in times),
            top1=None if validation is None else _top1(bundle, way, validation),
            figures=found.agreement.figures,
            accepted=found.agreement.accepted,
        )
        for way, found, times in zip(ways, held, seconds, strict=True)
    ]
    if output is not None:
        result = {
            "command": "python -m benchmarks.studies.precisions",
            "network": bundle.name,
            "sha256": bundle.sha256,
            "images": len(images),
            "samples": len(feeds),
            "batch": batch,
            "turns": turns,
            "threads": threads,
            "environment": before,
            "rows": [asdict(row) for row in rows],
        }
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(bundle, rows)


def _ways(bundle: Bundle, threads: int) -> Iterator[Runtime]:
    """Every device of the processor that runs, in every precision for which the bundle has a graph."""
    for device in ("cpu", "openvino"):
        for precision in find_backend(device).variants if probe(device).runs else ():
            try:
                way = runtime_for(bundle, device, precision)
                closed = Runtime(way.device, way.precision, threads, way.variants)
                BatchedNetwork(bundle, closed, batch=1).close()
            except SettingsError:
                continue
            yield closed


def _time(
    bundle: Bundle, ways: Sequence[Runtime], feeds: Sequence[Mapping[str, Array]], batch: int, turns: int
) -> list[list[float]]:
    """Seconds that each way takes for all feeds, for each turn; a turn before the first warms up."""
    batches = [
        {name: np.concatenate([feed[name] for feed in feeds[start : start + batch]]) for name in feeds[0]}
        for start in range(0, len(feeds), batch)
    ]
    seconds: list[list[float]] = [[] for _ in ways]
    with ExitStack() as stack:
        networks = [stack.enter_context(closing(BatchedNetwork(bundle, way, batch=batch))) for way in ways]
        for turn in range(turns + 1):
            for network, times in zip(networks, seconds, strict=True):
                elapsed = _run(network, batches, OUTPUT[bundle.role])
                if turn:
                    times.append(elapsed)
    return seconds


def _run(network: BatchedNetwork, batches: Sequence[Mapping[str, Array]], output: str) -> float:
    with ThreadPoolExecutor(network.streams) as executor:
        begin = time.perf_counter()
        list(executor.map(lambda feeds: network.run(feeds, [output]), batches))
        return time.perf_counter() - begin


def _top1(bundle: Bundle, way: Runtime, validation: Path) -> float:
    """Share of the images of a folder, seen whole, that a teacher names right."""
    classes = list(bundle.classes or ())
    with closing(BatchedNetwork(bundle, way, batch=1)) as network:

        def run(pixels: Images) -> NDArray[np.float32]:
            feeds: dict[str, Array] = {"images": pixels, "labels": np.zeros(len(pixels), np.int32)}
            return network.run(feeds, ["logits"])["logits"]

        images = pool(scan(validation), None, 0)
        logits, used, _ = whole_images(images, network, run, method="area", threads=way.threads)
    labels = np.array([classes.index(image.class_name) for image in used])
    return accuracy(logits, labels, classes).top1


def _show(bundle: Bundle, rows: Sequence[Row]) -> None:
    names = [name for name in rows[0].figures if not name.startswith(("with", "batch"))]
    headings = ["way", "samples/s", "ratio", *(["top-1"] if rows[0].top1 is not None else []), *names]
    table = Table(*(heading.replace("_", " ") for heading in headings), title=bundle.name)
    for row in rows:
        top1 = [] if row.top1 is None else [f"{row.top1:.1%}"]
        figures = [f"{row.figures[name]:.4g}" for name in names]
        table.add_row(row.way, f"{row.samples_per_second:.1f}", f"{row.ratio:.2f}", *top1, *figures)
    Console().print(table)


if __name__ == "__main__":
    main()
