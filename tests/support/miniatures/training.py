"""Train both miniatures into OUT/grounding-dino and OUT/sam2, and score how the pair finds what is named.

Interrupted training goes on where it stopped; the same seed and steps give the same weights on the same
machine. Needs the extras `export` and `test`, and about half an hour of one core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoProcessor, GroundingDinoForObjectDetection, Sam2Model

from fgdd_bench.machine.environment import environment
from fgdd_fast.synthetic.scenes import absent_name, draw_scene
from fgdd_fast.synthetic.tools import Dice
from miniatures.batches import Pixels, detection_batch, normalised, resized, segmentation_batch
from miniatures.losses import TaughtDetector, box_overlaps, detection_loss, segmentation_loss
from miniatures.networks import (
    SEGMENTER_SIDE,
    new_detector,
    new_segmenter,
    new_tokenizer,
    save_detector,
    save_segmenter,
)

_CHECKPOINT_EVERY, _WARM_UP, _COOL_DOWN = 100, 200, 0.4  # steps, steps, share of the steps
_LEARNING_RATE = 1e-3
_THRESHOLD = 0.4
_HELD_OUT = 2**41  # training draws its scenes from smaller seeds
_TOKENIZER = new_tokenizer()


class Course(NamedTuple):
    """How one network is trained: made, saved, its loss of a step, and how many steps."""

    new: Callable[[], nn.Module]
    save: Callable[[Any, Path], None]
    loss: Callable[[Any, Dice, int], Tensor]
    steps: int


COURSES = {
    "grounding-dino": Course(
        lambda: TaughtDetector(new_detector()),
        lambda taught, folder: save_detector(taught.detector, folder),
        lambda taught, dice, _: detection_loss(taught, detection_batch(dice, _TOKENIZER, count=8)),
        6500,
    ),
    "sam2": Course(
        new_segmenter,
        save_segmenter,
        lambda network, dice, step: segmentation_loss(
            network, *segmentation_batch(dice, count=16, prompts=3), several=step % 2 == 1
        ),
        1500,
    ),
}


def train(name: str, out: Path, seed: int) -> dict[str, Any]:
    """Train one network, or go on from its checkpoint in `out`; returns what it took."""
    course, checkpoint = COURSES[name], out / f"{name}.training.pt"
    torch.manual_seed(seed)
    network = course.new().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-4)
    first, minutes = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first, minutes = state["steps"], state["minutes"]
    begin, steps = time.perf_counter(), course.steps
    for step in range(first, steps):
        share = min((step + 1) / _WARM_UP, 1.0, (steps - step) / (_COOL_DOWN * steps))
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * share
        loss = course.loss(network, Dice(seed, name, str(step)), step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == steps:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "steps": step + 1}
            state["minutes"] = minutes + (time.perf_counter() - begin) / 60
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
            course.save(network, out / name)
            click.echo(f"{name}: {step + 1} of {steps} steps, loss {loss.item():.2f}", err=True)
    parameters = sum(parameter.numel() for parameter in course.new().parameters())
    minutes = torch.load(checkpoint, weights_only=True)["minutes"]
    return {"steps": steps, "minutes": round(minutes, 1), "parameters": parameters}


class Pair:
    """The two networks of a folder in single precision, used as the published ones are."""

    def __init__(self, folder: Path) -> None:
        processor: Any = AutoProcessor
        detector: Any = GroundingDinoForObjectDetection
        segmenter: Any = Sam2Model
        self._processor = processor.from_pretrained(folder / "grounding-dino")
        self._detector = detector.from_pretrained(folder / "grounding-dino", dtype=torch.float32).eval()
        self._segmenter = segmenter.from_pretrained(folder / "sam2", dtype=torch.float32).eval()

    @torch.no_grad()
    def boxes(self, pixels: Pixels, name: str) -> Tensor:
        """Return [n, 4] corners in pixels of what is above the threshold."""
        inputs = self._processor(images=pixels, text=f"a {name}.", return_tensors="pt")
        results = self._processor.post_process_grounded_object_detection(
            self._detector(**inputs), threshold=_THRESHOLD, target_sizes=[pixels.shape[:2]]
        )
        return Tensor(results[0]["boxes"])

    @torch.no_grad()
    def masks(self, pixels: Pixels, boxes: Tensor) -> Any:
        """Return bool [n, height, width] of what lies in the boxes [n, 4]."""
        (height, width), side = pixels.shape[:2], SEGMENTER_SIDE
        if len(boxes) == 0:
            return np.zeros((0, height, width), bool)
        logits = self._segmenter(
            pixel_values=normalised(resized(pixels, (side, side)))[None],
            input_boxes=(boxes * torch.tensor([side / width, side / height] * 2))[None],
            multimask_output=False,
        ).pred_masks[0]
        full = functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        return (full[:, 0] > 0).numpy()


def score(pair: Pair, count: int, seed: int) -> dict[str, float]:
    """Ask for every name of `count` held-out scenes, and for as many that are absent.

    Returns:
        `found`: the share of the named objects that a box overlaps with an IoU above 0.7; `spurious`: boxes
        that overlap none above 0.5, for each name; `false_alarms`: the share of the absent names for which
        there is a box, `absent_zero` of those with an occupancy of 0; `mask_iou` of the masks that true boxes
        give; the mean and the worst error of the occupancy that both find.
    """
    found, spurious, false_alarms, mask_ious, errors, zeros = [], [], [], [], [], []
    for index in range(count):
        dice = Dice(seed, "held out", str(index))
        scene = draw_scene(_HELD_OUT + dice.whole(0, 2**40), (dice.whole(160, 400), dice.whole(160, 400)))
        absent = absent_name(scene, dice.whole(0, 2**40))
        for name in sorted({item.name for item in scene.objects}):
            items = [item for item in scene.objects if item.name == name]
            boxes = pair.boxes(scene.pixels, name)
            overlaps, _ = box_overlaps(torch.tensor([item.box for item in items]), boxes)
            found += [bool((row > 0.7).any()) for row in overlaps]
            spurious.append(int((~(overlaps > 0.5).any(0)).sum()))
            union = pair.masks(scene.pixels, boxes).any(0)
            errors.append(abs(float(union.mean()) - scene.occupancy(name)))
        masks = pair.masks(scene.pixels, torch.tensor([item.box for item in scene.objects]))
        for item, mask in zip(scene.objects, masks, strict=True):
            mask_ious.append((item.mask & mask).sum() / (item.mask | mask).sum())
        boxes = pair.boxes(scene.pixels, absent)
        false_alarms.append(len(boxes) > 0)
        zeros.append(not pair.masks(scene.pixels, boxes).any())
    figures = {"found": found, "spurious": spurious, "false_alarms": false_alarms, "mask_iou": mask_ious}
    figures |= {"occupancy_error": errors, "absent_zero": zeros}
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    return {"scenes": count, **means, "worst_occupancy_error": max(errors)}


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--scenes", type=click.IntRange(min=1), default=200, show_default=True, help="To score on.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where the scores are written.")
def main(out: Path, seed: int, scenes: int, output: Path | None) -> None:
    """Train the miniatures into the folder OUT, or go on where that stopped, and score them as a pair."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    before = environment()
    out.mkdir(parents=True, exist_ok=True)
    training = {name: train(name, out, seed) for name in COURSES}
    result = {"command": "python -m miniatures.training", "seed": seed, "threshold": _THRESHOLD}
    result |= {"training": training, "scores": score(Pair(out), scenes, seed), "environment": before}
    text = json.dumps(result, indent=1) + "\n"
    click.echo(text) if output is None else output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
