"""Grounding DINO and SAM 2.1 -> one foreground bundle that is asked for classes by their names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fgdd_engines.bundle.bundle import Bundle
from fgdd_export.graphs.network_bundle import Origin, publish, staging_folder, write_network
from fgdd_export.graphs.parity import UNKNOWN_LICENCE, check_parity
from fgdd_export.grounded_sam2.occupancy import (
    BoxFinder,
    ForegroundSegmenter,
    finder_network,
    joint_network,
    segmenter_network,
)
from fgdd_export.grounded_sam2.parity import TOLERANCES, measure_parity
from fgdd_export.grounded_sam2.pytorch_reference import DetectorReference, SegmenterReference
from fgdd_export.grounding_dino.bundle import (
    TEXT,
    DetectorSettings,
    detector_origin,
    detector_preprocessing,
    write_text_encoder,
    write_tokenizer,
)
from fgdd_export.grounding_dino.network import (
    GroundingDino,
    detector_network,
    example_tensors,
    load_grounding_dino,
)
from fgdd_export.sam2.bundle import segmenter_origin, segmenter_preprocessing
from fgdd_export.sam2.network import ImageEncoder, MaskDecoder, Sam2, encoder_example, load_sam2
from fgdd_fast.errors import SettingsError
from fgdd_fast.models.prompts import phrases_of
from fgdd_fast.runtime.sample_images import SampleImage

_log = logging.getLogger(__name__)

SEGMENTER = "segmenter"


@dataclass(frozen=True)
class GroundedSettings:
    """What is fixed in an exported Grounded SAM 2.

    Attributes:
        detector: of its first half.
        boxes: boxes segmented of an image, at most.
        split: two graphs instead of one, so that images without a detection are not segmented.
        segmenter_size: pixels of each side of the segmenter's image, if smaller than its checkpoint's.
    """

    detector: DetectorSettings
    boxes: int
    split: bool
    segmenter_size: int | None = None


def export_grounded_sam2(
    detector: str,
    segmenter: str,
    onnx: Path,
    settings: GroundedSettings,
    *,
    check: Sequence[SampleImage],
    threads: int,
    licence: str = UNKNOWN_LICENCE,
    force: bool = False,
) -> Bundle:
    """Export, compare with the PyTorch networks, and write a bundle.

    Args:
        detector: a Grounding DINO checkpoint: a folder, or a name of the hub.
        segmenter: a SAM 2.1 checkpoint: a folder, a name of the hub, or a `.pt` file as Meta publishes it.
        onnx: where the ONNX file goes; parts, tokenizer and sidecar go beside it.
        settings: what is fixed in the graphs.
        check: images for the comparison.
        licence: SPDX identifier of the weights' licence.
        threads: processor threads for the comparison.
        force: write a bundle that differs from its source by more than is accepted.

    Returns:
        A bundle with the role `foreground`, whose tensors are those of `fgdd_fast.models.grounded_tensors`.

    Raises:
        BundleError: a checkpoint cannot be used, or the result differs from it; nothing is written then.
        SettingsError: the settings do not fit the networks.
    """
    for image in check:
        phrases_of(image.image.class_name, {})  # refused before anything takes long
    _log.info("Loading the checkpoints")
    dino = load_grounding_dino(detector)
    settings.detector.check(dino)
    if settings.boxes > dino.model.config.num_queries:
        raise SettingsError(
            f"The detector proposes {dino.model.config.num_queries} boxes, not {settings.boxes}"
        )
    published = load_sam2(segmenter)
    sam = published.at_size(settings.segmenter_size)
    detector_source = detector_origin(detector, dino, licence)
    segmenter_source = segmenter_origin(segmenter, sam, licence)
    source = {"detector": detector_source.source, "segmenter": segmenter_source.source}
    with staging_folder(onnx) as place:
        _log.info("Exporting the text encoder")
        text = write_text_encoder(place, dino, settings.detector.text_length, detector_source)
        _log.info("Exporting detector and segmenter")
        staged = _write_graphs(place, dino, sam, settings, Origin(source, licence), {TEXT: text})
        references = DetectorReference(dino), SegmenterReference(sam), SegmenterReference(published)
        parity = measure_parity(staged, *references, check, threads)
        if not force:
            check_parity(onnx.stem, parity, TOLERANCES)
        return publish(staged, onnx, parity)


def _write_graphs(
    onnx: Path,
    dino: GroundingDino,
    sam: Sam2,
    settings: GroundedSettings,
    origin: Origin,
    parts: Mapping[str, Bundle],
) -> Bundle:
    """Write the main graph, and the segmenter as a part of it in the split form."""
    network = detector_network(dino, *settings.detector.canvas_of(dino), settings.detector.text_length)
    finder = BoxFinder(network.module, settings.boxes)
    segmenter = ForegroundSegmenter(ImageEncoder(sam), MaskDecoder(sam), sam.image_size)
    prompted = (*example_tensors(network), torch.full((2,), settings.detector.threshold))
    (images,) = encoder_example(sam)
    main = partial(
        write_network,
        onnx,
        "foreground",
        origin=origin,
        prompting=settings.detector.prompting(dino, settings.boxes).as_json(),
        files=write_tokenizer(onnx, dino),
    )
    if not settings.split:
        return main(
            joint_network(finder, segmenter, network.inputs),
            (images, *prompted),
            preprocessing=segmenter_preprocessing(sam),
            parts=parts,
        )
    segmenter_part = write_network(
        onnx.with_name(f"{onnx.stem}.{SEGMENTER}.onnx"),
        "segmenter",
        segmenter_network(segmenter, settings.boxes),
        (images, torch.rand(2, settings.boxes, 4), torch.rand(2, settings.boxes)),
        preprocessing=segmenter_preprocessing(sam),
        origin=origin,
    )
    return main(
        finder_network(finder, network.inputs),
        prompted,
        preprocessing=detector_preprocessing(dino, settings.detector),
        parts={**parts, SEGMENTER: segmenter_part},
    )
