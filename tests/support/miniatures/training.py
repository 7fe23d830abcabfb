"""Trains miniatures of Grounding DINO and SAM 2 on drawn scenes, and scores how the pair finds what is named.

    python -m miniatures.training OUT --json OUT.json

OUT/grounding-dino and OUT/sam2 are folders that transformers' `from_pretrained` loads. Interrupted training
goes on where it stopped; the same seed and steps give the same weights on the same machine. Needs the extras
`export` and `test`, and about half an hour of one core.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import cv2
import torch
import transformers
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn

from fgdd_bench.machine.environment import environment
from fgdd_bench.references.grounded.miniature_networks import (
    new_detector,
    new_segmenter,
    new_tokenizer,
    save_detector,
    save_segmenter,
)
from fgdd_fast.synthetic.tools import Dice
from miniatures.batches import detection_batch, segmentation_batch
from miniatures.losses import TaughtDetector, detection_loss, segmentation_loss
from miniatures.scores import THRESHOLD, Pair, Scores, score

_CHECKPOINT_EVERY = 100  # steps
_WARM_UP = 200  # steps
_COOL_DOWN = 0.4  # share of the steps
_LEARNING_RATE = 1e-3
_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Course:
    """How one network is trained.

    Attributes:
        new: makes it with fresh weights.
        save: writes the folder that `from_pretrained` loads.
        loss: of one step, from the network, the step's random numbers and its number.
        steps: how many.
    """

    new: Callable[[], nn.Module]
    save: Callable[[Any, Path], None]
    loss: Callable[[Any, Dice, int], Any]
    steps: int


_TOKENIZER = new_tokenizer()


def _new_taught_detector() -> nn.Module:
    return TaughtDetector(new_detector())


def _save_taught_detector(taught: Any, folder: Path) -> None:
    save_detector(taught.detector, folder)


def _detector_loss(detector: Any, dice: Dice, _: int) -> Tensor:
    return detection_loss(detector, detection_batch(dice, _TOKENIZER, count=8))


def _segmenter_loss(segmenter: Any, dice: Dice, step: int) -> Tensor:
    return segmentation_loss(segmenter, segmentation_batch(dice, count=16, prompts=3), several=step % 2 == 1)


COURSES = {
    "grounding-dino": Course(_new_taught_detector, _save_taught_detector, _detector_loss, steps=6500),
    "sam2": Course(new_segmenter, save_segmenter, _segmenter_loss, steps=1500),
}


def train(name: str, out: Path, steps: int, seed: int, progress: Progress) -> None:
    """Train one network up to a number of steps, or go on from its checkpoint in `out`."""
    course = COURSES[name]
    torch.manual_seed(seed)
    network = course.new().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-4)
    first, minutes = 0, 0.0
    if checkpoint_path(out, name).exists():
        state = torch.load(checkpoint_path(out, name), weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first, minutes = state["steps"], state["minutes"]
    task = progress.add_task(name, total=steps, completed=first, loss=math.nan)
    begin = time.perf_counter()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * _schedule(step, steps)
        loss = course.loss(network, Dice(seed, name, str(step)), step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        progress.update(task, advance=1, loss=loss.item())
        if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == steps:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "steps": step + 1}
            state["minutes"] = minutes + (time.perf_counter() - begin) / 60
            _write_checkpoint(checkpoint_path(out, name), state)
            course.save(network, out / name)


def checkpoint_path(out: Path, name: str) -> Path:
    """Where a network's training can go on from."""
    return out / f"{name}.training.pt"


def _write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: linear warm-up, all of it, and linear cool-down."""
    return min((step + 1) / _WARM_UP, 1.0, (steps - step) / (_COOL_DOWN * steps))


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--network",
    "networks",
    type=click.Choice(list(COURSES)),
    multiple=True,
    default=list(COURSES),
    show_default=True,
    help="Train this one only; the pair is scored when both are there.",
)
@click.option("--steps", type=click.IntRange(min=1), help="In place of each network's own number.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--scenes", type=click.IntRange(min=1), default=200, show_default=True, help="To score on.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the scores are written.")
def main(
    out: Path, networks: tuple[str, ...], steps: int | None, seed: int, scenes: int, output: Path | None
) -> None:
    """Train the miniatures into the folder OUT, or go on where that stopped, and score them as a pair."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    before = environment()
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.2f}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        for name in networks:
            train(name, out, steps or COURSES[name].steps, seed, progress)
    if not all((out / name).exists() for name in COURSES):
        return
    scores = score(Pair(out), scenes, seed)
    _show(scores, console)
    if output is not None:
        result = {
            "command": "python -m miniatures.training",
            "seed": seed,
            "threshold": THRESHOLD,
            "training": {name: _training(out, name) for name in COURSES},
            "scores": asdict(scores),
            "environment": before | {"torch": version("torch"), "transformers": version("transformers")},
        }
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _training(out: Path, name: str) -> dict[str, Any]:
    state = torch.load(checkpoint_path(out, name), weights_only=True)
    weights = out / name / "model.safetensors"
    return {
        "steps": state["steps"],
        "minutes": round(state["minutes"], 1),
        "parameters": sum(parameter.numel() for parameter in COURSES[name].new().parameters()),
        "bytes": weights.stat().st_size,
    }


def _show(scores: Scores, console: Console) -> None:
    table = Table("score", "value")
    for name, value in asdict(scores).items():
        table.add_row(name.replace("_", " "), f"{value:.4g}")
    console.print(table)


if __name__ == "__main__":
    main()
