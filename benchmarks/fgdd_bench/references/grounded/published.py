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
from dataclasses import dataclass
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

from fgdd_bench.harness.implementation import Answer, Implementation, Stage, Step, as_stages, run_steps
from fgdd_bench.harness.subject import Subject, Task, asked_of, foreground_answer
from fgdd_bench.references.fair import PRECISIONS
from fgdd_bench.references.grounded.networks import EncodedPrompts, TextCounter, load_networks
from fgdd_bench.references.networks import pytorch_on, reference_device, wait_for
from fgdd_bench.references.pictures import decode_pillow, read_content
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_export.grounding_dino.network import GroundingDino
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.foreground import Foreground, ScoredBox

TEXT_THRESHOLD = 0.3  # of the scripts; it only names the boxes, and changes none
_MASK_STRIDE = 4  # pixels of SAM 2's square for each of its mask, along each side


@dataclass(frozen=True)
class _Prepared:
    """An image and a prompt as the networks take them.

    Attributes:
        inputs: of the detector.
        planes: float32 [1, 3, side, side], of the segmenter.
        size: height and width of the image.
    """

    inputs: Any
    planes: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class _Detected:
    """What the detector found.

    Attributes:
        prepared: in what.
        boxes: float32 [n, 4]; left, top, right, bottom in pixels of the image.
        scores: float32 [n], best first.
        embeddings: of the image, by the segmenter's encoder; none at first.
    """

    prepared: _Prepared
    boxes: Tensor
    scores: Tensor
    embeddings: Sequence[Tensor] = ()


class PublishedGrounded(Implementation):
    """Grounded SAM 2 image by image, everything in fp32 and eager."""

    name = "published"
    text_encodings: int

    def __init__(self, task: Task, subject: Subject) -> None:
        asked = asked_of(subject)
        torch.set_num_threads(task.threads)
        self._threads = task.threads
        self._threshold, self._most = asked.threshold, asked.most
        self._device = reference_device(task)
        detector, self._segmenter = load_networks(subject, self._device)
        self._detector: Any = detector.model
        self._processor = _processor(detector)
        self._texts = dict(zip(subject.classes, asked.texts, strict=True))
        self._counter = TextCounter()
        self.text_encodings = 0
        self.arithmetic = f"{pytorch_on(self._device)}, {PRECISIONS[self._detector.dtype]}"

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        torch.set_num_threads(self._threads)
        steps = (*self._preparing(), Step("detector", self._detect), *self._segmenting())
        with (
            self._counter.watching(self._detector),
            wrapped_as_engine_error("PyTorch cannot run the published Grounded SAM 2"),
        ):
            found = [run_steps(steps, image) for image in images]
        self.text_encodings = self._counter.count
        return foreground_answer(found, self._most)

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`; the text encoder, a part of the detector, is timed alone."""
        torch.set_num_threads(self._threads)
        threads = self._threads
        steps = (
            *self._preparing(),
            Step("text encoder", self._encode_text, threads),
            Step("detector", self._detect_encoded, threads),
            *self._segmenting(),
        )
        return as_stages(steps, images)[0]

    def close(self) -> None:
        """Let go of the networks."""
        self._detector = self._segmenter = None  # type: ignore[assignment]

    def _preparing(self) -> tuple[Step, ...]:
        copying = (Step("host to device", self._copy),) if self._device.type == "cuda" else ()
        return (
            Step("read", read_content),
            Step("decode", decode_pillow),
            Step("preprocess", self._prepare, self._threads),
            *copying,
        )

    def _segmenting(self) -> tuple[Step, ...]:
        return (
            Step("mask encoder", self._embed, self._threads),
            Step("mask decoder", self._segment, self._threads),
        )

    def _prepare(self, image: SourceImage, picture: Image.Image) -> _Prepared:
        """Return normalised planes, as transformers' processor and Meta's `SAM2Transforms` make them."""
        text = self._texts[image.class_name]
        inputs = self._processor(images=picture, text=text, return_tensors="pt")
        planes = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].contiguous().float().div(255)
        size = (self._segmenter.image_size, self._segmenter.image_size)
        resized = functional.interpolate(planes, size, mode="bilinear", antialias=True)
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1)
            for values in (self._segmenter.image_mean, self._segmenter.image_std)
        )
        return _Prepared(inputs, (resized - mean) / std, (picture.height, picture.width))

    def _copy(self, _: SourceImage, prepared: _Prepared) -> _Prepared:
        copied = _Prepared(prepared.inputs.to(self._device), prepared.planes.to(self._device), prepared.size)
        torch.cuda.synchronize()
        return copied

    @torch.no_grad()
    def _detect(self, _: SourceImage, prepared: _Prepared) -> _Detected:
        outputs = self._detector(**prepared.inputs)
        (result,) = self._processor.post_process_grounded_object_detection(
            outputs,
            prepared.inputs["input_ids"],
            threshold=self._threshold,
            text_threshold=TEXT_THRESHOLD,
            target_sizes=[prepared.size],
        )
        best = result["scores"].argsort(descending=True)[: self._most]
        return _Detected(prepared, result["boxes"][best], result["scores"][best])

    @torch.no_grad()
    def _encode_text(self, _: SourceImage, prepared: _Prepared) -> tuple[_Prepared, EncodedPrompts]:
        encoded = EncodedPrompts(self._detector, prepared.inputs["input_ids"])
        wait_for(self._device)
        return prepared, encoded

    def _detect_encoded(self, image: SourceImage, given: tuple[_Prepared, EncodedPrompts]) -> _Detected:
        prepared, encoded = given
        with encoded.in_place(self._detector):
            return self._detect(image, prepared)

    @torch.no_grad()
    def _embed(self, _: SourceImage, detected: _Detected) -> _Detected:
        embeddings = self._segmenter.model.get_image_embeddings(detected.prepared.planes)
        wait_for(self._device)
        return _Detected(detected.prepared, detected.boxes, detected.scores, embeddings)

    @torch.no_grad()
    def _segment(self, _: SourceImage, detected: _Detected) -> Foreground:
        height, width = detected.prepared.size
        side = self._segmenter.image_size
        mask = np.zeros((side // _MASK_STRIDE, side // _MASK_STRIDE), np.uint8)
        if not len(detected.boxes):
            return Foreground(0.0, (), mask)
        corners = detected.boxes / torch.tensor([width, height, width, height], device=self._device)
        found = self._segmenter.model(
            image_embeddings=list(detected.embeddings),
            input_boxes=corners[None] * side,
            multimask_output=False,
        )
        logits = functional.interpolate(
            found.pred_masks[0], (height, width), mode="bilinear", align_corners=False
        )
        covered = (logits[:, 0] > 0).any(0).cpu().numpy()
        rows = torch.column_stack([corners, detected.scores]).tolist()
        return Foreground(
            float(covered.mean()),
            tuple(ScoredBox(*row) for row in rows),
            np.asarray(cv2.resize(covered * np.uint8(255), mask.shape[::-1], interpolation=cv2.INTER_AREA)),
        )


def _processor(detector: GroundingDino) -> Any:
    """Return transformers' processor of a checkpoint."""
    processor: Any = GroundingDinoProcessor
    tokenizer: Any = PreTrainedTokenizerFast
    return processor(
        GroundingDinoImageProcessorPil(
            size={"shortest_edge": detector.shortest_edge, "longest_edge": detector.longest_edge},
            image_mean=list(detector.image_mean),
            image_std=list(detector.image_std),
        ),
        tokenizer(tokenizer_object=Tokenizer.from_str(detector.tokenizer), pad_token="[PAD]"),
    )
