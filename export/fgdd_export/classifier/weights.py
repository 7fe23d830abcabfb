"""PyTorch classifiers as they were loaded, and how a file of tensors fills one.

RDED's networks are told from the names and shapes of their tensors. Source: the public repository
LINs-lab/RDED, `synthesize/utils.py` (`load_model`) and `synthesize/models.py`:
ResNets of torchvision (He et al., CVPR 2016, arXiv 1512.03385), the same with a stem for small images, and
ConvNets with batch normalisation and average pooling. All are trained on images normalised by ImageNet's mean
and standard deviation.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fgdd_export.checkpoints.pretrained import check_loading, read_tensors
from fgdd_fast.errors import BundleError
from fgdd_fast.nn import convnet
from fgdd_fast.nn.resnet import SMALL_STEM, STAGES, BasicBlock, Bottleneck, ResNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Classifier:
    """A network, and what its checkpoint says of it.

    Attributes:
        module: takes normalised images, float32 [batch, 3, height, width], and gives logits, or something
            that holds them (see `logits_of`).
        source: kind, checkpoint, architecture and the hashes of weights, for the bundle.
        size: pixels of each side of its input; None where the checkpoint does not say.
        mean, std: of each channel, for values in [0, 1]; None where the checkpoint does not say.
        classes: the names of its outputs; None where the checkpoint does not say.
    """

    module: torch.nn.Module
    source: Mapping[str, Any]
    size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    classes: tuple[str, ...] | None = None


def logits_of(output: Any) -> torch.Tensor:
    """The logits among what a network returns: the tensor itself, its `logits`, or the first of several.

    Raises BundleError where there is no such tensor.
    """
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor):
        raise BundleError(
            f"The network returns {type(output).__name__}, not logits",
            "It has to return a tensor [batch, classes], or something whose field 'logits' is one.",
        )
    return output


def first_line(error: Exception) -> str:
    """What an error of other people's code says, short enough for one sentence."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.split(r"\. Please feel free|\s+\[Caused by", line)[0].rstrip(".")


def read_state(path: Path) -> Tensors:
    """Read a network's tensors from a file, without executing anything that it holds.

    The file is safetensors, or what `torch.save` writes of a `state_dict`, on its own or under the key
    `model` (as RDED does) or `state_dict`. The prefix that `DataParallel` gives all names is taken off.
    Raises BundleError where the file is missing, damaged, would execute code, or holds something else.
    """
    content = read_tensors(path)
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not content or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise BundleError(
            f"The checkpoint {path} holds no dictionary of tensors", "Save the network's state_dict()."
        )
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in content.items()}


def fill_network(module: torch.nn.Module, tensors: Tensors, path: Path) -> None:
    """Give a network its weights; BundleError unless they fit it exactly."""
    wanted = module.state_dict()
    check_loading(
        path,
        # PyTorch before 0.4.1 did not count batches.
        missing=[name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")],
        mismatched=[name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape],
    )
    if unused := sorted(set(tensors) - set(wanted)):
        raise BundleError(
            f"The checkpoint {path} holds {len(unused)} tensors for which the network has no place: "
            f"{', '.join(unused[:3])}",
            "It belongs to another architecture.",
        )
    module.load_state_dict(tensors, strict=False)


IMAGENET_SIZE = 224
CONVNET_SIZES = (32, 64, 128, 224)  # of RDED's data sets


@dataclass(frozen=True)
class RdedNetwork:
    """A network, at random, that a checkpoint's tensors fill, and RDED's name of it, such as `conv3`.

    `size` is pixels of each side for which it was made; None where the tensors do not tell.
    """

    module: nn.Module
    architecture: str
    size: int | None


def rded_network(tensors: Tensors) -> RdedNetwork:
    """Find the network of RDED's to which tensors belong; BundleError where there is none."""
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
    return next(index for index in itertools.count() if pattern.format(index) not in tensors)


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
    """RDED's ConvNet, which normalises over batches; see `convnet.ConvNet`."""

    def __init__(self, depth: int, width: int, channels: int, classes: int, side: int) -> None:
        super().__init__(depth, width, channels, classes, side, nn.BatchNorm2d)
