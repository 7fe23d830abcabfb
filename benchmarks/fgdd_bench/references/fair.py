"""What a good PyTorch engineer would write: worker processes, batches, lower precision, channels last.

With `compile`, the same with `torch.compile`: normalisation, padding, network and loss become one program
with the weights as constants. Batch normalisation is folded into the convolutions in both, as it is in the
bundles that the networks are rebuilt from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fgdd_bench.harness.steps import Step, as_stages, groups
from fgdd_bench.harness.subject import Subject
from fgdd_bench.harness.ways import Answer, Column, PathName, Stage, Task, Way
from fgdd_bench.references.fair_networks import FairModel, fair_saliency, fair_teacher
from fgdd_bench.references.fair_workers import ImageLoader, Tiles, worker_steps
from fgdd_bench.references.mosaics import FairMosaics
from fgdd_bench.references.networks import busy_threads, pytorch_on, reference_device
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.runtime.machine import read_machine

_KERNELS = "TORCHINDUCTOR_CACHE_DIR"  # where `torch.compile` keeps what it makes
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def open_fair(path: PathName, task: Task, subject: Subject, *, compile: bool = False) -> Way:
    """Open the fair reference along a path.

    Args:
        path: of a small network.
        task: with the images in a batch: see `batches.fastest_batch`.
        subject: what the path works on.
        compile: whether the network is compiled; where none runs, that changes nothing but the column.

    Raises:
        SettingsError: the path is another, or the subject lacks what it needs.
        FgddError: a model cannot be rebuilt in PyTorch or compiled, or there is no GPU.
    """
    begin = time.perf_counter()
    column: Column = "compiled" if compile else "fair"
    way: Way
    if path == "decode":
        way = FairDecoding(task, subject, column=column)
    elif path == "foreground":
        way = FairNetwork(task, fair_saliency(subject), column=column)
    elif path == "teacher":
        way = FairNetwork(task, fair_teacher(task, subject), column=column)
    elif path == "compose":
        way = FairMosaics(task, subject, column=column)
    else:
        raise SettingsError(f"The path '{path}' is not one of decode, foreground, teacher and compose")
    way.load_seconds = time.perf_counter() - begin
    return way


class FairDecoding(Way):
    """Worker processes read, decode and cut images."""

    def __init__(self, task: Task, subject: Subject, *, column: Column) -> None:
        self.column = column
        self._steps = worker_steps(Tiles(task, subject.resize))
        self._loader = ImageLoader(self._steps, batch=task.batch, workers=task.threads, pinned=False)
        self.arithmetic = f"OpenCV {cv2.__version__}, {task.threads} worker processes"

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Way.run`."""
        return {"tiles": torch.cat(list(self._loader.load(images))).numpy()}

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Way.stages`."""
        return as_stages(self._steps, images)[0]

    def close(self) -> None:
        """See `Way.close`."""
        self._loader.close()


class FairNetwork(Way):
    """Worker processes prepare images; the network runs a whole batch of them at once.

    Args:
        task: with the images in a batch.
        model: on the CPU.
        column: `fair`, or `compiled`, whose batches are all whole: the last one is filled up.
    """

    def __init__(self, task: Task, model: FairModel, *, column: Column) -> None:
        self.column = column
        self._task = task
        self._model = model
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
            if column == "compiled":
                self._module = torch.compile(
                    self._module, fullgraph=True, dynamic=False, options={"freezing": True}
                )
                with _no_kernels_of_before():
                    example()
        # One worker keeps up with a network on a processor; more would take threads from it.
        gpu = self._device.type == "cuda"
        workers = task.threads if gpu else 1
        self._steps = worker_steps(model.preprocess)
        self._loader = ImageLoader(self._steps, batch=task.batch, workers=workers, pinned=gpu)
        details = [precision, "channels last", *["compiled"] * (column == "compiled")]
        self.arithmetic = ", ".join([pytorch_on(self._device), *details])

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Way.run`."""
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
        """See `Way.stages`."""
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
        """See `Way.close`."""
        self._loader.close()
        self._module = None
        if self.column == "compiled":
            torch.compiler.reset()  # it compiles one function only so many times

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Inference in lower precision, where there is any."""
        lower = self._dtype != torch.float32
        dtype = self._dtype if lower else None
        with torch.inference_mode(), torch.autocast(self._device.type, dtype, enabled=lower):
            yield

    def _infer(self, labels: Tensor, samples: Tensor) -> Sequence[Tensor]:
        """What the network makes of a batch; on a GPU it may still be at work."""
        if self.column == "fair":
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
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _copy_and_wait(self, _: Tensor, samples: Tensor) -> Tensor:
        copied = samples.pin_memory().to(self._device)
        torch.cuda.synchronize()
        return copied

    def _labels(self, images: Sequence[SourceImage]) -> Tensor:
        places = {name: place for place, name in enumerate(self._model.classes)}
        return torch.tensor([places[image.class_name] for image in images], device=self._device)


def lower_precision(device: torch.device) -> torch.dtype:
    """What autocast computes in: float16 on a GPU, bfloat16 on a processor that has it, else float32."""
    if device.type == "cuda":
        return torch.float16
    has_bfloat16 = any("bf16" in unit for unit in read_machine().vector_units)
    return torch.bfloat16 if has_bfloat16 else torch.float32


@contextmanager
def _no_kernels_of_before() -> Iterator[None]:
    """Let `torch.compile` make every kernel anew: what an interrupted run left behind is cut short."""
    before = os.environ.get(_KERNELS)
    with TemporaryDirectory() as folder:
        os.environ[_KERNELS] = folder
        try:
            yield
        finally:
            del os.environ[_KERNELS]
            if before is not None:
                os.environ[_KERNELS] = before


def _observed_precision(module: nn.Module, run: Callable[[], object]) -> str:
    """The precision in which a network's first convolution computes when it runs."""
    seen: list[torch.dtype] = []
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    hook = first.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    run()
    hook.remove()
    return _PRECISIONS[seen[0]]
