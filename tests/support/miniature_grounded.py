"""The trained miniatures of Grounded SAM 2 as one graph, exported once for the processes of a test run."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from fgdd_engines.bundle.bundle import Bundle, load_bundle
from fgdd_fast.runtime.sample_images import check_images

MINIATURES = Path(__file__).parents[1] / "miniatures"
DETECTOR, SEGMENTER = str(MINIATURES / "grounding-dino"), str(MINIATURES / "sam2")
CANVAS = (160, 160)  # holds every image at the size that the miniature's own resize rule gives it
TEXT_LENGTH, BOXES = 16, 6


def joint_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Export it, compared with PyTorch on 4 drawn scenes, or wait for who does; not to be changed.

    It is not slimmed, which would take most of the time.
    """
    from fgdd_export.grounded_sam2.bundle import GroundedSettings, export_grounded_sam2
    from fgdd_export.grounding_dino.bundle import DetectorSettings

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "miniature-grounded"
    folder.mkdir(exist_ok=True)
    onnx = folder / "grounded.onnx"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not onnx.with_suffix(".json").exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("fgdd_export.graphs.torch_export.slim_model", lambda model: model)
                detector = DetectorSettings(canvas=CANVAS, text_length=TEXT_LENGTH)
                settings = GroundedSettings(detector, BOXES, split=False)
                check = check_images(None, 4, {})
                export_grounded_sam2(
                    DETECTOR, SEGMENTER, onnx, settings, check=check, licence="Apache-2.0", threads=1
                )
    return load_bundle(onnx, "foreground")
