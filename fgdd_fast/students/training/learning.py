"""What students minimise, and how; see `recipe`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence (nats) of a student's answers from its teacher's, the mean over a batch.

    There is no factor of temperature ** 2, and no term for the true class.

    Args:
        logits: the student's, float [batch, classes].
        teacher: the teacher's logits, float [batch, classes].
        temperature: that both are divided by.
    """
    return functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.softmax(teacher / temperature, dim=1),
        reduction="batchmean",
    )


def hard_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy (nats) of a student's answers, the mean over a batch.

    Args:
        logits: float [batch, classes].
        shares: of each class in a view's area, float [batch, classes], which sum to 1.
    """
    return functional.cross_entropy(logits, shares)


def new_optimizer(network: nn.Module, base: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over a network's parameters; those of one axis (biases, norms) do not decay."""
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=base, betas=(0.9, 0.999), weight_decay=weight_decay)
