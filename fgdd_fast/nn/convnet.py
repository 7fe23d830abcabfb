"""The ConvNet of dataset distillation.

Source: "Dynamic Few-Shot Visual Learning without Forgetting" (Gidaris and Komodakis, CVPR 2018, arXiv
1804.09458), as "Dataset Condensation with Gradient Matching" (Zhao et al., ICLR 2021, arXiv 2006.05929) and
most that followed use it: layers of a 3 x 3 convolution to 128 channels, instance normalisation, ReLU and
2 x 2 average pooling, then a linear classifier. Three layers are usual at 32 pixels, four at 64 and five at
128. RDED's own ConvNets normalise over batches.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional


def instance_norm(channels: int) -> nn.Module:
    """Instance normalisation with a learned scale and shift."""
    return nn.GroupNorm(channels, channels)


class ConvNet(nn.Module):
    """Layers of convolution, normalisation, ReLU and average pooling by 2; then a linear classifier.

    Args:
        depth: layers.
        width: channels of each.
        channels: of the input.
        classes: outputs.
        side: pixels of each side after the last layer.
        norm: makes the normalisation of so many channels.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        channels: int,
        classes: int,
        side: int,
        norm: Callable[[int], nn.Module] = instance_norm,
    ) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width if i else channels, width, 3, padding=1) for i in range(depth)]
        self.layers = nn.ModuleDict(
            {
                "conv": nn.ModuleList(convolutions),
                "norm": nn.ModuleList(norm(width) for _ in range(depth)),
            }
        )
        self.classifier = nn.Linear(width * side**2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of normalised images [batch, channels, height, width]."""
        maps = images
        layers = (self.layers[kind].children() for kind in ("conv", "norm"))
        for convolution, norm in zip(*layers, strict=True):
            maps = functional.avg_pool2d(functional.relu(norm(convolution(maps))), 2)
        logits: Tensor = self.classifier(maps.flatten(1))
        return logits
