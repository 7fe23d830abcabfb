"""What a good PyTorch engineer would write: worker processes, batches, lower precision, channels last.

With `compile`, the same with `torch.compile`: normalisation, padding, network and loss become one program
with the weights as constants. Batch normalisation is folded into the convolutions in both, as it is in the
bundles that the networks are rebuilt from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fgdd_bench.harness.implementation import (
    Answer,
    Implementation,
    Name,
    PathName,
    Stage,
    StageName,
    Step,
    as_stages,
    groups,
)
from fgdd_bench.harness.subject import Subject, Task
from fgdd_bench.machine.processes import variable
from fgdd_bench.references.fair_workers import ImageLoader, Preprocess, Tiles, Whole, worker_steps
from fgdd_bench.references.mosaics import FairMosaics
from fgdd_bench.references.networks import (
    Normalisation,
    Shown,
    busy_threads,
    find_normalisation,
    pytorch_on,
    reference_device,
    saliency_network,
    teacher_network,
    wait_for,
)
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.runtime.machine import read_machine

_KERNELS = "TORCHINDUCTOR_CACHE_DIR"  # where `torch.compile` keeps what it makes
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def open_fair(path: PathName, task: Task, subject: Subject, *, name: Name = "fair") -> Implementation:
    """Open the fair reference along a path.

    Args:
        path: of a small network.
        task: with the images in a batch.
        subject: what the path works on.
        name: `fair`, or `compiled`; where no network runs, that changes nothing but the name.

    Raises:
        SettingsError: the path is another, or the subject lacks what it needs.
        FgddError: a model cannot be rebuilt in PyTorch or compiled, or there is no GPU.
    """
    if path == "decode":
        return FairDecoding(task, name=name)
    if path == "foreground":
        return FairNetwork(task, _saliency(subject), name=name)
    if path == "teacher":
        return FairNetwork(task, _teacher(task, subject), name=name)
    if path == "compose":
        return FairMosaics(task, subject.given_plan(), name=name)
    raise SettingsError(f"The path '{path}' is not one of decode, foreground, teacher and compose")


class FairDecoding(Implementation):
    """Worker processes read, decode and cut images."""

    def __init__(self, task: Task, *, name: Name) -> None:
        self.name = name
        self._steps = worker_steps(Tiles(task))
        self._loader = ImageLoader(self._steps, batch=task.batch, workers=task.threads, pinned=False)
        self.arithmetic = f"OpenCV {cv2.__version__}, {task.threads} worker processes"

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        return {"tiles": torch.cat(list(self._loader.load(images))).numpy()}

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`."""
        return as_stages(self._steps, images)[0]

    def close(self) -> None:
        """See `Implementation.close`."""
        self._loader.close()


@dataclass(frozen=True)
class FairModel:
    """A network, what goes into it and what comes out.

    Attributes:
        stage: which it is.
        module: from samples uint8 [images, ...] and labels int64 [images] to tensors [images, ...].
        preprocess: what workers do with an image to make a sample.
        shape: of a sample.
        outputs: what the tensors are called in the answer.
        classes: in the order of the labels.
    """

    stage: StageName
    module: nn.Module
    preprocess: Preprocess
    shape: tuple[int, ...]
    outputs: tuple[str, ...]
    classes: Sequence[str]


def _saliency(subject: Subject) -> FairModel:
    bundle = subject.foreground_bundle()
    height, width = bundle.preprocessing.height, bundle.preprocessing.width
    module, shape = _Saliency(saliency_network(bundle)), (height, width, 3)
    outputs = ("occupancy", "masks")
    return FairModel("saliency", module, Whole((width, height)), shape, outputs, subject.classes)


def _teacher(task: Task, subject: Subject) -> FairModel:
    bundle, classes = subject.known_teacher()
    shown = Shown.of(task, bundle)
    module = _Teacher(teacher_network(bundle, shown.side), find_normalisation(bundle), shown)
    shape = (1 + task.crops, task.tile_size, task.tile_size, 3)
    return FairModel("teacher", module, Tiles(task), shape, ("losses",), classes)


class _Saliency(nn.Module):
    """Images uint8 [images, height, width, 3] to their occupancies and masks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - not asked
        occupancy, mask = self.network(samples)
        return occupancy.float(), mask


class _Teacher(nn.Module):
    """Tiles uint8 [images, views, tile, tile, 3], shown to the teacher, to losses [images, views]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, normalisation: Normalisation, shown: Shown) -> None:
        super().__init__()
        self.network = network
        self.shown = shown
        self.register_buffer("scale", 1 / (255 * normalisation.std))
        self.register_buffer("shift", -normalisation.mean / normalisation.std)

    def forward(self, samples: Tensor, labels: Tensor) -> tuple[Tensor]:
        images, views = samples.shape[:2]
        planes = samples.flatten(0, 1).permute(0, 3, 1, 2) * self.scale + self.shift
        logits = self.network(self.shown(planes))
        losses = functional.cross_entropy(logits.float(), labels.repeat_interleave(views), reduction="none")
        return (losses.reshape(images, views),)


class FairNetwork(Implementation):
    """Worker processes prepare images; the network runs a whole batch of them at once.

    Args:
        task: with the images in a batch.
        model: on the CPU.
        name: `fair`, or `compiled`, whose batches are all whole: the last one is filled up.
    """

    def __init__(self, task: Task, model: FairModel, *, name: Name) -> None:
        self.name = name
        self._task, self._model = task, model
        self._device = reference_device(task)
        self._dtype = lower_precision(self._device)
        self._problem = f"PyTorch cannot run the {model.stage}"
        module: Any = model.module.to(self._device)
        self._module = module.to(memory_format=torch.channels_last)
        torch.set_num_threads(task.threads)
        with wrapped_as_engine_error(self._problem), self._arithmetic():
            shape = (task.batch, *model.shape)
            self._labels_buffer = torch.zeros(task.batch, dtype=torch.int64, device=self._device)
            self._samples_buffer = torch.zeros(shape, dtype=torch.uint8, device=self._device)
            example = partial(self._run, self._samples_buffer, self._labels_buffer)
            precision = _observed_precision(model.module, example)
            if name == "compiled":
                self._module = torch.compile(
                    self._module, fullgraph=True, dynamic=False, options={"freezing": True}
                )
                # Every kernel is made anew: what an interrupted run left behind is cut short.
                with TemporaryDirectory() as folder, variable(_KERNELS, folder):
                    example()
        # One worker keeps up with a network on a processor; more would take threads from it.
        gpu = self._device.type == "cuda"
        self._steps = worker_steps(model.preprocess)
        workers = task.threads if gpu else 1
        self._loader = ImageLoader(self._steps, batch=task.batch, workers=workers, pinned=gpu)
        details = [precision, "channels last", *["compiled"] * (name == "compiled")]
        self.arithmetic = ", ".join([pytorch_on(self._device), *details])

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        torch.set_num_threads(self._task.threads)
        labels = self._labels(images)
        parts: list[Sequence[Tensor]] = []
        with wrapped_as_engine_error(self._problem), self._arithmetic():
            for samples in self._loader.load(images):
                done = len(parts) * self._task.batch
                on_device = samples.to(self._device, non_blocking=True)
                parts.append(self._infer(labels[done : done + len(samples)], on_device))
            arrays = [torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True)]
        return dict(zip(self._model.outputs, arrays, strict=True))

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`."""
        torch.set_num_threads(self._task.threads)
        stages, samples = as_stages(self._steps, images)
        labels = self._labels(images)
        batches = groups(len(images), self._task.batch)
        steps = [Step(self._model.stage, self._infer_and_wait, busy_threads(self._task))]
        if self._device.type == "cuda":
            steps.insert(0, Step("host to device", self._copy_and_wait))
        batch_stages, _ = as_stages(
            steps,
            [labels[batch] for batch in batches],
            inputs=[torch.from_numpy(np.stack([samples[index] for index in batch])) for batch in batches],
            images=self._task.batch,
        )
        return [*stages, *batch_stages]

    def close(self) -> None:
        """See `Implementation.close`."""
        self._loader.close()
        self._module = None
        if self.name == "compiled":
            torch.compiler.reset()  # it compiles one function only so many times

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Inference in lower precision, where there is any."""
        lower = self._dtype != torch.float32
        dtype = self._dtype if lower else None
        with torch.inference_mode(), torch.autocast(self._device.type, dtype, enabled=lower):
            yield

    def _infer(self, labels: Tensor, samples: Tensor) -> Sequence[Tensor]:
        """Return what the network makes of a batch; a GPU may still be at work."""
        if self.name == "fair":
            return self._run(samples, labels)
        # Shapes are fixed: where a batch is short, what was there before fills it up. And the tensors are
        # always the same, because PyTorch would compile again for those that were made in another mode.
        count = len(samples)
        self._labels_buffer[:count] = labels
        self._samples_buffer[:count] = samples
        return [output[:count] for output in self._run(self._samples_buffer, self._labels_buffer)]

    def _run(self, samples: Tensor, labels: Tensor) -> Sequence[Tensor]:
        outputs: Sequence[Tensor] = self._module(samples, labels)
        return outputs

    def _infer_and_wait(self, labels: Tensor, samples: Tensor) -> None:
        with self._arithmetic():
            self._infer(labels, samples)
        wait_for(self._device)

    def _copy_and_wait(self, _: Tensor, samples: Tensor) -> Tensor:
        copied = samples.pin_memory().to(self._device)
        torch.cuda.synchronize()
        return copied

    def _labels(self, images: Sequence[SourceImage]) -> Tensor:
        places = {name: place for place, name in enumerate(self._model.classes)}
        return torch.tensor([places[image.class_name] for image in images], device=self._device)


def lower_precision(device: torch.device) -> torch.dtype:
    """Return what autocast computes in: float16 on a GPU, bfloat16 where a processor has it, else float32."""
    if device.type == "cuda":
        return torch.float16
    has_bfloat16 = any("bf16" in unit for unit in read_machine().vector_units)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _observed_precision(module: nn.Module, run: Callable[[], object]) -> str:
    """Return the precision in which a network's first convolution computes when it runs."""
    seen: list[torch.dtype] = []
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    hook = first.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    run()
    hook.remove()
    return PRECISIONS[seen[0]]
