"""How many images, or views, an inference takes, where the user leaves that open: by device, and by role.

On a processor one at a time is as fast as many; a GPU waits for work unless it gets much at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgdd_engines.backends import find_backend, split_device
from fgdd_engines.base import Device
from fgdd_engines.bundle.bundle import Bundle
from fgdd_engines.probing.nvidia import jetson_model
from fgdd_engines.tensorrt_backend.cuda_device import find_cuda_device
from fgdd_fast.models.factory import asked_by_class

Batch = int | Literal["auto"]
"""Images an inference, at least 1; `auto` is what suits the device and the network."""

_SMALL = 12_000_000_000  # bytes of a GPU's memory, below which activations of large batches may not fit


@dataclass(frozen=True)
class Batches:
    """What a kind of device likes to take at once.

    Attributes:
        images: of a network that sees each image once.
        asked: images of a foreground model that is asked for classes by their names, which is large.
        scored: images all of whose views a teacher scores.
        labelled: training views that a teacher labels.
    """

    images: int
    asked: int
    scored: int
    labelled: int


PROCESSOR = Batches(images=1, asked=1, scored=1, labelled=1)
GPU = Batches(images=32, asked=4, scored=32, labelled=256)
SMALL_GPU = Batches(images=4, asked=1, scored=4, labelled=24)


def batches_on(device: Device) -> Batches:
    """Return what a device likes to take at once.

    Raises:
        FgddError: there is no such device, or its plug-in cannot be loaded.
    """
    backend = find_backend(device)
    if backend.on_processor:
        return PROCESSOR
    if not backend.on_nvidia:
        return GPU
    return SMALL_GPU if _is_small_gpu(split_device(device)[1]) else GPU


def _is_small_gpu(index: int) -> bool:
    """Whether this is a board, or the GPU has little memory, as far as that is told."""
    gpu = find_cuda_device(index)
    return jetson_model() is not None or (gpu is not None and gpu.memory < _SMALL)


def images_at_once(bundle: Bundle, device: Device, batch: Batch = "auto") -> int:
    """Return how many images an inference of a bundle takes; a teacher sees several views of each.

    Args:
        bundle: the network.
        device: that runs it.
        batch: the number asked for.
    """
    if batch != "auto":
        return batch
    liked = batches_on(device)
    if bundle.role == "teacher":
        return liked.scored
    return liked.asked if asked_by_class(bundle) else liked.images


def views_at_once(device: Device, batch: Batch = "auto") -> int:
    """Return how many training views an inference of a teacher takes that labels them."""
    return batches_on(device).labelled if batch == "auto" else batch
