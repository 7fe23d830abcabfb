"""The published style of Grounded SAM 2: image by image in fp32, as the public scripts do it.

Pillow opens an image; transformers' processor brings it to the detector's own size, and the prompt to tokens,
which are encoded with every image; SAM 2 sees the image as a float tensor that is squashed to its square; the
mask of each box is enlarged to the full image.

Source: the public repository IDEA-Research/Grounded-SAM-2, `grounded_sam2_hf_model_demo.py`, with what
`SAM2ImagePredictor` does around the network written out. That takes every box above the threshold; here the
best are taken, as many as this project takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import GroundingDinoProcessor, PreTrainedTokenizerFast
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)

from fgdd_bench.harness.implementation import Answer, Step, StepByStep
from fgdd_bench.harness.subject import Subject, Task, asked_of, foreground_answer
from fgdd_bench.references.fair import PRECISIONS
from fgdd_bench.references.grounded.networks import EncodedPrompts, load_networks
from fgdd_bench.references.networks import pytorch_on, reference_device, wait_for
from fgdd_bench.references.published import published_steps, to_planes
from fgdd_export.grounding_dino.network import GroundingDino
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.foreground import Foreground, ScoredBox

TEXT_THRESHOLD = 0.3  # of the scripts; it only names the boxes, and changes none
_MASK_STRIDE = 4  # pixels of SAM 2's square for each of its mask, along each side


@dataclass(frozen=True)
class _Seen:
    """An image and a prompt as the networks take them, and what they have found so far.

    Attributes:
        inputs: of the detector.
        planes: float32 [1, 3, side, side], of the segmenter.
        size: height and width of the image.
        encoded: the prompt.
        boxes: float32 [n, 4]; left, top, right, bottom in pixels of the image.
        scores: float32 [n], best first.
        embeddings: of the image, by the segmenter's encoder.
    """

    inputs: Any
    planes: Tensor
    size: tuple[int, int]
    encoded: EncodedPrompts | None = None
    boxes: Any = ()
    scores: Any = ()
    embeddings: Sequence[Tensor] = ()

    def to(self, device: torch.device) -> _Seen:
        """Return the same on a device."""
        return replace(self, inputs=self.inputs.to(device), planes=self.planes.to(device))


class PublishedGrounded(StepByStep):
    """Grounded SAM 2 image by image, everything in fp32 and eager."""

    def __init__(self, task: Task, subject: Subject) -> None:
        asked, self._device = asked_of(subject), reference_device(task)
        self._threshold, self._most = asked.threshold, asked.most
        detector, self._segmenter = load_networks(subject, self._device)
        self._detector: Any = detector.model
        self._processor = _processor(detector)
        self._texts = dict(zip(subject.classes, asked.texts, strict=True))
        self.text_encodings = 0
        steps = (
            *published_steps(self._prepare, task, self._device),
            Step("text encoder", self._encode_text, task.threads),
            Step("detector", self._detect, task.threads),
            Step("mask encoder", self._embed, task.threads),
            Step("mask decoder", self._segment, task.threads),
        )
        arithmetic = f"{pytorch_on(self._device)}, {PRECISIONS[self._detector.dtype]}"
        super().__init__("published", arithmetic, steps, self._answer_of)

    def _answer_of(self, found: Sequence[Foreground]) -> Answer:
        self.text_encodings = (self.text_encodings or 0) + len(found)  # one with every image
        return foreground_answer(found, self._most)

    def _prepare(self, image: SourceImage, picture: Image.Image) -> _Seen:
        """Return normalised planes, as transformers' processor and Meta's `SAM2Transforms` make them."""
        text, segmenter = self._texts[image.class_name], self._segmenter
        inputs = self._processor(images=picture, text=text, return_tensors="pt")
        size = (segmenter.image_size, segmenter.image_size)
        resized = functional.interpolate(to_planes(picture)[None], size, mode="bilinear", antialias=True)
        moments = (segmenter.image_mean, segmenter.image_std)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in moments)
        return _Seen(inputs, (resized - mean) / std, (picture.height, picture.width))

    @torch.no_grad()
    def _encode_text(self, _: SourceImage, seen: _Seen) -> _Seen:
        encoded = EncodedPrompts(self._detector, seen.inputs["input_ids"])
        wait_for(self._device)
        return replace(seen, encoded=encoded)

    @torch.no_grad()
    def _detect(self, _: SourceImage, seen: _Seen) -> _Seen:
        assert seen.encoded is not None
        with seen.encoded.in_place(self._detector):
            outputs = self._detector(**seen.inputs)
        (result,) = self._processor.post_process_grounded_object_detection(
            outputs,
            seen.inputs["input_ids"],
            threshold=self._threshold,
            text_threshold=TEXT_THRESHOLD,
            target_sizes=[seen.size],
        )
        best = result["scores"].argsort(descending=True)[: self._most]
        return replace(seen, boxes=result["boxes"][best], scores=result["scores"][best])

    @torch.no_grad()
    def _embed(self, _: SourceImage, seen: _Seen) -> _Seen:
        embeddings = self._segmenter.model.get_image_embeddings(seen.planes)
        wait_for(self._device)
        return replace(seen, embeddings=embeddings)

    @torch.no_grad()
    def _segment(self, _: SourceImage, seen: _Seen) -> Foreground:
        height, width = seen.size
        side = self._segmenter.image_size
        mask = np.zeros((side // _MASK_STRIDE, side // _MASK_STRIDE), np.uint8)
        if not len(seen.boxes):
            return Foreground(0.0, (), mask)
        corners = seen.boxes / torch.tensor([width, height, width, height], device=self._device)
        found = self._segmenter.model(
            image_embeddings=list(seen.embeddings), input_boxes=corners[None] * side, multimask_output=False
        )
        logits = functional.interpolate(found.pred_masks[0], (height, width), mode="bilinear")
        covered = (logits[:, 0] > 0).any(0).cpu().numpy()
        rows = torch.column_stack([corners, seen.scores]).tolist()
        small = cv2.resize(covered * np.uint8(255), mask.shape[::-1], interpolation=cv2.INTER_AREA)
        boxes = tuple(ScoredBox(*row) for row in rows)
        return Foreground(float(covered.mean()), boxes, np.asarray(small, np.uint8))

    def _let_go(self) -> None:
        super()._let_go()
        self._detector = self._segmenter = None  # type: ignore[assignment]


def open_reference(_: object, task: Task, subject: Subject, __: object) -> PublishedGrounded:
    """Open the published style along `foreground`; see `PublishedGrounded`."""
    return PublishedGrounded(task, subject)


def _processor(detector: GroundingDino) -> Any:
    """Return transformers' processor of a checkpoint."""
    processor: Any = GroundingDinoProcessor
    tokenizer: Any = PreTrainedTokenizerFast
    images = GroundingDinoImageProcessorPil(
        size={"shortest_edge": detector.shortest_edge, "longest_edge": detector.longest_edge},
        image_mean=list(detector.image_mean),
        image_std=list(detector.image_std),
    )
    return processor(
        images, tokenizer(tokenizer_object=Tokenizer.from_str(detector.tokenizer), pad_token="[PAD]")
    )
