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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fgdd_bench.harness.implementation import Name, Stage, Step
from fgdd_bench.harness.subject import Subject, Task, asked_of
from fgdd_bench.machine.processes import variable
from fgdd_bench.ours.grounded_parts import text_stage
from fgdd_bench.references.fair import PRECISIONS, FairReference, autocast, lower_precision
from fgdd_bench.references.grounded.networks import (
    Boxes,
    EncodedPrompts,
    Prompts,
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


@dataclass(frozen=True)
class Canvases:
    """What the workers make of an image: bytes, all in one row, which is one copy to a GPU.

    The canvas of the detector, of a height and a width, and the square of the segmenter, of a side, are this
    project's, made by its own functions.
    """

    canvas: tuple[int, int]
    side: int
    prompting: Prompting

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
        canvases, squares = rows[:, : height * width * 3], rows[:, height * width * 3 : -8]
        valid = rows[:, -8:].contiguous().view(torch.int32)
        return canvases.view(-1, height, width, 3), squares.view(-1, self.side, self.side, 3), valid


class _Embedded(NamedTuple):
    """A batch as the mask decoder takes it: boxes of all images; those with a box, int64 [n]; theirs."""

    boxes: Boxes
    places: Tensor
    embeddings: Sequence[Tensor]


class FairGrounded(FairReference):
    """Grounded SAM 2 in batches, in bf16 where the device has it.

    Args:
        task: with the images in a batch.
        subject: what is looked for.
        name: `fair` or `compiled`.
    """

    def __init__(self, task: Task, subject: Subject, *, name: Name) -> None:
        asked, device = asked_of(subject), reference_device(task)
        self.name, self._task, self._device = name, task, device
        self._dtype = torch.bfloat16 if task.device == "cuda" else lower_precision(device)
        self._threshold, self._most = asked.threshold, asked.most
        self._canvases = Canvases(asked.parts.canvas, asked.parts.side, asked.parts.prompting)
        self._detector, self._segmenter = load_networks(subject, device)
        self._detect_all: Any = self._detector.model
        self._embed_all: Any = self._segmenter.model.get_image_embeddings
        self._prompts = Prompts.of(asked.texts, self._detector, device)
        self._encoded = self._encode(self._prompts.ids)
        words = [pytorch_on(device), PRECISIONS[self._dtype]]
        if name == "compiled":
            self._embed_all = torch.compile(self._embed_all, dynamic=False)
            if task.device == "cuda":
                self._detect_all = torch.compile(self._detect_all, dynamic=False)
            words.append(f"{'detector and ' * (task.device == 'cuda')}image encoder compiled")
        self._warm_up()
        super().__init__(
            name,
            ", ".join(words),
            task,
            preprocess=self._canvases,
            outputs=("occupancy", "masks", "boxes"),
            classes=subject.classes,
            networks=[
                Step("detector", self._detect, task.threads),
                Step("mask encoder", self._embed, task.threads),
                Step("mask decoder", self._segment, task.threads),
            ],
            within=self._arithmetic,
        )
        self.text_encodings = len(self._prompts.ids)

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`; the prompts are encoded once more."""
        reading, networks = len(self._steps), [*super().stages(images)]
        ids, places = self._prompts.ids, self._places
        text = text_stage(images, lambda name: self._encode(ids[places[name], None]), self._task.threads)
        return [*networks[:reading], text, *networks[reading:]]

    @torch.no_grad()
    def _encode(self, ids: Tensor) -> EncodedPrompts:
        encoded = EncodedPrompts(self._detector.model, ids)
        wait_for(self._device)
        return encoded

    def _warm_up(self) -> None:
        """Run a batch of black images with boxes everywhere, so that everything is compiled."""
        (height, width), side, batch = self._canvases.canvas, self._canvases.side, self._task.batch
        rows = torch.zeros((batch, (height * width + side**2) * 3 + 8), dtype=torch.uint8)
        rows[:, -8:] = torch.tensor(self._canvases.canvas, dtype=torch.int32).view(torch.uint8)
        problem = f"{pytorch_on(self._device)} cannot run Grounded SAM 2"
        with wrapped_as_engine_error(problem), self._arithmetic():
            labels = torch.zeros(batch, dtype=torch.int64, device=self._device)
            boxes, squares = self._detect(labels, rows.to(self._device))
            everywhere = Boxes(boxes.corners, torch.ones_like(boxes.scores))
            self._segment(None, self._embed(None, (everywhere, squares)))

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Inference in lower precision, where there is any, with the prompts that were encoded."""
        with (
            variable(_NO_CHECKS, "1"),
            torch.inference_mode(),
            autocast(self._device, self._dtype),
            self._encoded.in_place(self._detector.model),
        ):
            yield

    def _detect(self, labels: Tensor, rows: Tensor) -> tuple[Boxes, Tensor]:
        """Boxes in the images that a batch of rows was made of, each asked for its label's class; squares."""
        canvases, squares, valid = self._canvases.unpack(rows)
        count = len(rows)
        canvases, valid, labels = (self._whole(part) for part in (canvases, valid, labels))
        inside = _inside(valid, self._canvases.canvas)
        mean, std = self._detector.image_mean, self._detector.image_std
        planes = normalised(canvases, mean, std) * inside[:, None]
        outputs = self._detect_all(pixel_values=planes, pixel_mask=inside, **self._prompts.inputs(labels))
        corners, scores = best_boxes(outputs, self._threshold, self._most)
        return Boxes(corners[:count], scores[:count]), squares

    def _embed(self, _: object, detected: tuple[Boxes, Tensor]) -> _Embedded:
        """Embeddings of the images with a box."""
        boxes, squares = detected
        places = boxes.scores.amax(1).nonzero()[:, 0]
        count = len(places)
        if not count:
            return _Embedded(boxes, places, ())
        mean, std = self._segmenter.image_mean, self._segmenter.image_std
        embeddings = self._embed_all(normalised(self._whole(squares[places]), mean, std))
        return _Embedded(boxes, places, [level[:count] for level in embeddings])

    def _segment(self, _: object, embedded: _Embedded) -> tuple[Tensor, Tensor, Tensor]:
        """Occupancies, masks and boxes of a batch, as an answer has them."""
        (corners, scores), places, embeddings = embedded
        side = self._canvases.side // _MASK_STRIDE
        occupancies = torch.zeros(len(scores), device=self._device)
        masks = torch.zeros((len(scores), side, side), dtype=torch.uint8, device=self._device)
        boxes = torch.cat([corners, scores[..., None]], -1) * (scores > 0)[..., None]
        if len(places):
            counts = scores[places] > 0
            most = int(counts.sum(1).max())
            logits = self._segmenter.model(
                image_embeddings=list(embeddings),
                input_boxes=corners[places, :most] * self._canvases.side,
                multimask_output=False,
            ).pred_masks[:, :, 0]
            found = counts[:, :most, None, None]
            union = torch.where(found, logits.float(), _NOTHING).amax(1, keepdim=True)
            fine = functional.interpolate(union, scale_factor=_MASK_STRIDE, mode="bilinear")
            occupancies[places] = (fine > 0).float().mean((1, 2, 3))
            masks[places] = (union[:, 0] > 0).byte() * 255
        return occupancies, masks, boxes

    def _whole(self, samples: Tensor) -> Tensor:
        """As many samples as a whole batch has, the last one repeated, where shapes are fixed."""
        if self.name != "compiled":
            return samples
        missing = self._task.batch - len(samples)
        return torch.cat([samples, samples[-1:].expand(missing, *samples.shape[1:])])

    def _let_go(self) -> None:
        super()._let_go()
        self._detect_all = self._embed_all = self._detector = self._segmenter = None  # type: ignore[assignment]


def open_reference(_: object, task: Task, subject: Subject, name: Name) -> FairGrounded:
    """Open the fair reference along `foreground`; see `FairGrounded`."""
    return FairGrounded(task, subject, name=name)


def _inside(valid: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Where images are on their canvases: int64 [images, height, width], 1 inside."""
    rows, columns = (torch.arange(length, device=valid.device) for length in canvas)
    inside = (rows[:, None] < valid[:, 0, None, None]) & (columns < valid[:, 1, None, None])
    return inside.long()
