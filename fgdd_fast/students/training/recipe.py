"""How a student is trained: RDED's recipe.

Source: "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation Paradigm" (Sun
et al., CVPR 2024, arXiv 2312.03526), and its public repository LINs-lab/RDED, `validation/main.py`. That code
also runs the student on every batch once more, to report how it does, which updates the running statistics of
batch normalisation twice; here they are updated once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Arithmetic = Literal["fp32", "bf16"]
ARITHMETICS: tuple[Arithmetic, ...] = get_args(Arithmetic)


@dataclass(frozen=True)
class StudentRecipe:
    """The settings of a student's training; the views it sees are those of its training set.

    Attributes:
        epochs: passes over the training set.
        learning_rate: AdamW's, before the schedule; None for the architecture's own.
        weight_decay: AdamW's, for weights of two axes or more; the others have none.
        temperature: at which a student's and its teacher's logits are compared.
        validate_every: epochs between two validations; the last epoch is always validated.
        arithmetic: of convolutions and matrix products while training: bf16 is PyTorch's autocast, about
            twice as fast where the processor has it; validation is in fp32.
        compile: whether networks are compiled for training; see `compiling`. The last digits of a curve
            change.
    """

    epochs: int = 300
    learning_rate: float | None = None
    weight_decay: float = 0.01
    temperature: float = 20.0
    validate_every: int = 10
    arithmetic: Arithmetic = "fp32"
    compile: bool = False

    def validates(self, epoch: int) -> bool:
        """Whether the student is validated after an epoch, counted from 0."""
        return (epoch + 1) % self.validate_every == 0 or epoch + 1 == self.epochs


def learning_rate(base: float, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0: half a cosine's fall, so that it ends at base / 2."""
    return base * (1 + math.cos(math.pi * epoch / (2 * epochs))) / 2
