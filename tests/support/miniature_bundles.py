"""The trained miniatures of Grounding DINO and SAM 2, exported as one foreground bundle."""

from __future__ import annotations

from pathlib import Path

from fgdd_engines.bundle.bundle import Bundle

MINIATURES = Path(__file__).parents[1] / "miniatures"
DETECTOR, SEGMENTER = str(MINIATURES / "grounding-dino"), str(MINIATURES / "sam2")
CANVAS = (160, 160)  # holds every image at the size that the miniature's own resize rule gives it
BOXES, TEXT_LENGTH = 6, 16


def export_miniature(onnx: Path, *, split: bool, images: int) -> Bundle:
    """Export in one of the two forms, and compare with PyTorch on so many drawn scenes."""
    from fgdd_export.grounded_sam2.bundle import GroundedSettings, export_grounded_sam2
    from fgdd_export.grounding_dino.bundle import DetectorSettings
    from fgdd_fast.runtime.sample_images import check_images

    return export_grounded_sam2(
        DETECTOR,
        SEGMENTER,
        onnx,
        GroundedSettings(DetectorSettings(canvas=CANVAS, text_length=TEXT_LENGTH), boxes=BOXES, split=split),
        check=check_images(None, images, {}),
        licence="Apache-2.0",
        threads=1,
    )
