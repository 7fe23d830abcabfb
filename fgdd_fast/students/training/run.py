"""One student while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fgdd_fast.students.architectures import find_architecture
from fgdd_fast.students.inputs.labelled_images import LabelledImages
from fgdd_fast.students.inputs.pixels import normalised
from fgdd_fast.students.results.result import Student, StudentResult
from fgdd_fast.students.training.compiling import compiled, compiler_errors
from fgdd_fast.students.training.learning import new_optimizer
from fgdd_fast.students.training.recipe import StudentRecipe, learning_rate

_VALIDATION_BATCH = 256

Loss = Callable[[Tensor, Tensor], Tensor]


class StudentRun:
    """A student's network and optimiser, and its history.

    Args:
        student: which network.
        classes: outputs.
        size: side of its views in pixels.
        recipe: how it is trained.
        loss: of its logits and the targets, the mean over a batch.
        device: where it is.

    Attributes:
        epochs: trained so far.
        curve: top-1 by epochs trained.
    """

    def __init__(
        self, student: Student, classes: int, size: int, recipe: StudentRecipe, loss: Loss, device: str
    ) -> None:
        architecture = find_architecture(student.architecture)
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn on the processor
            torch.manual_seed(student.seed)
            network: Any = architecture.new(classes, size)
        last = architecture.channels_last or device != "cpu"
        self.student = student
        self.epochs = 0
        self.curve: dict[int, float] = {}
        self._recipe = recipe
        self._loss = loss
        self._device = torch.device(device)
        self._format = torch.channels_last if last else torch.contiguous_format
        self._network: nn.Module = network.to(self._device, memory_format=self._format)
        self._forward: Callable[[Tensor], Tensor] = (
            compiled(self._network) if recipe.compile else self._network
        )
        self._base = recipe.learning_rate or architecture.learning_rate
        self._optimizer = new_optimizer(self._network, self._base, recipe.weight_decay)
        self._losses: list[float] = []
        self._predictions: NDArray[np.int64] | None = None
        self._seconds = 0.0
        self._summed = torch.zeros((), device=self._device)
        self._views = 0

    def begin_epoch(self) -> None:
        """Set the learning rate of the next epoch, and count its losses anew."""
        self._network.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._base, self.epochs, self._recipe.epochs)
        self._summed.zero_()
        self._views = 0

    def step(self, images: Tensor, targets: Tensor) -> None:
        """Learn from one batch.

        Args:
            images: normalised float32 [batch, 3, size, size].
            targets: what the loss compares the logits [batch, classes] with.

        Raises:
            SettingsError: the network cannot be compiled.
        """
        begin = time.perf_counter()
        lower = self._recipe.arithmetic == "bf16"
        self._optimizer.zero_grad()
        with compiler_errors() if self._recipe.compile else nullcontext():
            with torch.autocast(self._device.type, torch.bfloat16, enabled=lower):
                logits = self._forward(images.contiguous(memory_format=self._format))
            loss = self._loss(logits.float(), targets)
            torch.autograd.backward(loss)
        self._optimizer.step()
        self._summed += loss.detach() * len(images)
        self._views += len(images)
        self._seconds += time.perf_counter() - begin

    def end_epoch(self, validation: LabelledImages) -> None:
        """Note the epoch's loss, and validate where it is time to."""
        self._losses.append(float(self._summed) / self._views)
        if self._recipe.validates(self.epochs):
            self._predictions = self._predict(validation)
            self.curve[self.epochs + 1] = float(np.mean(self._predictions == validation.labels))
        self.epochs += 1

    @torch.no_grad()
    def _predict(self, validation: LabelledImages) -> NDArray[np.int64]:
        self._network.eval()
        answers = []
        for start in range(0, len(validation.images), _VALIDATION_BATCH):
            images = normalised(validation.images[start : start + _VALIDATION_BATCH], self._device)
            logits = self._network(images.contiguous(memory_format=self._format))
            answers.append(logits.argmax(dim=1).cpu().numpy())
        return np.concatenate(answers).astype(np.int64)

    @property
    def complete(self) -> bool:
        """Whether all epochs have been trained."""
        return self.epochs >= self._recipe.epochs

    def state(self) -> dict[str, Any]:
        """All that training goes on from; of a complete one the optimiser is left out."""
        return {
            "epochs": self.epochs,
            "curve": self.curve,
            "losses": self._losses,
            "seconds": self._seconds,
            "predictions": None if self._predictions is None else torch.from_numpy(self._predictions),
            "network": self._network.state_dict(),
            "optimizer": None if self.complete else self._optimizer.state_dict(),
        }

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Take up the state of an earlier run of the same student."""
        self.epochs, self.curve = state["epochs"], dict(state["curve"])
        self._losses, self._seconds = list(state["losses"]), state["seconds"]
        predictions = state["predictions"]
        self._predictions = None if predictions is None else predictions.cpu().numpy()
        self._network.load_state_dict(state["network"])
        if state["optimizer"] is not None:
            self._optimizer.load_state_dict(state["optimizer"])

    def result(self, validation: LabelledImages) -> StudentResult:
        """What became of a student that is complete."""
        assert self._predictions is not None
        return StudentResult(
            student=self.student,
            parameters=sum(parameter.numel() for parameter in self._network.parameters()),
            losses=tuple(self._losses),
            curve=dict(self.curve),
            predictions=self._predictions,
            labels=validation.labels,
            seconds=self._seconds,
        )
