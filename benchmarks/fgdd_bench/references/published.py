"""The published style: image by image in fp32, as RDED's synthesis and public saliency scripts do it.

Pillow opens an image; it becomes a float tensor at full resolution, of which every crop is interpolated,
normalised and padded with zeros; the views of one image make one eager forward pass.

Source: the public repository LINs-lab/RDED, `synthesize/`, with torchvision's functions written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fgdd_bench.harness.implementation import Implementation, Name, PathName, Step, StepByStep
from fgdd_bench.harness.subject import Subject, Task, whole_and_crops
from fgdd_bench.ours.mosaics import tiles_answer
from fgdd_bench.references.mosaics import PILLOW, open_mosaics
from fgdd_bench.references.networks import (
    Shown,
    find_normalisation,
    pytorch_on,
    reference_device,
    saliency_network,
    teacher_network,
    wait_for,
)
from fgdd_engines.base import Array
from fgdd_fast.images.dataset import SourceImage


def open_reference(path: PathName, task: Task, subject: Subject, name: Name = "published") -> Implementation:
    """Open the published style along a path: `decode`, `foreground`, `teacher` or `compose`.

    Raises:
        SettingsError: the subject lacks what the path needs.
        FgddError: a model cannot be rebuilt in PyTorch, or there is no GPU.
    """
    if path == "compose":
        return open_mosaics(name, task, subject.given_plan())
    if path == "decode":
        cut = Step("preprocess", lambda image, picture: _tiles(image, picture, task), task.threads)
        arithmetic = f"Pillow {PIL.__version__}, PyTorch {torch.__version__}"
        return StepByStep(name, arithmetic, (*PILLOW.reading(), cut), tiles_answer)
    device = reference_device(task)
    prepare, infer, answer = (_saliency if path == "foreground" else _teacher)(task, subject, device)
    stage = Step("saliency" if path == "foreground" else "teacher", infer, task.busy_threads)
    steps = (*published_steps(prepare, task, device), stage)
    return StepByStep(name, f"{pytorch_on(device)}, fp32", steps, answer)


def published_steps(
    prepare: Callable[[SourceImage, Any], Any], task: Task, device: torch.device
) -> list[Step]:
    """Return the steps from an image to what a network takes of it, on the device.

    Args:
        prepare: makes of an image and of its picture something that has PyTorch's method `to`.
        task: how many threads that keeps busy.
        device: where the network is.
    """

    def copy(_: SourceImage, value: Any) -> Any:
        on_device = value.to(device)
        wait_for(device)
        return on_device

    copying = [Step("host to device", copy)] if device.type == "cuda" else []
    return [*PILLOW.reading(), Step("preprocess", prepare, task.threads), *copying]


def _saliency(task: Task, subject: Subject, device: torch.device) -> tuple[Any, Any, Any]:  # noqa: ARG001
    """Return what is done to prepare an image and to find its foreground, and what makes the answer."""
    bundle = subject.foreground_bundle()
    network = saliency_network(bundle).to(device)
    size = (bundle.preprocessing.height, bundle.preprocessing.width)

    def resized(_: SourceImage, picture: Image.Image) -> Tensor:
        return _to_uint8(_interpolated(to_planes(picture), size))

    @torch.no_grad()
    def find(_: SourceImage, images: Tensor) -> tuple[Array, ...]:
        return tuple(tensor[0].cpu().numpy() for tensor in network(images))

    def answer(found: list[tuple[Array, Array]]) -> dict[str, Array]:
        occupancies, masks = map(np.stack, zip(*found, strict=True))
        return {"occupancy": occupancies, "masks": masks}

    return resized, find, answer


def _teacher(task: Task, subject: Subject, device: torch.device) -> tuple[Any, Any, Any]:
    """Return what is done to prepare an image and to score its views, and what makes the answer."""
    bundle, classes = subject.known_teacher()
    shown = Shown.of(task, bundle)
    network = teacher_network(bundle, shown.side).to(device)
    normalise = find_normalisation(bundle)

    def views(image: SourceImage, picture: Image.Image) -> Tensor:
        return torch.cat([shown(normalise(crop)) for crop in _crops(image, to_planes(picture), task)])

    @torch.no_grad()
    def score(image: SourceImage, images: Tensor) -> Array:
        labels = torch.full((len(images),), classes.index(image.class_name), device=device)
        losses: Array = functional.cross_entropy(network(images), labels, reduction="none").cpu().numpy()
        return losses

    return views, score, lambda found: {"losses": np.stack(found)}


def to_planes(picture: Image.Image) -> Tensor:
    """Return a picture as float32 [3, height, width] in [0, 1], as torchvision's `to_tensor` makes it."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)


def _tiles(image: SourceImage, picture: Image.Image, task: Task) -> Array:
    tiles: Array = _to_uint8(torch.cat(_crops(image, to_planes(picture), task))).numpy()
    return tiles


def _crops(image: SourceImage, planes: Tensor, task: Task) -> list[Tensor]:
    """Return the whole image and its candidate crops, each float32 [1, 3, tile, tile]."""
    height, width = planes.shape[1:]
    return [
        _interpolated(planes[:, box.y : box.y + box.height, box.x : box.x + box.width], (task.tile_size,) * 2)
        for box in whole_and_crops(image, width, height, task)
    ]


def _interpolated(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return planes [3, height, width] resized to [1, 3, *size]."""
    return functional.interpolate(planes[None], size, mode="bilinear", antialias=True)


def _to_uint8(planes: Tensor) -> Tensor:
    """Return planes in [0, 1], [n, 3, height, width], as pixels uint8 [n, height, width, 3]."""
    return planes.mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
