"""MobileNetV2.

Source: "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (Sandler et al., CVPR 2018, arXiv
1801.04381), table 2, with torchvision's initial weights, and without its dropout: training draws nothing
but views.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

# Expansion, channels, blocks and stride of the first block of each stage.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _FEATURES = 32, 1280


def _convolution(channels: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """A widening 1 x 1, a depthwise 3 x 3 and a narrowing 1 x 1 convolution; the last without activation."""

    def __init__(self, channels: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = _convolution(channels, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(wide, wide, 3, stride, groups=wide)
        self.project = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and channels == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [batch, channels, height, width] -> [batch, outputs, height / stride, width / stride]."""
        outputs: Tensor = self.project(self.depthwise(self.expand(maps)))
        return maps + outputs if self.residual else outputs


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1.

    Args:
        channels: of the input.
        classes: outputs.
        small: for small images: the stem and the first stage with a stride keep the size.
    """

    def __init__(self, channels: int, classes: int, *, small: bool) -> None:
        super().__init__()
        kept = 24 if small else None  # channels of the stage whose stride is taken away
        self.stem = _convolution(channels, _STEM, 3, 1 if small else 2)
        inputs, blocks = _STEM, []
        for expansion, outputs, depth, stride in _STAGES:
            for index in range(depth):
                step = 1 if index or outputs == kept else stride
                blocks.append(InvertedResidual(inputs, outputs, expansion=expansion, stride=step))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(inputs, _FEATURES, 1)
        self.classifier = nn.Linear(_FEATURES, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of normalised images [batch, channels, height, width]."""
        maps = self.head(self.blocks(self.stem(images)))
        logits: Tensor = self.classifier(functional.adaptive_avg_pool2d(maps, 1).flatten(1))
        return logits
