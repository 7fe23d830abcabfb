"""The networks that can be students, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from fgdd_fast.errors import SettingsError
from fgdd_fast.nn.convnet import ConvNet
from fgdd_fast.nn.mobilenet import MobileNetV2
from fgdd_fast.nn.resnet import BasicBlock, Bottleneck, ResNet
from fgdd_fast.nn.vision_transformer import VisionTransformer

KNOWN = (
    "convnet3, convnet4, convnet5, resnet18, resnet18-small, resnet50, resnet50-small, mobilenetv2, "
    "mobilenetv2-small and vit-tiny"
)
_CONVNET_WIDTH, _RESNET_WIDTH = 128, 64
_RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "18": (BasicBlock, (2, 2, 2, 2)),
    "50": (Bottleneck, (3, 4, 6, 3)),
}


@dataclass(frozen=True)
class Architecture:
    """A network, and how fast it learns.

    Attributes:
        name: its name.
        new: makes it, with random weights, for a number of classes and views of a size in pixels; the
            logits [batch, classes] are those of images [batch, 3, size, size] by ImageNet's mean and
            standard deviation.
        learning_rate: RDED's for it, or for the nearest of RDED's students.
        channels_last: whether a processor trains it faster with the channels of a pixel side by side.
    """

    name: str
    new: Callable[[int, int], nn.Module]
    learning_rate: float
    channels_last: bool = True


def find_architecture(name: str) -> Architecture:
    """The architecture of a name.

    `convnet<depth>` and the ResNets may be followed by `-w<width>` for other channels than 128 and 64.
    `-small`, before that, is the form for views of 64 pixels and less, whose stem keeps their size.

    Raises:
        SettingsError: there is none of this name.
    """
    if match := re.fullmatch(r"convnet([1-9])(?:-w([1-9]\d*))?", name):
        depth, width = int(match[1]), int(match[2] or _CONVNET_WIDTH)
        return Architecture(name, partial(_convnet, depth, width), 1e-3, channels_last=False)
    if match := re.fullmatch(r"resnet(18|50)(-small)?(?:-w([1-9]\d*))?", name):
        width = int(match[3] or _RESNET_WIDTH)
        return Architecture(name, partial(_resnet, match[1], bool(match[2]), width), 1e-3)
    if match := re.fullmatch(r"mobilenetv2(-small)?", name):
        return Architecture(name, partial(_mobilenet, bool(match[1])), 2.5e-3)
    if name == "vit-tiny":
        return Architecture(name, _vit_tiny, 1e-4)
    raise SettingsError(f"There is no student {name!r}", f"There are {KNOWN}.")


def check_architecture(name: str, classes: int, size: int) -> None:
    """Make sure that a student of some classes can see views of a size in pixels.

    Raises:
        SettingsError: there is no such student, or it cannot.
    """
    with torch.device("meta"):  # shapes alone: nothing is allocated
        find_architecture(name).new(classes, size)


def _convnet(depth: int, width: int, classes: int, size: int) -> nn.Module:
    side = size >> depth
    if side == 0:
        raise SettingsError(
            f"convnet{depth} halves an image {depth} times, and {size} pixels are too few for that",
            "Name a ConvNet with fewer layers.",
        )
    return ConvNet(depth, width, 3, classes, side)


def _resnet(layers: str, small: bool, width: int, classes: int, _: int) -> nn.Module:
    block, depths = _RESNETS[layers]
    return ResNet(depths, width, 3, classes, block=block, small=small)


def _mobilenet(small: bool, classes: int, _: int) -> nn.Module:
    return MobileNetV2(3, classes, small=small)


def _vit_tiny(classes: int, size: int) -> nn.Module:
    """Patches of 16 pixels, or smaller ones where a side would have fewer than 8 of them."""
    patch = next((patch for patch in (16, 8, 4, 2) if size % patch == 0 and size >= 8 * patch), None)
    if patch is None:
        raise SettingsError(
            f"vit-tiny needs at least 8 whole patches of 2, 4, 8 or 16 pixels along {size} pixels",
            "Name another student, or a --size such as 32, 64 or 224.",
        )
    return VisionTransformer(size, patch, classes)
