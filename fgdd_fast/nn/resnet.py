"""Residual networks.

Source: "Deep Residual Learning for Image Recognition" (He et al., CVPR 2016, arXiv 1512.03385). The names of
the tensors and the initial weights are torchvision's. The stem for small images, a 3 x 3 convolution that
keeps the size and no pooling after it, is usual in the field (RDED's `resnet18_modified`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

STAGES = 4
SMALL_STEM = 3  # pixels of the stem's kernel in the networks for small images; 7 in the others


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

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [batch, channels, height, width] -> [batch, width, height / stride, width / stride]."""
        inner = functional.relu(self.bn1(self.conv1(maps)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.downsample(maps))


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

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [batch, channels, height, width] -> [batch, 4 * width, height / stride, width / stride]."""
        inner = functional.relu(self.bn1(self.conv1(maps)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        return functional.relu(self.bn3(self.conv3(inner)) + self.downsample(maps))


def _shortcut(channels: int, outputs: int, stride: int) -> nn.Module:
    """What leads a block's input around it: as it is, or by a 1 x 1 convolution where the shape changes."""
    if stride == 1 and channels == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """A residual network of four stages.

    Args:
        depths: blocks of each stage.
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
                blocks.append(block(inputs, width << stage, 2 if stage and not index else 1))
                inputs = (width << stage) * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of normalised images [batch, channels, height, width]."""
        maps = self.maxpool(functional.relu(self.bn1(self.conv1(images))))
        for stage in range(STAGES):
            maps = self.get_submodule(f"layer{stage + 1}")(maps)
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits
