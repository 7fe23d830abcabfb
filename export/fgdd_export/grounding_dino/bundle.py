"""Grounding DINO -> a detector bundle: the image half, with the text half and the tokenizer as its parts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fgdd_engines.bundle.bundle import Bundle, Preprocessing
from fgdd_engines.bundle.files import write_file
from fgdd_export.checkpoints.pretrained import provenance
from fgdd_export.graphs.graph import load_model
from fgdd_export.graphs.network_bundle import Origin, normalisation, publish, staging_folder, write_network
from fgdd_export.graphs.parity import UNKNOWN_LICENCE, check_parity, nearest_distances
from fgdd_export.grounded_sam2.pytorch_reference import DetectorReference, box_corners
from fgdd_export.grounding_dino.network import (
    TOKENIZER,
    GroundingDino,
    detector_network,
    example_tensors,
    load_grounding_dino,
    text_network,
)
from fgdd_fast.errors import SettingsError
from fgdd_fast.models.grounded_sam2 import bring_to_canvas
from fgdd_fast.models.prompts import Prompting, PromptTokenizer, phrases_of, prompt_text
from fgdd_fast.runtime.sample_images import SampleImage

_log = logging.getLogger(__name__)

TEXT = "text"
SMALLEST_CANVAS = 64  # the coarsest of the feature maps has one cell for each 64 pixels
# A proposal differs if no other has its edges and score within this. Which of two nearly equal proposals
# comes last is chance; the PyTorch network differs from itself in as many between batches.
SAME = 1e-3
TOLERANCES = {"median_difference": 1e-4, "differing_share": 0.02}


@dataclass(frozen=True)
class DetectorSettings:
    """What is fixed in an exported detector.

    Attributes:
        canvas: height and width of its input in pixels; a square of the checkpoint's shortest edge when None.
        fit: how an image is brought to the canvas; see `Prompting`.
        text_length: tokens of a prompt, at most.
        threshold: score above which a box is taken, unless it is said otherwise at run time.
        form: one phrase of a prompt, with `{}` for the name.
    """

    canvas: tuple[int, int] | None = None
    fit: Literal["letterbox", "squash"] = "letterbox"
    text_length: int = 32
    threshold: float = 0.4
    form: str = "a {}."

    def canvas_of(self, dino: GroundingDino) -> tuple[int, int]:
        """Height and width of the canvas."""
        return self.canvas or (dino.shortest_edge, dino.shortest_edge)

    def prompting(self, dino: GroundingDino, boxes: int) -> Prompting:
        """As a sidecar says it."""
        return Prompting(
            form=self.form,
            text_length=self.text_length,
            special_tokens=tuple(int(token) for token in dino.model.model.special_tokens),
            threshold=self.threshold,
            boxes=boxes,
            fit=self.fit,
            shortest_edge=dino.shortest_edge,
        )

    def check(self, dino: GroundingDino) -> None:
        """Raise SettingsError unless the settings fit the network."""
        if "{}" not in self.form or not self.form.rstrip().endswith("."):
            raise SettingsError(
                f"The prompt form {self.form!r} needs {{}} for the name and a full stop at its end",
                "The published form is 'a {}.'",
            )
        canvas = self.canvas_of(dino)
        if not SMALLEST_CANVAS <= min(canvas) <= max(canvas) <= dino.longest_edge:
            raise SettingsError(
                f"A canvas for this detector has sides of {SMALLEST_CANVAS} to {dino.longest_edge} pixels, "
                f"not {canvas[0]} x {canvas[1]}"
            )


def export_grounding_dino(
    checkpoint: str,
    onnx: Path,
    settings: DetectorSettings,
    *,
    check: Sequence[SampleImage],
    licence: str = UNKNOWN_LICENCE,
    force: bool = False,
) -> Bundle:
    """Export, compare with the PyTorch network, and write a bundle.

    Args:
        checkpoint: a folder, or a name of the hub.
        onnx: where the ONNX file goes; part, tokenizer and sidecar go beside it.
        settings: what is fixed in the graph.
        check: images for the comparison.
        licence: SPDX identifier of the weights' licence.
        force: write a bundle that differs from its source by more than is accepted.

    Returns:
        A bundle with the role `detector`, whose outputs are the network's own: `logits` float32
        [batch, queries, tokens] and `boxes` float32 [batch, queries, 4] (centre and size).

    Raises:
        BundleError: the checkpoint cannot be used, or the result differs from it; nothing is written then.
        SettingsError: the settings do not fit the network.
    """
    # They are refused before anything takes long.
    prompts = [prompt_text(phrases_of(image.image.class_name, {}), settings.form) for image in check]
    _log.info("Loading the checkpoint")
    dino = load_grounding_dino(checkpoint)
    settings.check(dino)
    origin = detector_origin(checkpoint, dino, licence)
    network = detector_network(dino, *settings.canvas_of(dino), settings.text_length)
    with staging_folder(onnx) as place:
        _log.info("Exporting the text encoder")
        text = write_text_encoder(place, dino, settings.text_length, origin)
        _log.info("Exporting the detector")
        staged = write_network(
            place,
            "detector",
            network,
            example_tensors(network),
            preprocessing=detector_preprocessing(dino, settings),
            origin=origin,
            prompting=settings.prompting(dino, dino.model.config.num_queries).as_json(),
            parts={TEXT: text},
            files=write_tokenizer(place, dino),
        )
        _log.info("Comparing with PyTorch")
        parity = _measure_parity(staged, DetectorReference(dino), check, prompts)
        if not force:
            check_parity(onnx.stem, parity, TOLERANCES)
        return publish(staged, onnx, parity)


def detector_origin(checkpoint: str, dino: GroundingDino, licence: str) -> Origin:
    """What a sidecar says of the detector's weights and of the published way to use them."""
    source = {
        **provenance(checkpoint),
        "unused_tensors": len(dino.unused),
        "resize_rule": {"shortest_edge": dino.shortest_edge, "longest_edge": dino.longest_edge},
    }
    return Origin(source, licence)


def detector_preprocessing(dino: GroundingDino, settings: DetectorSettings) -> Preprocessing:
    """What the detector's graph does to its canvas."""
    return Preprocessing(*settings.canvas_of(dino), normalisation(dino.image_mean, dino.image_std))


def write_text_encoder(onnx: Path, dino: GroundingDino, text_length: int, origin: Origin) -> Bundle:
    """Write the text half beside the bundle at `onnx`."""
    network = text_network(dino, text_length)
    return write_network(
        onnx.with_name(f"{onnx.stem}.{TEXT}.onnx"),
        "text-encoder",
        network,
        example_tensors(network),
        preprocessing=Preprocessing(0, 0, "none: it takes tokens"),
        origin=origin,
    )


def write_tokenizer(onnx: Path, dino: GroundingDino) -> dict[str, str]:
    """Write the tokenizer beside the bundle at `onnx`; its name and SHA-256, as `Bundle.files` wants them."""
    content = dino.tokenizer.encode()
    write_file(onnx.with_name(f"{onnx.stem}.{TOKENIZER}"), content)
    return {TOKENIZER: hashlib.sha256(content).hexdigest()}


def _measure_parity(
    bundle: Bundle, reference: DetectorReference, images: Sequence[SampleImage], prompts: Sequence[str]
) -> dict[str, Any]:
    """Compare all proposals on each image's canvas; equal ones may come in another order."""
    prompting = Prompting.of(bundle)
    tokenizer = PromptTokenizer(bundle.file(TOKENIZER), prompting)
    encode, detect = (load_model(part.graph()) for part in (bundle.part(TEXT), bundle))
    size = bundle.preprocessing.height, bundle.preprocessing.width
    distances = []
    for image, prompt in zip(images, prompts, strict=True):
        canvas, valid = bring_to_canvas(image.pixels, size, prompting, "area")
        tokens = tokenizer.encode(prompt)
        text = {name: getattr(tokens, name)[None] for name in ("input_ids", "self_mask", "position_ids")}
        masks = {"text_mask": tokens.mask[None], "text_self_mask": tokens.self_mask[None]}
        found = detect({"canvas": canvas[None], "valid": valid[None], **masks, **encode(text)})
        scores = 1 / (1 + np.exp(-found["logits"][0].max(axis=-1)))
        expected = reference.detect_on_canvas(canvas, valid, prompt)
        distances.append(nearest_distances(expected.rows(), np.c_[box_corners(found["boxes"][0]), scores]))
    together = np.concatenate(distances)
    return {
        "images": len(images),
        "proposals": len(together),
        "median_difference": float(np.median(together)),
        "differing_share": float((together > SAME).mean()),
    }
