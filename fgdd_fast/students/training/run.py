"""One student while it is trained: its network, what it minimises, and its history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fgdd_fast.errors import SettingsError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.students.architectures import Architecture
from fgdd_fast.students.inputs.labelled_images import DEVIATION, MEAN, LabelledImages
from fgdd_fast.students.results.result import Student, StudentResult
from fgdd_fast.students.training.recipe import StudentRecipe, learning_rate

_VALIDATION_BATCH = 256
# Sizes of batches, times architectures, that one process compiles; beyond it PyTorch would quietly go on
# without, and other arithmetic would change the curve.
_MOST_PROGRAMS = 256

Loss = Callable[[Tensor, Tensor], Tensor]


class StudentRun:
    """A student's network and optimiser, and its history.

    Args:
        student: which network.
        architecture: the one that it names.
        classes: outputs.
        size: side of its views in pixels.
        recipe: how it is trained.
        loss: of its logits and the targets, the mean over a batch.
        device: where it is.

    Attributes:
        epochs: trained so far.
        curve: top-1 by epochs trained.
        origin: of the network, where it is not built in.
    """

    def __init__(
        self,
        student: Student,
        architecture: Architecture,
        classes: int,
        size: int,
        recipe: StudentRecipe,
        loss: Loss,
        device: str,
    ) -> None:
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn on the processor
            torch.manual_seed(student.seed)
            network: Any = architecture.new(classes, size)
        self.student = student
        self.epochs = 0
        self.curve: dict[int, float] = {}
        self.origin = architecture.origin
        self._recipe = recipe
        self._loss = loss
        self._device = torch.device(device)
        last = self._device.type in architecture.channels_last
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
        """
        begin = time.perf_counter()
        lower = self._recipe.arithmetic == "bf16"
        self._optimizer.zero_grad()
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
        return np.asarray(np.concatenate(answers), np.int64)

    @property
    def complete(self) -> bool:
        """Whether all epochs have been trained."""
        return self.epochs >= self._recipe.epochs

    def state(self) -> dict[str, Any]:
        """Return all that training goes on from; of a complete one the optimiser is left out."""
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
        """Return what became of a student that is complete."""
        assert self._predictions is not None
        return StudentResult(
            student=self.student,
            parameters=sum(parameter.numel() for parameter in self._network.parameters()),
            losses=tuple(self._losses),
            curve=dict(self.curve),
            predictions=self._predictions,
            labels=validation.labels,
            seconds=self._seconds,
            origin=self.origin,
        )


def normalised(images: Pixels, device: torch.device) -> Tensor:
    """Return images uint8 [n, height, width, 3] as students take them, float32 [n, 3, height, width]."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    mean, deviation = (
        torch.tensor(values, device=device).mul_(255).view(1, 3, 1, 1) for values in (MEAN, DEVIATION)
    )
    return (pixels - mean) / deviation


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the Kullback-Leibler divergence (nats) of a student from its teacher, the mean over a batch.

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


def new_optimizer(network: nn.Module, base: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over a network's parameters; those of one axis (biases, norms) do not decay."""
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=base, betas=(0.9, 0.999), weight_decay=weight_decay)


def compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a network's forward pass, and its gradients, as a compiled program of the same parameters.

    It is compiled when it first runs, within `compiling`; networks of one architecture share programs. Every
    size of batch is compiled by itself, so that what a step computes does not depend on the batches before
    it: a curve is the same whether its training was interrupted or not.
    """
    forward: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False)
    return forward


@contextmanager
def compiling() -> Iterator[None]:
    """Let PyTorch compile every size of batch within the block, and explain where it cannot.

    Raises:
        SettingsError: a network cannot be compiled.
    """
    from torch import _dynamo as dynamo  # noqa: PLC0415 - takes a second, for those alone who compile
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # noqa: PLC0415

    settings: Any = dynamo.config
    limit = max(settings.recompile_limit, _MOST_PROGRAMS)
    try:
        with settings.patch(recompile_limit=limit, fail_on_recompile_limit_hit=True):
            yield
    except TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise SettingsError(
            f"PyTorch could not compile a student: {reason}",
            "On a processor it needs a C++ compiler, such as g++. If there is one, delete "
            f"{cache_dir()}, which an interrupted run may have left half written. Or leave out --compile.",
        ) from error
