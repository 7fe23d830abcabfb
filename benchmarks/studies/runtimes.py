"""A network at its published size in PyTorch and in every runtime of this processor, in turns.

    python -m benchmarks.studies.runtimes --only "grounded-sam2 (tiny, tiny)" --json runtimes.json

Weights are random: speed does not depend on what they know. PyTorch runs the module that is exported, in fp32
and with autocast in bf16. Every way has the same inputs and number of threads; with one thread, processor
time says more than the clock where other programs run.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import click
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.studies.exports import NETWORKS, inputs_of
from fgdd_bench.machine.environment import environment
from fgdd_engines.base import Array, Device, Engine, Precision
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, write_bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.probing.probes import probe
from fgdd_engines.pytorch_reference import PyTorchEngine
from fgdd_export.graphs.graph import serialise, tensor_specs
from fgdd_export.graphs.torch_export import Network, export_network
from fgdd_fast.errors import SettingsError

AUTOCAST = "PyTorch, autocast bf16"
WAYS: Sequence[tuple[Device, Precision]] = (("cpu", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))


@dataclass(frozen=True)
class Row:
    """One network in one runtime.

    Attributes:
        network: its name.
        runtime: what ran it.
        seconds: of the clock, for each turn.
        processor_seconds: of all threads, for each turn.
        against_autocast: processor time of PyTorch's autocast over this one's, within the same turn; median.
    """

    network: str
    runtime: str
    seconds: tuple[float, ...]
    processor_seconds: tuple[float, ...]
    against_autocast: float


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(NETWORKS)), help="These networks; else all.")
@click.option("--turns", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the result is written.")
def main(only: tuple[str, ...], turns: int, threads: int, output: Path | None) -> None:
    """Export networks, and run each in PyTorch and in every runtime of this processor."""
    console = Console(stderr=True)
    before = environment()
    rows: list[Row] = []
    for name in only or NETWORKS:
        with console.status(name):
            rows += _measure(name, NETWORKS[name](), turns, threads)
        if output is not None:
            result = {
                "command": "python -m benchmarks.studies.runtimes",
                "weights": "random",
                "batch": 1,
                "threads": threads,
                "turns": turns,
                "environment": before,
                "rows": [asdict(row) for row in rows],
            }
            output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _show(rows)


def _measure(name: str, network: Network, turns: int, threads: int) -> list[Row]:
    example = inputs_of(network, batch=1)
    feeds = {spec.name: tensor.numpy() for spec, tensor in zip(network.inputs, example, strict=True)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bundle = _export(network, Path(folder))
        engines = {
            label: stack.enter_context(closing(engine))
            for label, engine in _open(network, bundle, threads).items()
        }
        times: dict[str, list[tuple[float, float]]] = {label: [] for label in engines}
        for turn in range(turns + 1):
            for label, engine in engines.items():
                taken = _time(engine, feeds)
                if turn:  # the first warms up
                    times[label].append(taken)
    return [
        Row(
            name,
            label,
            tuple(round(clock, 3) for clock, _ in taken),
            tuple(round(processor, 3) for _, processor in taken),
            round(median(base / own for (_, base), (_, own) in zip(times[AUTOCAST], taken, strict=True)), 3),
        )
        for label, taken in times.items()
    ]


def _export(network: Network, folder: Path) -> Bundle:
    model = export_network(network, inputs_of(network, batch=2)).model
    bundle = Bundle(
        onnx=folder / "network.onnx",
        name=network.name,
        role="backbone",
        sha256="",
        inputs=tensor_specs(model.graph.input),
        outputs=tensor_specs(model.graph.output),
        preprocessing=Preprocessing(1, 1, "none"),
        classes=None,
        source={"weights": "random"},
        licence="NOASSERTION",
    )
    return write_bundle(bundle, serialise(model))


def _open(network: Network, bundle: Bundle, threads: int) -> dict[str, Engine]:
    precisions: Mapping[str, Literal["fp32", "bf16"]] = {"PyTorch, fp32": "fp32", AUTOCAST: "bf16"}
    engines: dict[str, Engine] = {
        label: PyTorchEngine(
            network.module,
            network.inputs,
            network.outputs,
            {"batch": 1},
            precision=precision,
            threads=threads,
        )
        for label, precision in precisions.items()
    }
    for device, precision in WAYS:
        if not probe(device).runs:
            continue
        try:
            engine = open_engine(
                bundle, device=device, precision=precision, axes={"batch": 1}, threads=threads
            )
        except SettingsError:
            continue  # this processor does not compute so
        engines[engine.arithmetic] = engine
    return engines


def _time(engine: Engine, feeds: Mapping[str, Array]) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    engine.run(feeds)
    return time.perf_counter() - clock, time.process_time() - processor


def _show(rows: Sequence[Row]) -> None:
    table = Table("network", "runtime", "s", "processor s", "against autocast")
    for row in rows:
        figures = median(row.seconds), median(row.processor_seconds), row.against_autocast
        table.add_row(row.network, row.runtime, *(f"{figure:.3g}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
