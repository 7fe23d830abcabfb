"""Grounded SAM 2 as a good PyTorch engineer would run it: worker processes, batches, autocast in bf16.

The networks are transformers' own. Each prompt is encoded once, when it is opened, and looked up from
then on; images come to this project's canvas; SAM 2 sees only images in which boxes were found, and decodes
all boxes of a batch at once; the union of an image's masks is enlarged once, not each of its masks.
Channels-last layouts change nothing here: nearly all of the arithmetic is in matrix products.

`compiled` has SAM 2's image encoder compiled by `torch.compile`, and on a GPU the detector too.
On a processor that stays eager: compiled by PyTorch 2.13, Grounding DINO tiny takes 26 s of processor time
where eager takes 10; with its backbone alone compiled, as long as eager. The mask decoder stays eager as
well: its shapes follow the number of boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fgdd_bench.harness.implementation import Answer, Implementation, Name, Stage, Step, as_stages, groups
from fgdd_bench.harness.subject import Subject, Task, asked_of
from fgdd_bench.machine.processes import variable
from fgdd_bench.ours.grounded_parts import text_stage
from fgdd_bench.references.fair import PRECISIONS, lower_precision
from fgdd_bench.references.fair_workers import ImageLoader, worker_steps
from fgdd_bench.references.grounded.networks import (
    Boxes,
    EncodedPrompts,
    Prompts,
    TextCounter,
    best_boxes,
    load_networks,
    normalised,
)
from fgdd_bench.references.networks import pytorch_on, reference_device, wait_for
from fgdd_bench.references.pictures import resize_opencv
from fgdd_engines.base import Array
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.resize import Pixels
from fgdd_fast.models.grounded_sam2 import bring_to_canvas
from fgdd_fast.models.prompts import Prompting

_NOTHING = -32.0  # logit of a box that does not count
_MASK_STRIDE = 4  # pixels of SAM 2's square for each of its mask, along each side
# transformers checks values within its networks unless it is told not to, "in production": then no GPU need
# be waited for, and `torch.compile` does not break a network up around each check.
_NO_CHECKS = "TRANSFORMERS_DISABLE_TORCH_CHECK"
_PROBLEM = "PyTorch cannot run Grounded SAM 2"


@dataclass(frozen=True)
class Canvases:
    """What the workers make of an image: bytes, all in one row, which is one copy to a GPU.

    The canvas of the detector and the square of the segmenter are this project's, made by its own functions.

    Attributes:
        canvas: height and width of the canvas.
        side: of the square.
        prompting: how an image comes to the canvas.
    """

    canvas: tuple[int, int]
    side: int
    prompting: Prompting

    @property
    def length(self) -> int:
        """Bytes of a row."""
        height, width = self.canvas
        return (height * width + self.side**2) * 3 + 8

    def __call__(self, _: SourceImage, pixels: Pixels) -> Array:
        """Make a row of bytes, uint8 [n], of uint8 [height, width, 3]."""
        canvas, valid = bring_to_canvas(pixels, self.canvas, self.prompting, "area")
        square = resize_opencv(pixels, (self.side, self.side))
        return np.concatenate([canvas.ravel(), square.ravel(), valid.view(np.uint8)])

    def unpack(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a batch of rows, uint8 [images, n], was made of.

        Returns:
            Canvases uint8 [images, height, width, 3]; squares uint8 [images, side, side, 3]; and the rows and
            columns of the canvas that each image fills, int32 [images, 2].
        """
        height, width = self.canvas
        canvases = rows[:, : height * width * 3]
        squares = rows[:, height * width * 3 : -8]
        valid = rows[:, -8:].contiguous().view(torch.int32)
        return canvases.view(-1, height, width, 3), squares.view(-1, self.side, self.side, 3), valid


@dataclass(frozen=True)
class _Detected:
    """What the detector found in a batch: boxes of all images; squares uint8 [images, side, side, 3]."""

    boxes: Boxes
    squares: Tensor


@dataclass(frozen=True)
class _Embedded:
    """A batch as the mask decoder takes it: boxes of all images; those with a box, int64 [n]; theirs."""

    boxes: Boxes
    places: Tensor
    embeddings: Sequence[Tensor]


class FairGrounded(Implementation):
    """Grounded SAM 2 in batches, in bf16 where the device has it.

    Args:
        task: with the images in a batch.
        subject: what is looked for.
        name: `fair` or `compiled`.
    """

    text_encodings: int

    def __init__(self, task: Task, subject: Subject, *, name: Name) -> None:
        asked = asked_of(subject)
        torch.set_num_threads(task.threads)
        self.name = name
        self._task = task
        self._device = reference_device(task)
        self._dtype = torch.bfloat16 if task.device == "cuda" else lower_precision(self._device)
        self._threshold, self._most = asked.threshold, asked.most
        self._labels = {name: place for place, name in enumerate(subject.classes)}
        self._canvases = Canvases(asked.parts.canvas, asked.parts.side, asked.parts.prompting)
        self._detector, self._segmenter = load_networks(subject, self._device)
        self._detect_all: Any = self._detector.model
        self._embed_all: Any = self._segmenter.model.get_image_embeddings
        self._prompts = Prompts.of(asked.texts, self._detector, self._device)
        self._encode_all()
        gpu = self._device.type == "cuda"
        compiled = [*["detector"] * gpu, "image encoder"] if name == "compiled" else []
        if "detector" in compiled:
            self._detect_all = torch.compile(self._detect_all, dynamic=False)
        if "image encoder" in compiled:
            self._embed_all = torch.compile(self._embed_all, dynamic=False)
        precision = self._warm_up()
        # One worker keeps up with networks on a processor; more would take threads from them.
        self._steps = worker_steps(self._canvases)
        workers = task.threads if gpu else 1
        self._loader = ImageLoader(self._steps, batch=task.batch, workers=workers, pinned=gpu)
        words = [f"{' and '.join(compiled)} compiled"] if compiled else []
        self.arithmetic = ", ".join([pytorch_on(self._device), precision, *words])

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        torch.set_num_threads(self._task.threads)
        labels = self._labels_of(images)
        parts: list[tuple[Tensor, ...]] = []
        with wrapped_as_engine_error(_PROBLEM), self._arithmetic():
            for rows in self._loader.load(images):
                done = len(parts) * self._task.batch
                on_device = rows.to(self._device, non_blocking=True)
                detected = self._detect(labels[done : done + len(rows)], on_device)
                parts.append(self._segment(None, self._embed(None, detected)))
            arrays = [torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True)]
        return dict(zip(("occupancy", "masks", "boxes"), arrays, strict=True))

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`."""
        torch.set_num_threads(self._task.threads)
        stages, rows = as_stages(self._steps, images)
        labels = self._labels_of(images)
        batches = groups(len(images), self._task.batch)
        threads = self._task.threads
        steps = [
            Step("detector", self._timed(self._detect), threads),
            Step("mask encoder", self._timed(self._embed), threads),
            Step("mask decoder", self._timed(self._segment), threads),
        ]
        if self._device.type == "cuda":
            steps.insert(0, Step("host to device", self._timed(self._copy)))
        batch_stages, _ = as_stages(
            steps,
            [labels[batch] for batch in batches],
            inputs=[torch.from_numpy(np.stack([rows[index] for index in batch])) for batch in batches],
            images=self._task.batch,
        )
        text = text_stage(
            images, lambda name: self._encode(self._prompts.ids[self._labels[name], None]), threads
        )
        return [*stages, text, *batch_stages]

    def close(self) -> None:
        """Let go of the networks, and end the workers."""
        self._loader.close()
        self._detect_all = self._embed_all = self._detector = self._segmenter = None  # type: ignore[assignment]

    def _encode_all(self) -> None:
        """Encode every prompt once, for all images to come."""
        counter = TextCounter()
        with counter.watching(self._detector.model):
            self._encoded = self._encode(self._prompts.ids)
        self.text_encodings = counter.count

    @torch.no_grad()
    def _encode(self, ids: Tensor) -> EncodedPrompts:
        encoded = EncodedPrompts(self._detector.model, ids)
        wait_for(self._device)
        return encoded

    def _warm_up(self) -> str:
        """Run a batch, so that everything is compiled; the precision in which convolutions computed."""
        batch = self._task.batch
        rows = torch.zeros((batch, self._canvases.length), dtype=torch.uint8)
        rows[:, -8:] = torch.tensor(self._canvases.canvas, dtype=torch.int32).view(torch.uint8)
        with wrapped_as_engine_error(_PROBLEM), self._arithmetic():
            labels = torch.zeros(batch, dtype=torch.int64, device=self._device)
            detected = self._detect(labels, rows.to(self._device))
            everywhere = Boxes(detected.boxes.corners, torch.ones_like(detected.boxes.scores))
            embedded = self._embed(None, _Detected(everywhere, detected.squares))
            self._segment(None, embedded)
        return PRECISIONS[embedded.embeddings[0].dtype]

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Inference in lower precision, where there is any, with the prompts that were encoded."""
        lower = self._dtype != torch.float32
        with (
            variable(_NO_CHECKS, "1"),
            torch.inference_mode(),
            torch.autocast(self._device.type, self._dtype if lower else None, enabled=lower),
            self._encoded.in_place(self._detector.model),
        ):
            yield

    def _copy(self, _: Tensor, rows: Tensor) -> Tensor:
        return rows.pin_memory().to(self._device)

    def _detect(self, labels: Tensor, rows: Tensor) -> _Detected:
        """Boxes in the images that a batch of rows was made of, each asked for its label's class."""
        canvases, squares, valid = self._canvases.unpack(rows)
        count = len(rows)
        if self.name == "compiled":  # its shapes are fixed
            canvases, valid, labels = (_filled(part, self._task.batch) for part in (canvases, valid, labels))
        inside = _inside(valid, self._canvases.canvas)
        mean, std = self._detector.image_mean, self._detector.image_std
        planes = normalised(canvases, mean, std) * inside[:, None]
        outputs = self._detect_all(pixel_values=planes, pixel_mask=inside, **self._prompts.inputs(labels))
        corners, scores = best_boxes(outputs, self._threshold, self._most)
        return _Detected(Boxes(corners[:count], scores[:count]), squares)

    def _embed(self, _: object, detected: _Detected) -> _Embedded:
        """Embeddings of the images with a box."""
        places = detected.boxes.scores.amax(1).nonzero()[:, 0]
        count = len(places)
        if not count:
            return _Embedded(detected.boxes, places, ())
        squares = detected.squares[places]
        if self.name == "compiled":
            squares = _filled(squares, self._task.batch)
        mean, std = self._segmenter.image_mean, self._segmenter.image_std
        embeddings = self._embed_all(normalised(squares, mean, std))
        return _Embedded(detected.boxes, places, [level[:count] for level in embeddings])

    def _segment(self, _: object, embedded: _Embedded) -> tuple[Tensor, Tensor, Tensor]:
        """Occupancies, masks and boxes of a batch, as an answer has them."""
        corners, scores = embedded.boxes
        side = self._canvases.side // _MASK_STRIDE
        occupancies = torch.zeros(len(scores), device=self._device)
        masks = torch.zeros((len(scores), side, side), dtype=torch.uint8, device=self._device)
        boxes = torch.cat([corners, scores[..., None]], -1) * (scores > 0)[..., None]
        if len(embedded.places):
            counts = scores[embedded.places] > 0
            most = int(counts.sum(1).max())
            logits = self._segmenter.model(
                image_embeddings=list(embedded.embeddings),
                input_boxes=corners[embedded.places, :most] * self._canvases.side,
                multimask_output=False,
            ).pred_masks[:, :, 0]
            found = counts[:, :most, None, None]
            union = torch.where(found, logits.float(), _NOTHING).amax(1, keepdim=True)
            fine = functional.interpolate(union, scale_factor=_MASK_STRIDE, mode="bilinear")
            occupancies[embedded.places] = (fine > 0).float().mean((1, 2, 3))
            masks[embedded.places] = (union[:, 0] > 0).byte() * 255
        return occupancies, masks, boxes

    def _timed(self, do: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """A step that can be run alone, and has ended when it returns."""

        def run(item: Any, value: Any) -> Any:
            with self._arithmetic():
                result = do(item, value)
                wait_for(self._device)
                return result

        return run

    def _labels_of(self, images: Sequence[SourceImage]) -> Tensor:
        return torch.tensor([self._labels[image.class_name] for image in images], device=self._device)


def _inside(valid: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Where images are on their canvases: int64 [images, height, width], 1 inside."""
    rows, columns = (torch.arange(length, device=valid.device) for length in canvas)
    inside = (rows[:, None] < valid[:, 0, None, None]) & (columns < valid[:, 1, None, None])
    return inside.long()


def _filled(samples: Tensor, count: int) -> Tensor:
    """As many samples as a whole batch has, the last one repeated."""
    return torch.cat([samples, samples[-1:].expand(count - len(samples), *samples.shape[1:])])
