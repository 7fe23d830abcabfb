"""SAM 2.1 -> a bundle: the image encoder, with the box-prompted mask decoder as its part."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgdd_engines.bundle.bundle import Bundle, Preprocessing
from fgdd_export.checkpoints.pretrained import provenance
from fgdd_export.graphs.graph import load_model
from fgdd_export.graphs.network_bundle import Origin, normalisation, publish, staging_folder, write_network
from fgdd_export.graphs.parity import UNKNOWN_LICENCE, check_parity, mask_iou
from fgdd_export.grounded_sam2.pytorch_reference import SegmenterReference
from fgdd_export.sam2.network import (
    Sam2,
    decoder_example,
    decoder_network,
    encoder_example,
    encoder_network,
    load_sam2,
)
from fgdd_fast.images.resize import resize
from fgdd_fast.runtime.sample_images import SampleImage

_log = logging.getLogger(__name__)

DECODER = "decoder"
TOLERANCES = {"max_logit_difference": 1e-3, "mask_iou_loss": 1e-3}
# Boxes that every check image is asked for, as shares of it: the middle, all of it, and two corners.
BOXES = np.array(
    [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1], [0.02, 0.05, 0.4, 0.3], [0.5, 0.6, 0.99, 0.9]], np.float32
)


def export_sam2(
    checkpoint: str,
    onnx: Path,
    *,
    check: Sequence[SampleImage],
    image_size: int | None = None,
    licence: str = UNKNOWN_LICENCE,
    force: bool = False,
) -> Bundle:
    """Export, compare with the PyTorch network, and write a bundle.

    Args:
        checkpoint: a folder, a name of the hub, or a `.pt` file as Meta publishes it.
        onnx: where the encoder's ONNX file goes; the decoder and the sidecar go beside it.
        check: images for the comparison.
        image_size: pixels of each side of its images, if smaller than the checkpoint's; see `Sam2.at_size`.
        licence: SPDX identifier of the weights' licence.
        force: write a bundle that differs from its source by more than is accepted.

    Returns:
        A bundle with the role `image-encoder` and a part `decoder`.

    Raises:
        BundleError: the checkpoint cannot be used, or the result differs from it; nothing is written then.
        SettingsError: the network cannot take images of that size.
    """
    _log.info("Loading the checkpoint")
    sam = load_sam2(checkpoint).at_size(image_size)
    origin = segmenter_origin(checkpoint, sam, licence)
    with staging_folder(onnx) as place:
        _log.info("Exporting the mask decoder")
        decoder = write_network(
            place.with_name(f"{place.stem}.{DECODER}.onnx"),
            "mask-decoder",
            decoder_network(sam),
            decoder_example(sam),
            preprocessing=Preprocessing(0, 0, "none: it takes embeddings"),
            origin=origin,
        )
        _log.info("Exporting the image encoder")
        staged = write_network(
            place,
            "image-encoder",
            encoder_network(sam),
            encoder_example(sam),
            preprocessing=segmenter_preprocessing(sam),
            origin=origin,
            parts={DECODER: decoder},
        )
        _log.info("Comparing with PyTorch")
        parity = _measure_parity(staged, SegmenterReference(sam), check)
        if not force:
            check_parity(onnx.stem, parity, TOLERANCES)
        return publish(staged, onnx, parity)


def segmenter_origin(checkpoint: str, sam: Sam2, licence: str) -> Origin:
    """What a sidecar says of the segmenter's weights."""
    return Origin({**provenance(checkpoint), "unused_tensors": len(sam.unused)}, licence)


def segmenter_preprocessing(sam: Sam2) -> Preprocessing:
    """What the segmenter's graph does to its image."""
    return Preprocessing(sam.image_size, sam.image_size, normalisation(sam.image_mean, sam.image_std))


def _measure_parity(
    bundle: Bundle, reference: SegmenterReference, images: Sequence[SampleImage]
) -> dict[str, Any]:
    """Compare the masks of the same boxes on each image."""
    encode, decode = (load_model(part.graph()) for part in (bundle, bundle.part(DECODER)))
    side = bundle.preprocessing.width
    differences, losses = [], []
    for image in images:
        square = resize(image.pixels, (side, side), "pil")
        embeddings = encode({"images": square[None]})
        found = decode({**embeddings, "boxes": BOXES[None] * np.float32(side)})["masks"][0]
        expected = reference.mask_logits(square, BOXES).numpy()
        differences.append(float(np.abs(found - expected).max()))
        losses += [1 - mask_iou(one > 0, other > 0) for one, other in zip(expected, found, strict=True)]
    figures = {"max_logit_difference": max(differences), "mask_iou_loss": max(losses)}
    return {"images": len(images), "boxes": len(losses), **figures}
