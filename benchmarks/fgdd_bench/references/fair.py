"""What a good PyTorch engineer would write: worker processes, batches, lower precision, channels last.

With `compile`, the same with `torch.compile`: normalisation, padding, network and loss become one program
with the weights as constants. Batch normalisation is folded into the convolutions in both, as it is in the
bundles that the networks are rebuilt from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    run_steps,
)
from fgdd_bench.harness.subject import Subject, Task
from fgdd_bench.machine.processes import variable
from fgdd_bench.references.fair_workers import ImageLoader
from fgdd_bench.references.mosaics import OPENCV, open_mosaics
from fgdd_bench.references.networks import (
    Normalisation,
    Shown,
    find_normalisation,
    pytorch_on,
    reference_device,
    saliency_network,
    teacher_network,
    wait_for,
)
from fgdd_bench.references.pictures import resized_whole
from fgdd_engines.base import Array
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import Pixels
from fgdd_fast.runtime.machine import read_machine

_KERNELS = "TORCHINDUCTOR_CACHE_DIR"  # where `torch.compile` keeps what it makes
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class FairReference(Implementation):
    """Worker processes prepare images; networks run whole batches of them, one after the other.

    Args:
        name, arithmetic: see `Implementation`.
        task: with the images in a batch.
        preprocess: what a worker makes of an image's pixels: an array.
        outputs: what the answer's arrays are called.
        classes: in the order of their labels.
        networks: steps from labels, int64 [images], and from what the workers made of as many images, as a
            tensor on the device, to the answer's tensors; without one, the answer is what the workers made.
        within: what holds while they run.
    """

    def __init__(
        self,
        name: Name,
        arithmetic: str,
        task: Task,
        *,
        preprocess: Callable[[SourceImage, Pixels], Array],
        outputs: Sequence[str],
        classes: Sequence[str] = (),
        networks: Sequence[Step] = (),
        within: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__(name, arithmetic)
        self._task, self._outputs, self._networks, self._within = task, outputs, networks, within
        self._places = {name: place for place, name in enumerate(classes)}
        self._device = reference_device(task) if networks else torch.device("cpu")
        gpu = self._device.type == "cuda"
        self._steps = (*OPENCV.reading(), Step("preprocess", preprocess))
        # One worker keeps up with a network on a processor; more would take threads from it.
        workers = task.threads if gpu or not networks else 1
        self._loader = ImageLoader(self._steps, batch=task.batch, workers=workers, pinned=gpu)
        self.opened.callback(self._let_go)
        self.opened.callback(self._loader.close)

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        labels = self._labels_of(images)
        parts: list[Sequence[Tensor]] = []
        with wrapped_as_engine_error(f"{self.arithmetic} failed"), self._within():
            for rows in self._loader.load(images):
                done = len(parts) * self._task.batch
                on_device = rows.to(self._device, non_blocking=True)
                found = run_steps(self._networks, labels[done : done + len(rows)], on_device)
                parts.append(found if self._networks else (found,))
            arrays = [torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True)]
        return dict(zip(self._outputs, arrays, strict=True))

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`."""
        stages, rows = as_stages(self._steps, images)
        if not self._networks:
            return stages
        steps = [Step(step.name, partial(self._alone, step), step.threads) for step in self._networks]
        if self._device.type == "cuda":
            steps.insert(0, Step("host to device", self._copy))
        labels, size = self._labels_of(images), self._task.batch
        batches = groups(len(images), size)
        inputs = [torch.from_numpy(np.stack([rows[index] for index in batch])) for batch in batches]
        return stages + as_stages(steps, [labels[batch] for batch in batches], inputs=inputs, images=size)[0]

    def _alone(self, step: Step, labels: Tensor, value: Any) -> Any:
        with self._within():
            found = step.do(labels, value)
            wait_for(self._device)
            return found

    def _copy(self, _: Tensor, rows: Tensor) -> Tensor:
        copied = rows.pin_memory().to(self._device)
        wait_for(self._device)
        return copied

    def _labels_of(self, images: Sequence[SourceImage]) -> Tensor:
        places = [self._places[image.class_name] if self._places else 0 for image in images]
        return torch.tensor(places, device=self._device)

    def _let_go(self) -> None:
        self._networks = ()
        if self.name == "compiled":
            torch.compiler.reset()  # it compiles one function only so many times


def open_reference(path: PathName, task: Task, subject: Subject, name: Name = "fair") -> Implementation:
    """Open the fair reference along a path.

    Args:
        path: `decode`, `foreground` with a saliency model, `teacher` or `compose`.
        task: with the images in a batch.
        subject: what the path works on.
        name: `fair`, or `compiled`; where no network runs, that changes nothing but the name.

    Raises:
        SettingsError: the subject lacks what the path needs.
        FgddError: a model cannot be rebuilt in PyTorch or compiled, or there is no GPU.
    """
    if path == "compose":
        return open_mosaics(name, task, subject.given_plan())
    tiles = partial(OPENCV.tiles, task)
    if path == "decode":
        arithmetic = f"OpenCV {cv2.__version__}, {task.threads} worker processes"
        return FairReference(name, arithmetic, task, preprocess=tiles, outputs=("tiles",))
    network: nn.Module
    if path == "foreground":
        bundle = subject.foreground_bundle()
        height, width = bundle.preprocessing.height, bundle.preprocessing.width
        network, resized = _Saliency(saliency_network(bundle)), partial(resized_whole, (width, height))
        outputs = ("occupancy", "masks")
        return FairNetwork(
            name, task, "saliency", network, (height, width, 3), resized, outputs, subject.classes
        )
    bundle, classes = subject.known_teacher()
    shown = Shown.of(task, bundle)
    network = _Teacher(teacher_network(bundle, shown.side), find_normalisation(bundle), shown)
    shape = (1 + task.crops, task.tile_size, task.tile_size, 3)
    return FairNetwork(name, task, "teacher", network, shape, tiles, ("losses",), classes)


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


class FairNetwork(FairReference):
    """A network in its best precision and layout; as `compiled`, with fixed shapes and constant weights.

    Args:
        name: `fair` or `compiled`.
        task: with the images in a batch.
        stage: which it is.
        module: from samples uint8 [images, ...] and labels int64 [images] to tensors [images, ...].
        shape: of a sample.
        preprocess, outputs, classes: see `FairReference`.
    """

    def __init__(
        self,
        name: Name,
        task: Task,
        stage: StageName,
        module: nn.Module,
        shape: tuple[int, ...],
        preprocess: Callable[[SourceImage, Pixels], Array],
        outputs: Sequence[str],
        classes: Sequence[str],
    ) -> None:
        self.name, self._device = name, reference_device(task)
        self._dtype = lower_precision(self._device)
        network: Any = module.to(self._device)
        self._module = network.to(memory_format=torch.channels_last)
        words = [pytorch_on(self._device), PRECISIONS[self._dtype], "channels last"]
        with wrapped_as_engine_error(f"{words[0]} cannot run the {stage}"), self._arithmetic():
            self._samples = torch.zeros((task.batch, *shape), dtype=torch.uint8, device=self._device)
            self._labels = torch.zeros(task.batch, dtype=torch.int64, device=self._device)
            if name == "compiled":
                words.append("compiled")
                options: dict[str, Any] = {"freezing": True}
                self._module = torch.compile(self._module, fullgraph=True, dynamic=False, options=options)
            # Every kernel is made anew: what an interrupted run left behind is cut short.
            with TemporaryDirectory() as folder, variable(_KERNELS, folder):
                self._module(self._samples, self._labels)
        step = Step(stage, self._infer, task.busy_threads)
        super().__init__(
            name,
            ", ".join(words),
            task,
            preprocess=preprocess,
            outputs=outputs,
            classes=classes,
            networks=[step],
            within=self._arithmetic,
        )

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Inference in lower precision, where there is any."""
        with torch.inference_mode(), autocast(self._device, self._dtype):
            yield

    def _infer(self, labels: Tensor, samples: Tensor) -> Sequence[Tensor]:
        """Return what the network makes of a batch; a GPU may still be at work."""
        count = len(samples)
        if self.name == "compiled":
            # Shapes are fixed: where a batch is short, what was there before fills it up. And the tensors are
            # always the same, because PyTorch would compile again for those that were made in another mode.
            self._samples[:count], self._labels[:count] = samples, labels
            samples, labels = self._samples, self._labels
        return [output[:count] for output in self._module(samples, labels)]

    def _let_go(self) -> None:
        super()._let_go()
        self._module = None


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return a context in which networks compute in a precision."""
    lower = dtype != torch.float32
    return torch.autocast(device.type, dtype if lower else None, enabled=lower)


def lower_precision(device: torch.device) -> torch.dtype:
    """Return what autocast computes in: float16 on a GPU, bfloat16 where a processor has it, else float32."""
    if device.type == "cuda":
        return torch.float16
    has_bfloat16 = any("bf16" in unit for unit in read_machine().vector_units)
    return torch.bfloat16 if has_bfloat16 else torch.float32
