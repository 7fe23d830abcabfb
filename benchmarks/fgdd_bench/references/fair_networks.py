"""The networks of the fair reference, from what workers make of images to what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from fgdd_bench.harness.subject import Subject, saliency_of, teacher_of
from fgdd_bench.harness.ways import StageName, Task
from fgdd_bench.references.fair_workers import Tiles, Whole
from fgdd_bench.references.networks import (
    Normalisation,
    find_normalisation,
    saliency_network,
    teacher_network,
)
from fgdd_fast.images.tiles import view_size


@dataclass(frozen=True)
class FairModel:
    """A network, what goes into it and what comes out.

    Attributes:
        stage: which it is.
        module: from samples uint8 [images, ...] and labels int64 [images] to tensors [images, ...].
        preprocess: what workers do with an image to make a sample.
        shape: of a sample.
        outputs: what the tensors are called in the answer.
        classes: in the order of the labels.
    """

    stage: StageName
    module: nn.Module
    preprocess: Tiles | Whole
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    classes: Sequence[str]


def fair_saliency(subject: Subject) -> FairModel:
    """The subject's saliency model."""
    bundle = saliency_of(subject)
    height, width = bundle.preprocessing.height, bundle.preprocessing.width
    return FairModel(
        stage="saliency",
        module=_Saliency(saliency_network(bundle)),
        preprocess=Whole((width, height), subject.resize),
        shape=(height, width, 3),
        outputs=("occupancy", "masks"),
        classes=subject.classes,
    )


def fair_teacher(task: Task, subject: Subject) -> FairModel:
    """The subject's teacher."""
    bundle, classes = teacher_of(subject)
    side = view_size("pad", task.tile_size, bundle.preprocessing.width)
    return FairModel(
        stage="teacher",
        module=_Teacher(teacher_network(bundle), find_normalisation(bundle), side),
        preprocess=Tiles(task, subject.resize),
        shape=(1 + task.crops, task.tile_size, task.tile_size, 3),
        outputs=("losses",),
        classes=classes,
    )


class _Saliency(nn.Module):
    """Images uint8 [images, height, width, 3] to their occupancies and masks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - not asked
        occupancy, mask = self.network(samples)
        return occupancy.float(), mask


class _Teacher(nn.Module):
    """Tiles uint8 [images, views, tile, tile, 3], padded with zeros, to losses [images, views]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation, side: int) -> None:
        super().__init__()
        self.network = network
        self.side = side
        self.register_buffer("scale", 1 / (255 * normalisation.std))
        self.register_buffer("shift", -normalisation.mean / normalisation.std)

    def forward(self, samples: Tensor, labels: Tensor) -> tuple[Tensor]:
        images, views, tile = samples.shape[:3]
        before = (self.side - tile) // 2
        after = self.side - tile - before
        planes = samples.flatten(0, 1).permute(0, 3, 1, 2) * self.scale + self.shift
        logits = self.network(functional.pad(planes, (before, after, before, after)))
        losses = functional.cross_entropy(logits.float(), labels.repeat_interleave(views), reduction="none")
        return (losses.reshape(images, views),)
