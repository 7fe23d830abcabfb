"""The networks of RDED's checkpoints, told from the names and shapes of their tensors.

Source: the public repository LINs-lab/RDED, `synthesize/utils.py` (`load_model`) and `synthesize/models.py`:
ResNets of torchvision (He et al., CVPR 2016, arXiv 1512.03385), the same with a stem for small images, and
ConvNets with batch normalisation and average pooling. All are trained on images normalised by ImageNet's mean
and standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fgdd_fast.errors import BundleError
from fgdd_fast.export.torch_classifier import Tensors

STAGES = 4
IMAGENET_SIZE = 224
CONVNET_SIZES = (32, 64, 128, 224)  # of RDED's data sets


@dataclass(frozen=True)
class RdedNetwork:
    """A network that a checkpoint's tensors fill.

    Attributes:
        module: with weights still at random.
        architecture: RDED's name of it, such as `resnet18_modified` or `conv3`.
        size: pixels of each side for which it was made; None where the tensors do not tell.
    """

    module: nn.Module
    architecture: str
    size: int | None


def rded_network(tensors: Tensors) -> RdedNetwork:
    """Find the network to which tensors belong.

    Raises:
        BundleError: they belong to none of RDED's.
    """
    if "layers.conv.0.weight" in tensors:
        return _convnet(tensors)
    if "conv1.weight" in tensors and "layer1.0.conv1.weight" in tensors:
        return _resnet(tensors)
    raise BundleError(
        f"The tensors {', '.join(sorted(tensors)[:3])} … belong to no network that is known by them",
        "RDED's ResNets and ConvNets are. For another one, name its code too: MODULE:FUNCTION@FILE",
    )


def _shape(tensors: Tensors, name: str, axes: int) -> torch.Size:
    if name not in tensors or tensors[name].ndim != axes:
        raise BundleError(f"The checkpoint has no tensor '{name}' of {axes} axes", "It is incomplete.")
    return tensors[name].shape


def _count(tensors: Tensors, pattern: str) -> int:
    """How many of `pattern.format(0)`, `pattern.format(1)`, … there are without a gap."""
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count


def _convnet(tensors: Tensors) -> RdedNetwork:
    if "layers.norm.0.running_mean" not in tensors:
        raise BundleError(
            "The ConvNet does not normalise over batches as RDED's do",
            "Name its code together with its weights: MODULE:FUNCTION@FILE",
        )
    depth = _count(tensors, "layers.conv.{}.weight")
    width, channels = _shape(tensors, "layers.conv.0.weight", 4)[:2]
    classes, features = _shape(tensors, "classifier.weight", 2)
    side = math.isqrt(features // width)
    if width * side**2 != features or side == 0:
        raise BundleError(f"The ConvNet's {features} features are no square of {width} channels")
    # Each layer halves the sides and drops an odd pixel, so several sizes give the same features.
    size = next((size for size in CONVNET_SIZES if size >> depth == side), side << depth)
    return RdedNetwork(ConvNet(depth, width, channels, classes, side), f"conv{depth}", size)


def _resnet(tensors: Tensors) -> RdedNetwork:
    # A stage has a block at least, so that what lacks one is missed by name.
    depths = [max(1, _count(tensors, f"layer{stage + 1}.{{}}.conv1.weight")) for stage in range(STAGES)]
    width, channels, kernel, _ = _shape(tensors, "conv1.weight", 4)
    classes, _ = _shape(tensors, "fc.weight", 2)
    bottleneck = "layer1.0.conv3.weight" in tensors
    small = kernel == SMALL_STEM
    module = ResNet(
        depths, width, channels, classes, block=Bottleneck if bottleneck else BasicBlock, small=small
    )
    layers = 2 + sum(depths) * (3 if bottleneck else 2)
    return RdedNetwork(
        module, f"resnet{layers}" + ("_modified" if small else ""), None if small else IMAGENET_SIZE
    )


class ConvNet(nn.Module):
    """Layers of convolution, batch normalisation, ReLU and average pooling by 2; then a linear classifier.

    Args:
        depth: layers.
        width: channels of each.
        channels: of the input.
        classes: outputs.
        side: pixels of each side after the last layer.
    """

    def __init__(self, depth: int, width: int, channels: int, classes: int, side: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width if i else channels, width, 3, padding=1) for i in range(depth)]
        self.layers = nn.ModuleDict(
            {
                "conv": nn.ModuleList(convolutions),
                "norm": nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth)),
            }
        )
        self.classifier = nn.Linear(width * side**2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [batch, classes] of normalised images [batch, channels, height, width]."""
        maps = images
        layers = (self.layers[kind].children() for kind in ("conv", "norm"))
        for convolution, norm in zip(*layers, strict=True):
            maps = nn.functional.avg_pool2d(torch.relu(norm(convolution(maps))), 2)
        logits: torch.Tensor = self.classifier(maps.flatten(1))
        return logits


SMALL_STEM = 3  # pixels of the stem's kernel in the ResNets for small images; 7 in the others


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input is led."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [batch, channels, height, width] -> [batch, width, height / stride, width / stride]."""
        inner = torch.relu(self.bn1(self.conv1(maps)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.downsample(maps))


class Bottleneck(nn.Module):
    """A 1 x 1, a 3 x 3 and a widening 1 x 1 convolution around which the input is led."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [batch, channels, height, width] -> [batch, 4 * width, height / stride, width / stride]."""
        inner = torch.relu(self.bn1(self.conv1(maps)))
        inner = torch.relu(self.bn2(self.conv2(inner)))
        return torch.relu(self.bn3(self.conv3(inner)) + self.downsample(maps))


def _shortcut(channels: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and channels == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """A residual network with torchvision's names of its tensors.

    Args:
        depths: blocks of each of the four stages.
        width: channels of the stem; each stage after the first doubles them.
        channels: of the input.
        classes: outputs.
        block: what the stages are made of.
        small: for small images: a 3 x 3 stem that keeps the size, and no pooling after it.
    """

    def __init__(
        self,
        depths: Sequence[int],
        width: int,
        channels: int,
        classes: int,
        *,
        block: type[BasicBlock] | type[Bottleneck],
        small: bool,
    ) -> None:
        super().__init__()
        kernel, stride = (SMALL_STEM, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        inputs = width
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                stride = 2 if stage and not index else 1
                blocks.append(block(inputs, width << stage, stride))
                inputs = (width << stage) * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [batch, classes] of normalised images [batch, channels, height, width]."""
        maps = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for stage in range(STAGES):
            maps = self.get_submodule(f"layer{stage + 1}")(maps)
        logits: torch.Tensor = self.fc(maps.mean((2, 3)))
        return logits
