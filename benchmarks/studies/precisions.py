"""What do lower precisions of a network gain and cost on this processor, in each runtime?

    python -m benchmarks.studies.precisions DATA --network saliency --json precisions-saliency.json
    python -m benchmarks.studies.precisions DATA --network teacher.onnx --validation FOLDER --samples 240
        --batch 6 --turns 7 --json precisions-teacher.json

Speed is that of the network alone, on inputs that are ready: every implementation in turn, several times
over, so that what else the machine does hits all alike; ratios are medians over the turns. Decisions are
compared on images of DATA with fp32 in ONNX Runtime. Runs what variants lie beside the bundle: make int8
first, by `fgdd-fast convert`. Kept results: `precisions-saliency.json`, `precisions-teacher.json`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.studies.study import Study, data_argument, number_option, read_images, study
from fgdd_engines.backends import find_backend
from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.probing.probes import probe
from fgdd_fast.errors import SettingsError, TeacherError
from fgdd_fast.models.factory import find_network
from fgdd_fast.models.linear_head import accuracy, whole_images
from fgdd_fast.models.network import BatchedNetwork, Images, Runtime, check_classes
from fgdd_fast.runtime.choose import runtime_for
from fgdd_fast.runtime.parity import Comparison
from fgdd_fast.runtime.sample_images import check_images, sample_feeds

OUTPUT = {"teacher": "loss", "foreground": "occupancy", "backbone": "features"}


@study
@data_argument
@click.option("--network", required=True, metavar="NAME|BUNDLE", help="A teacher or a saliency model.")
@click.option(
    "--validation", type=click.Path(path_type=Path), help="Images that a teacher was not fitted on."
)
@click.option("--images", type=click.IntRange(min=2), default=100, show_default=True)
@number_option("--samples", 24, "Timed in a turn.")
@number_option("--batch", 1, "Samples an inference.")
@number_option("--turns", 5)
@number_option("--threads", 2, "Processor threads.")
def main(
    study: Study,
    data: Path,
    network: str,
    validation: Path | None,
    images: int,
    samples: int,
    batch: int,
    turns: int,
    threads: int,
) -> None:
    """Compare all ways to run a network on this processor, on images of DATA."""
    bundle = find_network(network)
    if validation is not None and bundle.role != "teacher":
        raise TeacherError(f"{bundle.name} is no teacher, so it names no images", "Leave --validation out.")
    judged = None if validation is None else read_images(validation)
    if judged is not None:
        check_classes(bundle, judged[0].classes)
    checked = check_images(data, images, {})
    runtimes = list(_runtimes(bundle, threads))
    comparison = Comparison(bundle, checked)
    compared = [comparison.compare(each, batch=1) for each in study.track(runtimes, "Comparing")]
    feeds = sample_feeds(bundle, checked)[:samples]
    seconds = _time(study, bundle, runtimes, feeds, batch, turns)
    rows = [
        {
            "way": f"{runtime.device} {runtime.precision}",
            "arithmetic": found.arithmetic,
            "samples_per_second": len(feeds) / median(times),
            "ratio": median(first / own for first, own in zip(seconds[0], times, strict=True)),
            "seconds": [round(value, 4) for value in times],
            "top1": None if judged is None else _top1(bundle, runtime, judged[1]),
            "figures": dict(found.parity.figures),
            "accepted": found.parity.accepted,
        }
        for runtime, found, times in zip(runtimes, compared, seconds, strict=True)
    ]
    facts: dict[str, Any] = {
        "network": bundle.name,
        "sha256": bundle.sha256,
        "images": len(checked),
        "samples": len(feeds),
    }
    columns = {"way": "", "samples_per_second": ".1f", "ratio": ".2f", "top1": ".1%", "accepted": ""}
    study.report(rows, columns, **facts, batch=batch, turns=turns, threads=threads)
    figures = [{"way": row["way"], **compared[place].parity.figures} for place, row in enumerate(rows)]
    names = [name for name in figures[0] if name != "way" and not name.startswith(("with", "batch"))]
    study.show(figures, {"way": "", **dict.fromkeys(names, ".4g")})


def _runtimes(bundle: Bundle, threads: int) -> Iterator[Runtime]:
    """Yield every device of the processor that runs, in every precision for which there is a graph."""
    for device in ("cpu", "openvino"):
        for precision in find_backend(device).variants if probe(device).runs else ():
            try:
                found = runtime_for(bundle, device, precision)
                runtime = Runtime(found.device, found.precision, threads, found.variants)
                BatchedNetwork(bundle, runtime, batch=1).close()
            except SettingsError:
                continue
            yield runtime


def _time(
    study: Study,
    bundle: Bundle,
    runtimes: Sequence[Runtime],
    feeds: Sequence[Mapping[str, Array]],
    batch: int,
    turns: int,
) -> list[list[float]]:
    """Return the seconds of each for all feeds, for each turn; a turn before the first warms up."""
    batches = [
        {name: np.concatenate([feed[name] for feed in feeds[start : start + batch]]) for name in feeds[0]}
        for start in range(0, len(feeds), batch)
    ]
    seconds: list[list[float]] = [[] for _ in runtimes]
    with ExitStack() as stack:
        networks = [
            stack.enter_context(closing(BatchedNetwork(bundle, each, batch=batch))) for each in runtimes
        ]
        for turn in study.track(range(turns + 1), "Turns"):
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


def _top1(bundle: Bundle, runtime: Runtime, images: Sequence[Any]) -> float:
    """Return the share of images, seen whole, that a teacher names right."""
    classes = list(bundle.classes or ())
    with closing(BatchedNetwork(bundle, runtime, batch=1)) as network:

        def run(pixels: Images) -> NDArray[np.float32]:
            feeds: dict[str, Array] = {"images": pixels, "labels": np.zeros(len(pixels), np.int32)}
            return network.run(feeds, ["logits"])["logits"]

        logits, used, _ = whole_images(images, network, run, method="area", threads=runtime.threads)
    labels = np.array([classes.index(image.class_name) for image in used])
    return accuracy(logits, labels, classes).top1


if __name__ == "__main__":
    main()
