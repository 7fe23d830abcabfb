"""Grounded SAM 2 in PyTorch, for the references: transformers' own networks, nothing of them changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.grounding_dino.modeling_grounding_dino import (
    generate_masks_with_special_tokens_and_transfer_map,
)

from fgdd_bench.harness.subject import Subject
from fgdd_export.checkpoints.pretrained import provenance
from fgdd_export.grounding_dino.network import GroundingDino, load_grounding_dino
from fgdd_export.sam2.network import Sam2, load_sam2
from fgdd_fast.errors import SettingsError


class Boxes(NamedTuple):
    """The best boxes of some images, [images, boxes, 4] as shares of the image; scores, 0 for no box."""

    corners: Tensor
    scores: Tensor


def load_networks(subject: Subject, device: torch.device) -> tuple[GroundingDino, Sam2]:
    """Load the checkpoints that the subject's bundle was exported from: Grounding DINO and SAM 2.1.

    Raises:
        FgddError: a checkpoint cannot be used, none are named, or the bundle was exported from another one.
    """
    bundle = subject.foreground_bundle(grounded=True)
    if subject.checkpoints is None:
        raise SettingsError("The references run the checkpoints of a Grounded SAM 2, and none are named")
    for name, checkpoint in zip(("detector", "segmenter"), subject.checkpoints, strict=True):
        exported, given = bundle.source.get(name, {}), provenance(checkpoint)
        if exported.get("weights") != given.get("weights"):
            raise SettingsError(
                f"The bundle {bundle.onnx} was not exported from the {name} {checkpoint}",
                "Name the checkpoint that it was exported from, so that both sides have the same weights.",
            )
    networks = load_grounding_dino(subject.checkpoints[0]), load_sam2(subject.checkpoints[1])
    for network in networks:
        model: Any = network.model
        model.to(device)
    return networks


class Prompts(NamedTuple):
    """Tokenised prompts, int64 [prompts, tokens], filled up to a common length; the mask is 0 there."""

    ids: Tensor
    mask: Tensor

    @classmethod
    def of(cls, texts: Sequence[str], detector: GroundingDino, device: torch.device) -> Prompts:
        """Tokenise prompts."""
        tokenizer = Tokenizer.from_str(detector.tokenizer)
        tokenizer.no_truncation()
        tokenizer.enable_padding()
        encoded = tokenizer.encode_batch(list(texts))
        rows = ([one.ids for one in encoded], [one.attention_mask for one in encoded])
        return cls(*(torch.tensor(one, device=device) for one in rows))

    def inputs(self, places: Tensor) -> dict[str, Tensor]:
        """Return what a Grounding DINO takes of some of them, one for each image."""
        ids = self.ids[places]
        return {
            "input_ids": ids,
            "attention_mask": self.mask[places],
            "token_type_ids": torch.zeros_like(ids),
        }


class EncodedPrompts(nn.Module):
    """Stands in for a Grounding DINO's text backbone: gives what that makes of prompts, once, here.

    The prompts are int64 [prompts, tokens], filled up.
    """

    ids: Tensor
    states: Tensor

    def __init__(self, detector: Any, ids: Tensor) -> None:
        super().__init__()
        network, special = detector.model, detector.model.special_tokens
        masks, places = generate_masks_with_special_tokens_and_transfer_map(ids, special)  # type: ignore[arg-type]
        states = network.text_backbone(ids, masks[:, None], torch.zeros_like(ids), places).last_hidden_state
        self.register_buffer("ids", ids)
        self.register_buffer("states", states)

    def forward(self, input_ids: Tensor, *_: Any, **__: Any) -> BaseModelOutput:
        """Return the states of prompts that were encoded; tokens are told apart by their ids alone."""
        places = (input_ids[:, None] == self.ids).all(-1).int().argmax(1)
        return BaseModelOutput(last_hidden_state=self.states[places])

    @contextmanager
    def in_place(self, detector: Any) -> Iterator[None]:
        """Within the block, a detector looks its prompts up instead of encoding them."""
        backbone = detector.model.text_backbone
        detector.model.text_backbone = self
        try:
            yield
        finally:
            detector.model.text_backbone = backbone


def best_boxes(outputs: Any, threshold: float, most: int) -> Boxes:
    """Return the best of what a Grounding DINO proposes for each image, of those above a threshold."""
    scores, places = outputs.logits.float().amax(-1).sigmoid().topk(most, dim=1)
    boxes = outputs.pred_boxes.float().gather(1, places[..., None].expand(-1, -1, 4))
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return Boxes(torch.cat([centre - half, centre + half], -1), scores * (scores > threshold))


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return images uint8 [images, height, width, 3] as float32 [images, 3, height, width]."""
    shift = torch.tensor(mean, device=pixels.device) * 255
    scale = torch.tensor(std, device=pixels.device) * 255
    return ((pixels - shift) / scale).permute(0, 3, 1, 2)
