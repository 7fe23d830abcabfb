"""The networks of a benchmark in PyTorch, how images are normalised, and how a teacher is shown tiles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional

from fgdd_bench.harness.subject import Task
from fgdd_bench.references.onnx_network import first_convolution_input, pytorch_network
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import EngineError, SettingsError
from fgdd_fast.images.tiles import view_size

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Normalisation:
    """Subtract a mean and divide by a standard deviation, float32 [3, 1, 1], of values in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __call__(self, planes: Tensor) -> Tensor:
        """Normalise float32 [..., 3, height, width]."""
        return (planes - self.mean) / self.std


@dataclass(frozen=True)
class Shown:
    """How normalised tiles, float32 [n, 3, tile, tile], become what a teacher is shown of them.

    They are enlarged to a side in pixels, or zeros go around them.
    """

    tile: int
    side: int
    enlarged: bool

    @classmethod
    def of(cls, task: Task, bundle: Bundle) -> Shown:
        """Return how a task shows tiles to a teacher; a SettingsError where the view cannot show such."""
        side = view_size(task.view, task.tile_size, bundle.preprocessing.width)
        return cls(task.tile_size, side, task.view != "pad")

    def __call__(self, planes: Tensor) -> Tensor:
        if self.enlarged:
            return functional.interpolate(planes, (self.side, self.side), mode="bilinear")
        before = (self.side - self.tile) // 2
        after = self.side - self.tile - before
        return functional.pad(planes, (before, after, before, after))


def teacher_network(bundle: Bundle, side: int | None = None) -> fx.GraphModule:
    """Return a teacher from normalised planes, float32 [batch, 3, side, side], to logits [batch, classes]."""
    side = side or bundle.preprocessing.width
    return pytorch_network(bundle, [first_convolution_input(bundle)], ["logits"], height=side, width=side)


def saliency_network(bundle: Bundle) -> fx.GraphModule:
    """Return a saliency model from images uint8 [batch, height, width, 3] to its occupancies and masks."""
    height, width = bundle.preprocessing.height, bundle.preprocessing.width
    return pytorch_network(bundle, ["images"], ["occupancy", "mask"], height=height, width=width)


def find_normalisation(bundle: Bundle) -> Normalisation:
    """Find out how a teacher's graph normalises its images, by what it makes of black and of white ones.

    Raises:
        SettingsError: it does anything else with them before its first convolution.
    """
    side = bundle.preprocessing.width
    prefix = pytorch_network(bundle, ["images"], [first_convolution_input(bundle)], height=side, width=side)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        black, white = (
            prefix(torch.full_like(noise, value))[0].mean((1, 2)).reshape(3, 1, 1) for value in (0, 255)
        )
        found = prefix(noise)
    normalisation = Normalisation(mean=-black / (white - black), std=1 / (white - black))
    expected = normalisation(noise.permute(0, 3, 1, 2) / 255)
    if expected.shape != found.shape or not torch.allclose(found, expected, rtol=0, atol=_TOLERANCE):
        raise SettingsError(
            f"The teacher {bundle.name} does more than normalise its images before its first convolution",
            "Choose another teacher: the references normalise images by themselves.",
        )
    return normalisation


def reference_device(task: Task) -> torch.device:
    """Return where the references run; an EngineError where that is a GPU, and there is none."""
    if task.device == "cuda" and not torch.cuda.is_available():
        raise EngineError("PyTorch finds no GPU that it can use", "Run: fgdd-fast doctor")
    return torch.device(task.device, task.gpu) if task.device == "cuda" else torch.device("cpu")


def wait_for(device: torch.device) -> None:
    """Wait until a GPU is done with all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pytorch_on(device: torch.device) -> str:
    """Return PyTorch's version and what it runs on, in words."""
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"PyTorch {torch.__version__}, {place}"
