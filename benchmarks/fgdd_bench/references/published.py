"""The published style: image by image in fp32, as RDED's synthesis and public saliency scripts do it.

Pillow opens an image; it becomes a float tensor at full resolution, of which every crop is interpolated,
normalised and padded with zeros; the views of one image make one eager forward pass.

Source: the public repository LINs-lab/RDED, `synthesize/`, with torchvision's functions written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fgdd_bench.harness.implementation import (
    Answer,
    Implementation,
    PathName,
    Stage,
    Step,
    as_stages,
    run_steps,
)
from fgdd_bench.harness.subject import Subject, Task, whole_and_crops
from fgdd_bench.references.mosaics import PublishedMosaics
from fgdd_bench.references.networks import (
    Shown,
    busy_threads,
    find_normalisation,
    pytorch_on,
    reference_device,
    saliency_network,
    teacher_network,
    wait_for,
)
from fgdd_bench.references.pictures import decode_pillow, read_content
from fgdd_engines.base import Array
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import SourceImage


def open_published(path: PathName, task: Task, subject: Subject) -> Implementation:
    """Open the published style along a path.

    Raises:
        SettingsError: the path is none of a small network, or the subject lacks what it needs.
        FgddError: a model cannot be rebuilt in PyTorch, or there is no GPU.
    """
    openers: dict[str, Callable[[Task, Subject], Implementation]] = {
        "decode": _decoding,
        "foreground": _saliency,
        "teacher": _teacher,
        "compose": lambda task, subject: PublishedMosaics(task, subject.given_plan()),
    }
    if path not in openers:
        raise SettingsError(f"The path '{path}' is not one of {', '.join(openers)}")
    torch.set_num_threads(task.threads)
    return openers[path](task, subject)


class ImageByImage(Implementation):
    """Steps that each image goes through, one image after the other.

    Args:
        task: how many threads.
        steps: of one image; the last gives arrays.
        names: what these arrays are called in the answer.
        arithmetic: see `Implementation.arithmetic`.
    """

    name = "published"

    def __init__(self, task: Task, steps: Sequence[Step], names: Sequence[str], arithmetic: str) -> None:
        self.arithmetic = arithmetic
        self._threads = task.threads
        self._steps = steps
        self._names = names

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        torch.set_num_threads(self._threads)
        with wrapped_as_engine_error("PyTorch cannot run the published style"):
            rows: list[Sequence[Array]] = [run_steps(self._steps, image) for image in images]
        return {name: np.stack(arrays) for name, *arrays in zip(self._names, *rows, strict=True)}

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`."""
        torch.set_num_threads(self._threads)
        return as_stages(self._steps, images)[0]

    def close(self) -> None:
        """Let go of the network."""
        self._steps = ()


def _decoding(task: Task, subject: Subject) -> Implementation:  # noqa: ARG001 - tiles need no model
    def tiles(image: SourceImage, picture: Image.Image) -> Sequence[Array]:
        crops = torch.cat(_crops(image, _to_tensor(picture), task))
        return (_to_uint8(crops).numpy(),)

    steps = (*_READING, Step("preprocess", tiles, task.threads))
    return ImageByImage(task, steps, ["tiles"], f"Pillow {PIL.__version__}, PyTorch {torch.__version__}")


def _saliency(task: Task, subject: Subject) -> Implementation:
    bundle = subject.foreground_bundle()
    device = reference_device(task)
    network = saliency_network(bundle).to(device)
    size = (bundle.preprocessing.height, bundle.preprocessing.width)

    def resized(_: SourceImage, picture: Image.Image) -> Tensor:
        return _to_uint8(_interpolated(_to_tensor(picture), size))

    @torch.no_grad()
    def find(_: SourceImage, images: Tensor) -> Sequence[Array]:
        occupancy, mask = network(images)
        return occupancy[0].cpu().numpy(), mask[0].cpu().numpy()

    steps = (
        *_READING,
        Step("preprocess", resized, task.threads),
        *_to_device(device),
        Step("saliency", find, busy_threads(task)),
    )
    return ImageByImage(task, steps, ["occupancy", "masks"], f"{pytorch_on(device)}, fp32")


def _teacher(task: Task, subject: Subject) -> Implementation:
    bundle, classes = subject.known_teacher()
    device = reference_device(task)
    shown = Shown.of(task, bundle)
    network = teacher_network(bundle, shown.side).to(device)
    normalise = find_normalisation(bundle)

    def views(image: SourceImage, picture: Image.Image) -> Tensor:
        return torch.cat([shown(normalise(crop)) for crop in _crops(image, _to_tensor(picture), task)])

    @torch.no_grad()
    def score(image: SourceImage, images: Tensor) -> Sequence[Array]:
        labels = torch.full((len(images),), classes.index(image.class_name), device=device)
        return (functional.cross_entropy(network(images), labels, reduction="none").cpu().numpy(),)

    steps = (
        *_READING,
        Step("preprocess", views, task.threads),
        *_to_device(device),
        Step("teacher", score, busy_threads(task)),
    )
    return ImageByImage(task, steps, ["losses"], f"{pytorch_on(device)}, fp32")


def _to_tensor(picture: Image.Image) -> Tensor:
    """Return a picture as float32 [3, height, width] in [0, 1], as torchvision's `to_tensor` makes it."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)


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


def _to_device(device: torch.device) -> tuple[Step, ...]:
    """Return the step that takes tensors to a GPU."""

    def copy(_: SourceImage, tensor: Tensor) -> Tensor:
        on_device = tensor.to(device)
        wait_for(device)
        return on_device

    return (Step("host to device", copy),) if device.type == "cuda" else ()


_READING: tuple[Step, ...] = (Step("read", read_content), Step("decode", decode_pillow))
