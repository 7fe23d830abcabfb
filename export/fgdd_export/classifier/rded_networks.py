"""The networks of RDED's checkpoints, told from the names and shapes of their tensors.

Source: the public repository LINs-lab/RDED, `synthesize/utils.py` (`load_model`) and `synthesize/models.py`:
ResNets of torchvision (He et al., CVPR 2016, arXiv 1512.03385), the same with a stem for small images, and
ConvNets with batch normalisation and average pooling. All are trained on images normalised by ImageNet's mean
and standard deviation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from fgdd_export.classifier.torch_classifier import Tensors
from fgdd_fast.errors import BundleError
from fgdd_fast.nn import convnet
from fgdd_fast.nn.resnet import SMALL_STEM, STAGES, BasicBlock, Bottleneck, ResNet

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


class ConvNet(convnet.ConvNet):
    """RDED's ConvNet, which normalises over batches.

    Args:
        depth, width, channels, classes, side: see `convnet.ConvNet`.
    """

    def __init__(self, depth: int, width: int, channels: int, classes: int, side: int) -> None:
        super().__init__(depth, width, channels, classes, side, nn.BatchNorm2d)
